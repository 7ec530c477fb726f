"""What the Whisper encoder is.

Source: openai/whisper audio.py, transformers' WhisperFeatureExtractor (docs/reference.md §1.2, §2.1).
"""

from __future__ import annotations

from dataclasses import dataclass

from ..audio import SAMPLE_RATE

N_FFT = 400  # samples, also the window length
HOP_LENGTH = 160  # samples: 100 mel frames per second
N_MELS = 80
FRAME_RATE = 50.0  # encoder frames per second: the second convolution halves the mel rate

INPUT, OUTPUT = "log_mel", "speech"  # I/O names of whisper.onnx


@dataclass(frozen=True)
class WhisperSpec:
    """Sizes of one Whisper encoder. log_mel [1, n_mels, n_frames] -> speech [1, n_positions, d_model]."""

    d_model: int
    n_layers: int
    n_heads: int
    d_ffn: int
    n_mels: int = N_MELS
    n_positions: int = 1500

    @property
    def n_frames(self) -> int:
        """Mel frames the encoder always reads, whatever the clip's length."""
        return 2 * self.n_positions

    @property
    def n_samples(self) -> int:
        """Samples in the padded clip."""
        return self.n_frames * HOP_LENGTH

    @property
    def seconds(self) -> float:
        """Longest clip one pass can hear."""
        return self.n_samples / SAMPLE_RATE


WHISPER_LARGE_V2 = WhisperSpec(d_model=1280, n_layers=32, n_heads=20, d_ffn=5120)
