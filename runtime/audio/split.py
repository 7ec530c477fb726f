"""Splitting: a clip of any length -> segments that fit the model's window, cut at pauses.

    |<------------------- max_seconds ------------------->|
    |           kept            |<- the pause is sought ->|<- least tail ->|
    0                          60 %                     100 %            110 %

Every sample lies in exactly one segment, in order; a clip that fits is one segment, untouched. Reads a little
over one window ahead and keeps no more than that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ...models.audio import SAMPLE_RATE, Waveform
from .level import is_silent

KEEP_FRACTION = 0.6  # of the window: no cut before this
TAIL_FRACTION = 0.1  # of the window: no segment shorter than this, unless the whole clip is
HOP = SAMPLE_RATE // 100  # 10 ms
PAUSE_HOPS = 20  # 200 ms: shorter gaps lie inside words (stop consonants)
FINE_HOPS = 2  # 20 ms: the last look inside a pause
PAUSE_RATIO = 2.0  # power: everything within 3 dB of the quietest 200 ms belongs to a pause
PAUSE_FLOOR = 1e-8  # power: below -80 dBFS all is equally quiet


@dataclass(frozen=True)
class Segment:
    """A stretch of a clip that one prompt is about."""

    start_s: float
    """Seconds from the beginning of the clip."""
    waveform: Waveform
    silent: bool
    """Nothing in it rises above SILENCE_DBFS: there is nothing to say about it."""
    last: bool = True
    """Nothing of the clip follows."""

    @property
    def end_s(self) -> float:
        """Seconds from the beginning of the clip to the segment's end."""
        return self.start_s + len(self.waveform) / SAMPLE_RATE


def split_at_pauses(source: Waveform | Iterable[Waveform], max_seconds: float = 30.0) -> Iterator[Segment]:
    """Cut a waveform, or chunks of one as they come, into segments of at most max_seconds.

    Cuts lie in the longest pause of the last 40 % of the window. ValueError: max_seconds under 1.
    """
    if not max_seconds >= 1:
        raise ValueError(f"max_seconds is {max_seconds}: a window is at least 1 s.")
    longest = int(max_seconds * SAMPLE_RATE)
    ahead = longest + int(TAIL_FRACTION * longest)
    start = 0
    held: list[Waveform] = []
    n_held = 0
    chunks = [cast(Waveform, source)] if isinstance(source, np.ndarray) else source
    for chunk in _seconds(chunks):
        held.append(chunk)
        n_held += len(chunk)
        while n_held >= ahead:
            clip = np.concatenate(held)
            cut = _cut(clip[:ahead], longest)
            yield _segment(clip[:cut], start, last=False)
            start = start + cut
            held = [clip[cut:]]
            n_held = n_held - cut
    clip = np.concatenate([*held, np.zeros(0, np.float32)])
    while len(clip) > longest:
        cut = _cut(clip, longest)
        yield _segment(clip[:cut], start, last=False)
        start = start + cut
        clip = clip[cut:]
    if len(clip):
        yield _segment(clip, start, last=True)


def _seconds(chunks: Iterable[Waveform]) -> Iterator[Waveform]:
    """No chunk above 1 s, so that a whole clip given as one chunk is not copied at every cut."""
    for chunk in chunks:
        for at in range(0, len(chunk), SAMPLE_RATE):
            yield chunk[at : at + SAMPLE_RATE]


def _segment(waveform: Waveform, start: int, last: bool) -> Segment:
    own = np.ascontiguousarray(waveform, np.float32).copy()
    return Segment(start / SAMPLE_RATE, own, is_silent(own), last)


def _cut(clip: Waveform, longest: int) -> int:
    """Where to cut a clip that is longer than the window: a sample index in (0, longest]."""
    first = int(KEEP_FRACTION * longest)
    last = min(longest, len(clip) - int(TAIL_FRACTION * longest))
    return min(last, first + quietest_point(clip[first:last]))


def quietest_point(waveform: Waveform) -> int:
    """Where to cut a stretch of at least 0.2 s: the sample index of its longest pause's quietest point."""
    return HOP * _quietest(_hop_powers(waveform))


def _hop_powers(waveform: Waveform) -> NDArray[np.float64]:
    """Mean power of each 10 ms, without the constant offset; [n_samples // 160]."""
    hops = waveform[: len(waveform) // HOP * HOP].astype(np.float64).reshape(-1, HOP)
    return np.square(hops - hops.mean()).mean(axis=1)


def _quietest(powers: NDArray[np.float64]) -> int:
    """The hop at which to cut: the middle of the longest pause (the last of equals), where quietest."""
    smooth = _moving_mean(powers, PAUSE_HOPS)
    limit = max(PAUSE_RATIO * float(smooth.min()), PAUSE_FLOOR)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], smooth <= limit, [False]]).astype(np.int8)))
    begins = edges[::2]
    ends = edges[1::2]
    longest = len(begins) - 1 - int(np.argmax((ends - begins)[::-1]))
    middle = int(begins[longest] + ends[longest] - 1) // 2
    fine = _moving_mean(powers[middle : middle + PAUSE_HOPS], FINE_HOPS)
    near = np.abs(np.arange(len(fine)) + FINE_HOPS // 2 - PAUSE_HOPS // 2)
    quiet = np.where(fine <= max(float(fine.min()), PAUSE_FLOOR), near, PAUSE_HOPS)
    return middle + int(np.argmin(quiet)) + FINE_HOPS // 2


def _moving_mean(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """[n] -> [n - width + 1]."""
    width = min(width, len(values))
    return np.lib.stride_tricks.sliding_window_view(values, width).mean(axis=1)
