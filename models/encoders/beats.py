"""BEATs: spec, and its front end: waveform -> filter bank.

Source: microsoft/unilm beats/BEATs.py, backbone.py (docs/reference.md §1.3, §2.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ..audio import SAMPLE_RATE, Waveform
from .filter_bank import band_power

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


_INT16_SCALE = 32768.0  # Kaldi hears 16-bit integers


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
    logs = np.log(np.maximum(band_power(spectrum, filter_bank()), LOG_FLOOR))
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
    rising = (mel - left) / (centre - left)
    falling = (right - mel) / (right - centre)
    return np.maximum(one(0.0), np.minimum(rising, falling)).astype(np.float64)


@cache
def _povey() -> NDArray[np.float64]:
    n = np.arange(WIN_LENGTH)
    return (0.5 - 0.5 * np.cos(2.0 * np.pi * n / (WIN_LENGTH - 1))) ** 0.85
