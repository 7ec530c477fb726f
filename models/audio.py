"""The one waveform format inside Auricle: float32, mono, 16 kHz, full scale [-1, 1]."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16_000  # Hz
MIN_CLIP_SECONDS = 0.1  # shorter is refused: not one phoneme long
MIN_MODEL_SECONDS = 1.0  # shorter is zero-padded to this, as SALMONN's prepare_one_sample does

Waveform = NDArray[np.float32]
"""float32 [n_samples], mono, 16 kHz, in [-1, 1]."""


SILENCE: Waveform = np.zeros(0, np.float32)
"""Nothing at all, for what needs a waveform and reads none."""


def synthetic_clip(seed: int, seconds: float) -> Waveform:
    """A sweep, a hum and noise: the same samples on every machine and numpy version.

    Uses only PCG64's raw 64-bit stream, whose values numpy guarantees; float64 maths, rounded to 16 bits at the end.
    """
    n = round(seconds * SAMPLE_RATE)
    raw = np.random.PCG64(seed).random_raw(n)
    noise = raw.astype(np.float64) / 2.0**63 - 1.0
    t = np.arange(n) / SAMPLE_RATE
    sweep = np.sin(2 * np.pi * (200.0 * t + 1800.0 / seconds * t * t / 2))
    hum = np.sin(2 * np.pi * 120.0 * t)
    beat = 0.5 - 0.5 * np.cos(2 * np.pi * 3.0 * t)
    mixed = 0.4 * beat * sweep + 0.2 * hum + 0.05 * noise
    return (np.rint(mixed * 32767) / 32768).astype(np.float32)
