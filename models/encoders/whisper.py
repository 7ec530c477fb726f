"""Whisper's encoder: spec, and its front end: waveform -> log-mel.

Source: openai/whisper audio.py, transformers' WhisperFeatureExtractor (docs/reference.md §1.2, §2.1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ..audio import SAMPLE_RATE, Waveform
from .filter_bank import band_power

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


_LOG_FLOOR = 1e-10


_DYNAMIC_RANGE = 8.0  # decades below the loudest bin of the padded clip


# Slaney's scale: linear below, logarithmic above
_KNEE_HZ = 1000.0
_KNEE_MEL = 15.0
_LOG_STEP = math.log(6.4) / 27.0


def log_mel(waveform: Waveform, spec: WhisperSpec, n_frames: int | None = None) -> NDArray[np.float32]:
    """Whisper's features of a clip padded with silence, or cut, to n_frames (the whole window): [1, n_mels, n_frames].

    float64 inside. Only the frames that hear something are transformed: the others are the floor, exactly.
    """
    n_frames = n_frames or spec.n_frames
    n_samples = n_frames * HOP_LENGTH
    clip = waveform[:n_samples]
    padded = np.zeros(n_samples)
    padded[: len(clip)] = clip
    centred = np.pad(padded, N_FFT // 2, mode="reflect")
    frames = sliding_window_view(centred, N_FFT)[::HOP_LENGTH][:n_frames]
    active = n_frames
    if len(clip) < n_samples - N_FFT:  # else the reflected end is not silent
        active = min(active, (len(clip) + N_FFT // 2) // HOP_LENGTH + 1)
    logs = np.full((n_frames, spec.n_mels), np.log10(_LOG_FLOOR))
    spectrum = np.fft.rfft(frames[:active] * _hann())
    logs[:active] = np.log10(np.maximum(band_power(spectrum, mel_filters(spec.n_mels)), _LOG_FLOOR))
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
    low = edges[:-2]
    centre = edges[1:-1]
    high = edges[2:]
    rising = (bins - low) / (centre - low)
    falling = (high - bins) / (high - centre)
    return np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (high - low))


@cache
def _hann() -> NDArray[np.float64]:
    return 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(N_FFT) / N_FFT)
