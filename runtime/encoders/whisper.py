"""Whisper's log-mel front end in numpy, and its encoder. Source: openai/whisper audio.py (docs/reference.md §1.2)."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ...models.audio import SAMPLE_RATE, Waveform
from ...models.encoders.whisper import HOP_LENGTH, INPUT, N_FFT, WhisperSpec

if TYPE_CHECKING:
    from onnxruntime import OrtValue

    from ..system.ort import Session

_LOG_FLOOR = 1e-10
_DYNAMIC_RANGE = 8.0  # decades below the loudest bin of the padded clip
_KNEE_HZ, _KNEE_MEL, _LOG_STEP = (
    1000.0,
    15.0,
    math.log(6.4) / 27.0,
)  # Slaney's scale: linear below, logarithmic above


class WhisperEncoder:
    """waveform -> speech [1, n_positions, d_model]."""

    def __init__(self, session: Session, spec: WhisperSpec) -> None:
        self.session, self.spec = session, spec

    def encode(self, waveform: Waveform, n_positions: int | None = None) -> OrtValue:
        """Encode at most spec.seconds; the result stays on the session's device. Raises RunError.

        n_positions: how much of the window to hear, in frames of 20 ms; all of it when None, as Whisper was trained.
        """
        n_frames = None if n_positions is None else 2 * n_positions
        return self.session.run(**{INPUT: log_mel(waveform, self.spec, n_frames)})


def log_mel(waveform: Waveform, spec: WhisperSpec, n_frames: int | None = None) -> NDArray[np.float32]:
    """Whisper's features of a clip padded with silence, or cut, to n_frames (the whole window): [1, n_mels, n_frames].

    float64 inside. Only the frames that hear something are transformed: the others are the floor, exactly.
    """
    n_frames = n_frames or spec.n_frames
    n_samples = n_frames * HOP_LENGTH
    heard = waveform[:n_samples]
    padded = np.zeros(n_samples)
    padded[: len(heard)] = heard
    centred = np.pad(padded, N_FFT // 2, mode="reflect")
    frames = sliding_window_view(centred, N_FFT)[::HOP_LENGTH][:n_frames]
    active = n_frames
    if len(heard) < n_samples - N_FFT:  # else the reflected end is not silent
        active = min(active, (len(heard) + N_FFT // 2) // HOP_LENGTH + 1)
    logs = np.full((n_frames, spec.n_mels), np.log10(_LOG_FLOOR))
    spectrum = np.fft.rfft(frames[:active] * _hann())
    power = spectrum.real**2 + spectrum.imag**2
    logs[:active] = np.log10(np.maximum(power @ mel_filters(spec.n_mels), _LOG_FLOOR))
    logs = (np.maximum(logs, logs.max() - _DYNAMIC_RANGE) + 4.0) / 4.0
    return np.ascontiguousarray(logs.T, dtype=np.float32)[np.newaxis]


@cache
def mel_filters(n_mels: int) -> NDArray[np.float64]:
    """Triangles of equal area, evenly spaced on Slaney's mel scale, 0 to 8000 Hz: [n_fft / 2 + 1, n_mels]."""
    nyquist = SAMPLE_RATE / 2
    top = _KNEE_MEL + math.log(nyquist / _KNEE_HZ) / _LOG_STEP
    mels: NDArray[np.float64] = np.linspace(0.0, top, n_mels + 2)
    above = _KNEE_HZ * np.exp(np.maximum(mels - _KNEE_MEL, 0.0) * _LOG_STEP)
    edges: NDArray[np.float64] = np.where(mels < _KNEE_MEL, mels * (_KNEE_HZ / _KNEE_MEL), above)
    bins = np.linspace(0.0, nyquist, N_FFT // 2 + 1)[:, np.newaxis]
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
    return np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (high - low))


@cache
def _hann() -> NDArray[np.float64]:
    return 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(N_FFT) / N_FFT)
