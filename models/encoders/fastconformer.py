"""FastConformer of a SALM: spec, adapter and projection included, and its front end: waveform -> log-mel.

Source: NeMo asr/modules/conformer_encoder.py, asr/parts/preprocessing/features.py (docs/reference.md §7.2, §7.3).
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ..audio import SAMPLE_RATE, Waveform
from ..errors import BundleError
from .filter_bank import band_power

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


@dataclass(frozen=True)
class Featurizer:
    """The checkpoint's own tables: computed anew, they would differ in the third digit."""

    fb: NDArray[np.float32]
    """Mel filter bank [n_mels, N_BINS]."""
    window: NDArray[np.float32]
    """[WIN_LENGTH]."""


def features(waveform: Waveform, featurizer: Featurizer) -> NDArray[np.float32]:
    """NeMo's normalised log-mel, valid frames only: [1, n_mels, n_frames(len(waveform))].

    Frames are centred at multiples of HOP_LENGTH, with silence around the clip. A clip of less than LEAST_SAMPLES is
    padded with silence to that: the standard deviation needs two frames. Pre-emphasis and window are rounded to float32
    as NeMo's are, the rest is float64: NeMo's own float32 transform is off by as much as 1e-3 in bands that are silent
    all through the clip, and by 2e-4 elsewhere.
    """
    x = np.zeros(max(len(waveform), LEAST_SAMPLES), np.float32)
    x[: len(waveform)] = waveform
    x[1:] -= np.float32(PRE_EMPHASIS) * x[:-1]
    count = n_frames(len(x))
    frames = sliding_window_view(np.pad(x, WIN_LENGTH // 2), WIN_LENGTH)[::HOP_LENGTH][:count] * featurizer.window
    spectrum = np.fft.rfft(frames.astype(np.float64), N_FFT)  # where in N_FFT the window lies changes no power
    logs = np.log(band_power(spectrum, featurizer.fb.T.astype(np.float64)) + LOG_GUARD)
    normal = (logs - logs.mean(axis=0)) / (logs.std(axis=0, ddof=1) + STD_GUARD)
    return np.ascontiguousarray(normal.T, dtype=np.float32)[np.newaxis]


def read_featurizer(path: Path, n_mels: int) -> Featurizer:
    """The tables that the exporter took from the checkpoint.

    Raises BundleError when the file is missing, damaged, or holds anything but them.
    """
    if not path.is_file():
        raise BundleError(f"{path} is missing: the bundle is not whole")
    wanted = {"fb": (n_mels, N_BINS), "window": (WIN_LENGTH,)}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            tables = {name: np.asarray(arrays[name]) for name in wanted}
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise BundleError(f"{path} does not hold a filter bank and its window: export the bundle again") from error
    for name, shape in wanted.items():
        table = tables[name]
        if table.shape != shape or table.dtype != np.float32 or not np.isfinite(table).all():
            raise BundleError(
                f"{path} holds a {name} of {table.dtype} {list(table.shape)} where float32 {list(shape)}, all finite, "
                "was expected: export the bundle again"
            )
    return Featurizer(**tables)
