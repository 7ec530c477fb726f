"""NeMo's log-mel front end in numpy, and the FastConformer encoder of a SALM.

Source: NeMo asr/parts/preprocessing/features.py (docs/reference.md §7.2).
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ...models.audio import SAMPLE_RATE, Waveform
from ...models.encoders.fastconformer import (
    HOP_LENGTH,
    INPUT,
    LEAST_SAMPLES,
    LOG_GUARD,
    N_BINS,
    N_FFT,
    PRE_EMPHASIS,
    STD_GUARD,
    WIN_LENGTH,
    FastConformerSpec,
    n_frames,
)
from ...models.errors import AudioError, BundleError

if TYPE_CHECKING:
    from ..system.ort import Session


@dataclass(frozen=True)
class Featurizer:
    """The checkpoint's own tables: computed anew, they would differ in the third digit."""

    fb: NDArray[np.float32]
    """Mel filter bank [n_mels, N_BINS]."""
    window: NDArray[np.float32]
    """[WIN_LENGTH]."""


class FastConformerEncoder:
    """waveform -> audio_tokens [n_tokens, d_llm]."""

    def __init__(self, session: Session, spec: FastConformerSpec, featurizer: Featurizer) -> None:
        self.session, self.spec, self.featurizer = session, spec, featurizer

    def audio_tokens(self, waveform: Waveform) -> NDArray[np.float32]:
        """Encode a clip of at most spec.seconds and the tail that joined it, less than LEAST_SAMPLES.

        A clip of less than LEAST_SAMPLES is padded with silence to that. Raises AudioError for one that is too long,
        RunError when the graph fails.
        """
        if len(waveform) >= self.spec.n_samples + LEAST_SAMPLES:
            raise AudioError(
                f"the clip lasts {len(waveform) / SAMPLE_RATE:.1f} s where one pass hears {self.spec.seconds:g} s: "
                "cut it into segments"
            )
        return self.session.run(**{INPUT: features(waveform, self.featurizer)}).numpy()[0]


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
    power = spectrum.real**2 + spectrum.imag**2
    logs = np.log(power @ featurizer.fb.T.astype(np.float64) + LOG_GUARD)
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
