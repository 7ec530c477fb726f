"""Window-level Q-Former: spec: two encoders' frames -> audio tokens.

Source: SALMONN models/salmonn.py::_encode_auditory_feature, models/Qformer.py (docs/reference.md §3).
"""

from __future__ import annotations

from dataclasses import dataclass

from .whisper import FRAME_RATE

SPEECH_INPUT, AUDIO_INPUT, OUTPUT = "speech", "audio", "audio_tokens"  # I/O names of qformer.onnx


@dataclass(frozen=True)
class QFormerSpec:
    """One query hears each window: speech [1, T, d] and audio [1, n, d] -> audio_tokens [1, n_windows(T), d_llm]."""

    hidden: int
    n_heads: int
    d_ffn: int
    d_speech: int
    d_audio: int
    d_llm: int
    n_layers: int = 2
    second_per_window: float = 0.333333
    second_stride: float = 0.333333
    layer_norm_eps: float = 1e-12

    @property
    def d_encoder(self) -> int:
        """Width of one fused frame: speech first, then audio."""
        return self.d_speech + self.d_audio

    @property
    def window(self) -> int:
        """Frames per window; Python's round, half to even, as the reference: 0.333333 s -> 17."""
        return round(FRAME_RATE * self.second_per_window)

    @property
    def stride(self) -> int:
        """Frames from one window's start to the next."""
        return round(FRAME_RATE * self.second_stride)

    def n_windows(self, n_positions: int) -> int:
        """Whole windows in n_positions frames; the frames behind the last one are dropped (1500 -> 88)."""
        return (n_positions - self.window) // self.stride + 1
