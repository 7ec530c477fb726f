"""Front ends of the demo's training: a waveform -> the frames of docs/reference.md §1.2 and §1.3 without padding.

Whisper pads every clip to its window with digital silence; here the silence is left out and its one value,
the floor, is given beside the frames, so that the trainer can pad to any window.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ....models.audio import SAMPLE_RATE, Waveform
from ....models.encoders import beats, whisper

Frames = NDArray[np.float32]


def log_mel(waveform: Waveform) -> tuple[Frames, float]:
    """Whisper's log-mel of a zero-padded clip: frames [n, 80] that hear any of it, and the value of all later ones."""
    reflected = np.concatenate([waveform[200:0:-1], waveform, np.zeros(whisper.N_FFT, np.float32)])
    windows = sliding_window_view(reflected, whisper.N_FFT)[:: whisper.HOP_LENGTH]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(whisper.N_FFT) / whisper.N_FFT)
    power = np.abs(np.fft.rfft(windows * hann.astype(np.float32))) ** 2
    logs = np.log10(np.maximum(power @ slaney_bank(), 1e-10))
    lowest = logs.max() - 8.0
    floor = (max(lowest, -10.0) + 4.0) / 4.0
    return ((np.maximum(logs, lowest) + 4.0) / 4.0).astype(np.float32), float(floor)


def fbank(waveform: Waveform) -> Frames:
    """BEATs' normalised Kaldi filter bank [n_frames, 128], in float64 inside."""
    scaled = waveform.astype(np.float64) * 32768
    windows = sliding_window_view(scaled, beats.WIN_LENGTH)[:: beats.HOP_LENGTH]
    windows = windows - windows.mean(1, keepdims=True)
    before = np.concatenate([windows[:, :1], windows[:, :-1]], 1)
    windows = (windows - beats.PRE_EMPHASIS * before) * _povey()
    power = np.abs(np.fft.rfft(windows, beats.N_FFT))[:, :256] ** 2
    logs = np.log(np.maximum(power @ _kaldi_bank(), beats.LOG_FLOOR))
    return ((logs - beats.FBANK_MEAN) / (2 * beats.FBANK_STD)).astype(np.float32)


@cache
def slaney_bank() -> NDArray[np.float32]:
    """Whisper's mel filters [201, 80]: Slaney scale and area norm, 0 to 8000 Hz."""
    top = 15.0 + np.log(8000.0 / 1000.0) / (np.log(6.4) / 27.0)
    mels = np.linspace(0.0, top, whisper.N_MELS + 2)
    linear = mels * 200.0 / 3.0
    hz = np.where(mels < 15.0, linear, 1000.0 * np.exp((mels - 15.0) * (np.log(6.4) / 27.0)))
    bins = np.linspace(0.0, SAMPLE_RATE / 2, whisper.N_FFT // 2 + 1)[:, None]
    left = hz[:-2]
    centre = hz[1:-1]
    right = hz[2:]
    triangles = np.maximum(0.0, np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)))
    return (triangles * (2.0 / (right - left))).astype(np.float32)


@cache
def _povey() -> NDArray[np.float64]:
    n = np.arange(beats.WIN_LENGTH)
    return (0.5 - 0.5 * np.cos(2 * np.pi * n / (beats.WIN_LENGTH - 1))) ** 0.85


@cache
def _kaldi_bank() -> NDArray[np.float64]:
    low = 1127 * np.log1p(beats.LOW_HZ / 700)
    high = 1127 * np.log1p(beats.HIGH_HZ / 700)
    edges = np.linspace(low, high, beats.N_MELS + 2)
    bins = 1127 * np.log1p(np.arange(256) * SAMPLE_RATE / beats.N_FFT / 700)[:, None]
    left = edges[:-2]
    centre = edges[1:-1]
    right = edges[2:]
    rising = (bins - left) / (centre - left)
    falling = (right - bins) / (right - centre)
    return np.maximum(0.0, np.minimum(rising, falling))
