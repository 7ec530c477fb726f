"""BEATs' Kaldi filter bank in numpy, and its encoder. Source: torchaudio's kaldi.py (docs/reference.md §1.3)."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ...models.audio import MIN_MODEL_SECONDS, SAMPLE_RATE, Waveform
from ...models.encoders.beats import (
    FBANK_MEAN,
    FBANK_STD,
    HIGH_HZ,
    HOP_LENGTH,
    INPUT,
    LOG_FLOOR,
    LOW_HZ,
    N_FFT,
    N_MELS,
    PRE_EMPHASIS,
    WIN_LENGTH,
)

if TYPE_CHECKING:
    from onnxruntime import OrtValue

    from ..system.ort import Session

_INT16_SCALE = 32768.0  # Kaldi hears 16-bit integers


class BeatsEncoder:
    """waveform -> audio [1, n_tokens, d_model]."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def encode(self, waveform: Waveform) -> OrtValue:
        """Encode a clip, zero-padded to one second as SALMONN does; the result stays on the device.

        Raises RunError.
        """
        missing = int(MIN_MODEL_SECONDS * SAMPLE_RATE) - len(waveform)
        padded = np.pad(waveform, (0, missing)) if missing > 0 else waveform
        return self.session.run(**{INPUT: fbank(padded)})


def fbank(waveform: Waveform) -> NDArray[np.float32]:
    """Normalised log filter bank of the clip's real length: [1, n_frames, 128], no frame under 25 ms.

    float64 inside, as the reference computes it; digital silence is -2.3917 everywhere.
    """
    scaled = np.asarray(waveform, np.float64) * _INT16_SCALE
    if len(scaled) < WIN_LENGTH:
        return np.zeros((1, 0, N_MELS), np.float32)
    frames = sliding_window_view(scaled, WIN_LENGTH)[::HOP_LENGTH]
    frames = frames - frames.mean(axis=1, keepdims=True)
    emphasised = frames.copy()
    emphasised[:, 1:] -= PRE_EMPHASIS * frames[:, :-1]
    emphasised[:, 0] -= PRE_EMPHASIS * frames[:, 0]
    spectrum = np.fft.rfft(emphasised * _povey(), N_FFT)[:, : N_FFT // 2]
    power = spectrum.real**2 + spectrum.imag**2
    logs = np.log(np.maximum(power @ filter_bank(), LOG_FLOOR))
    return ((logs - FBANK_MEAN) / (2.0 * FBANK_STD)).astype(np.float32)[np.newaxis]


@cache
def filter_bank() -> NDArray[np.float64]:
    """Triangles linear in mel, peak 1: [n_fft / 2, n_mels]. The fourth is empty: no bin falls into it.

    Built in float32, as torchaudio does: a float64 bank differs by 2e-5 in the result.
    """
    one = np.float32
    low, high = (1127.0 * np.log(1.0 + hz / 700.0) for hz in (LOW_HZ, HIGH_HZ))
    step = (high - low) / (N_MELS + 1)
    band = np.arange(N_MELS, dtype=one)
    left = one(low) + band * one(step)
    centre = one(low) + (band + one(1.0)) * one(step)
    right = one(low) + (band + one(2.0)) * one(step)
    hz = one(SAMPLE_RATE / N_FFT) * np.arange(N_FFT // 2, dtype=one)
    mel = (one(1127.0) * np.log(one(1.0) + hz / one(700.0)))[:, np.newaxis]
    rising, falling = (mel - left) / (centre - left), (right - mel) / (right - centre)
    return np.maximum(one(0.0), np.minimum(rising, falling)).astype(np.float64)


@cache
def _povey() -> NDArray[np.float64]:
    n = np.arange(WIN_LENGTH)
    return (0.5 - 0.5 * np.cos(2.0 * np.pi * n / (WIN_LENGTH - 1))) ** 0.85
