"""What the FastConformer encoder of a SALM is, its adapter and projection included.

Source: NeMo asr/modules/conformer_encoder.py, asr/parts/preprocessing/features.py (docs/reference.md §7.2, §7.3).
"""

from __future__ import annotations

from dataclasses import dataclass

from ..audio import SAMPLE_RATE

N_FFT = 512  # samples
WIN_LENGTH = 400  # samples, centred in N_FFT
HOP_LENGTH = 160  # samples: 100 frames per second
PRE_EMPHASIS = 0.97
LOG_GUARD = 2.0**-24  # added to every mel power
STD_GUARD = 1e-5  # added to every standard deviation
N_BINS = N_FFT // 2 + 1
SUBSAMPLING = 8  # frames per token: 80 ms
LEAST_SAMPLES = 2 * HOP_LENGTH  # one frame alone has no standard deviation

INPUT, OUTPUT = "features", "audio_tokens"  # I/O names of fastconformer.onnx
FRAMES_AXIS = "feature_frames"  # the input's dynamic axis
FEATURIZER = "featurizer.npz"
"""The checkpoint's own filter bank `fb` [n_mels, N_BINS] and `window` [WIN_LENGTH], float32: never computed anew."""


@dataclass(frozen=True)
class AdapterSpec:
    """Conformer layers between encoder and projection, at the encoder's rate."""

    d_model: int
    n_layers: int
    n_heads: int
    d_ffn: int
    conv_kernel: int
    scale_input: bool


@dataclass(frozen=True)
class FastConformerSpec:
    """Sizes of one encoder. features [1, n_mels, n_frames] -> audio_tokens [1, n_tokens(n_frames), d_llm]."""

    d_model: int
    n_layers: int
    n_heads: int
    d_ffn: int
    conv_kernel: int
    subsampling_channels: int
    d_llm: int
    n_mels: int = 128
    adapter: AdapterSpec | None = None
    seconds: float = 40.0
    """Longest clip one pass should hear: what the released model was trained on."""

    @property
    def n_samples(self) -> int:
        """Samples of the longest clip."""
        return round(self.seconds * SAMPLE_RATE)


def n_frames(n_samples: int) -> int:
    """Valid feature frames of a clip; the one more that a centred transform yields is dropped."""
    return n_samples // HOP_LENGTH


def n_tokens(n_frames: int) -> int:
    """Audio tokens of so many valid frames: three halvings, each rounded up (1100 -> 138, 4000 -> 500)."""
    return -(-n_frames // SUBSAMPLING)


CANARY_QWEN = FastConformerSpec(1024, 32, 8, 4096, 9, 256, d_llm=2048)
