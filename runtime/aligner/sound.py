"""Silence in words: spans of frames and their waveform -> the same spans on what can be heard of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...models.audio import Waveform

Span = tuple[int, int]
"""First frame of a word and the one behind its last."""
QUIET_DB = 35.0  # below the loud frames: silence, unless the noise is louder
DIGITAL_SILENCE_DB = -90.0  # full scale 0: no microphone made it, and it says nothing about the noise
NOISE = 0.25  # of the way from the quiet frames to the loud ones: silence, where there is noise in it
LONGEST_PAUSE = 25  # frames of 20 ms: what lies apart by more is not one word
MARGIN = 5  # frames of silence that a word may have at its ends: a plosive's closure, a breath


def within_sound(spans: Sequence[Span], weights: Sequence[int], waveform: Waveform, frame_samples: int) -> list[Span]:
    """Each word without the silence at its ends; one that has a pause inside keeps the side that has more sound.

    One that lies in a pause wholly shares the sound of the next word, by what their letters, `weights`, are.
    """
    loud = loud_frames(waveform, frame_samples)
    found = [_sounding(start, end, loud[start:end]) for start, end in spans]
    for at in range(len(found) - 2, -1, -1):
        start, end = found[at]
        following = found[at + 1]
        if end - start > LONGEST_PAUSE and not loud[start:end].any() and loud[slice(*following)].any():
            share = weights[at] / (weights[at] + weights[at + 1])
            middle = following[0] + round((following[1] - following[0]) * share)
            found[at] = (following[0], middle)
            found[at + 1] = (middle, following[1])
    return found


def loud_frames(waveform: Waveform, frame_samples: int) -> NDArray[np.bool_]:
    """Which frames are not silent."""
    n = len(waveform) // frame_samples
    frames = waveform[: n * frame_samples].reshape(n, frame_samples).astype(np.float64)
    level = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-10)
    recorded = level[level > DIGITAL_SILENCE_DB]
    if not len(recorded):
        return level > DIGITAL_SILENCE_DB
    quiet, loud = np.percentile(recorded, (10, 95))
    return level > max(loud - QUIET_DB, quiet + NOISE * (loud - quiet))


def _sounding(start: int, end: int, loud: NDArray[np.bool_]) -> Span:
    at = np.flatnonzero(loud)
    if not len(at):
        return start, end
    parts = np.split(at, np.flatnonzero(np.diff(at) > LONGEST_PAUSE) + 1)
    most = max(parts, key=len)
    first = start + int(most[0])
    last = start + int(most[-1]) + 1
    return first if first - start > MARGIN else start, last if end - last > MARGIN else end
