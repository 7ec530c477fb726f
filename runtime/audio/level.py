"""Level: a waveform -> its peak in dBFS, and whether that is silence."""

from __future__ import annotations

import math

import numpy as np

from ...models.audio import Waveform

SILENCE_DBFS = -70.0
"""Peaks below this are silence: 10 steps of 16-bit audio. A microphone in a quiet room is above it (-60)."""


def peak_dbfs(waveform: Waveform) -> float:
    """The largest swing around the mean level, in dB of full scale; -inf for an empty or constant waveform.

    Half the peak-to-peak value, so that the constant offset of a cheap sound card does not pass for sound.
    """
    if waveform.size == 0:
        return -math.inf
    swing = (float(waveform.max()) - float(waveform.min())) / 2
    return 20 * math.log10(swing) if swing > 0 else -math.inf


def is_silent(waveform: Waveform) -> bool:
    """True when nothing in the waveform rises above SILENCE_DBFS."""
    return peak_dbfs(np.asarray(waveform)) < SILENCE_DBFS
