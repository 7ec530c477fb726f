"""What is heard where nobody speaks."""

from __future__ import annotations

import numpy as np
from auricle.models.audio import SAMPLE_RATE, Waveform
from auricle.models.corpus.sounds import synthesize

KINDS = ("silence", "white", "room", "music")


def noise(kind: str, seconds: float) -> Waveform:
    """float32 mono 16 kHz, the same every time."""
    n, rng = int(seconds * SAMPLE_RATE), np.random.default_rng(5)
    if kind == "silence":
        return np.zeros(n, np.float32)
    if kind == "music":  # chords, 20 s of them over and over
        return 0.3 * np.resize(synthesize("music", rng, 20 * SAMPLE_RATE), n)
    sound = rng.standard_normal(n).astype(np.float32)
    if kind == "room":  # a low hum and the noise of a fan
        sound = np.convolve(sound, np.ones(64, np.float32) / 64, "same")
        sound += 0.3 * np.sin(2 * np.pi * 50 * np.arange(n) / SAMPLE_RATE).astype(np.float32)
    return (0.05 * sound).astype(np.float32)
