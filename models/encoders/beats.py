"""What the BEATs encoder is. Source: microsoft/unilm beats/BEATs.py, backbone.py (docs/reference.md §1.3, §2.2)."""

from __future__ import annotations

from dataclasses import dataclass

WIN_LENGTH = 400  # samples, 25 ms
HOP_LENGTH = 160  # samples, 10 ms
N_FFT = 512
N_MELS = 128
LOW_HZ, HIGH_HZ = 20.0, 8000.0
PRE_EMPHASIS = 0.97
LOG_FLOOR = 1.1920928955078125e-07  # float32 epsilon, as torchaudio's kaldi.fbank
FBANK_MEAN, FBANK_STD = 15.41663, 6.55582
N_BANDS = 8  # tokens per time patch: 128 mels / 16

INPUT, OUTPUT = "fbank", "audio"  # I/O names of beats.onnx


@dataclass(frozen=True)
class BeatsSpec:
    """Sizes of one BEATs encoder. fbank [1, n_frames, 128] -> audio [1, n_tokens(n_frames), d_model]."""

    d_model: int
    n_layers: int
    n_heads: int
    d_ffn: int
    d_patch: int
    patch_size: int = 16
    conv_pos: int = 128
    conv_pos_groups: int = 16
    num_buckets: int = 320
    max_distance: int = 800

    def n_tokens(self, n_frames: int) -> int:
        """Eight tokens, one per frequency band, for every whole patch of 16 frames (160 ms)."""
        return n_frames // self.patch_size * (N_MELS // self.patch_size)


def n_frames(n_samples: int) -> int:
    """Kaldi frames with snip_edges: none shorter than one window."""
    return 0 if n_samples < WIN_LENGTH else 1 + (n_samples - WIN_LENGTH) // HOP_LENGTH


BEATS_ITER3_PLUS = BeatsSpec(d_model=768, n_layers=12, n_heads=12, d_ffn=3072, d_patch=512)
