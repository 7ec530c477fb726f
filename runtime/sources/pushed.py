"""Pushed sound: blocks that another thread hands over as they come -> a source; nothing of them is dropped."""

from __future__ import annotations

import threading
import time
from collections import deque

from ...models.audio import SAMPLE_RATE, Waveform
from .source import SourceItem
from .timeline import Timeline

STEP_S = 0.02  # of sound whose arrival is remembered: blocks may be tiny


class PushedSource:
    """Mono samples at any rate, pushed and closed by any thread."""

    realtime = True

    def __init__(self) -> None:
        self._timeline = Timeline()
        self._blocks: deque[tuple[Waveform, int]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._ended = False
        self._pushed_s = 0.0
        self._arrivals: deque[tuple[float, float]] = deque()
        """Places of the timeline, and when the sound before them came."""

    def push(self, samples: Waveform, sample_rate: int) -> None:
        """What was heard next; after the end it is not wanted."""
        with self._changed:
            if not self._closed and len(samples):
                self._pushed_s += len(samples) / sample_rate
                if not self._arrivals or self._pushed_s - self._arrivals[-1][0] >= STEP_S:
                    self._arrivals.append((self._pushed_s, time.monotonic()))
                self._blocks.append((samples, sample_rate))
                self._changed.notify_all()

    def read(self, timeout_s: float) -> list[SourceItem] | None:
        """See Source."""
        with self._changed:
            self._changed.wait_for(lambda: self._blocks or self._closed, timeout_s)
            blocks = [*self._blocks]
            self._blocks.clear()
            ends = self._closed and not self._ended
        items: list[SourceItem] = [chunk for block in blocks for chunk in self._timeline.push(*block)]
        if ends:
            self._ended = True
            items += self._timeline.flush()
        return items or (None if self._ended else [])

    def close(self) -> None:
        """See Source."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def age(self, at_s: float) -> float:
        """How many seconds ago the sound at a place of the timeline came; places never go back."""
        with self._changed:
            while len(self._arrivals) > 1 and self._arrivals[0][0] < at_s - 1 / SAMPLE_RATE:
                self._arrivals.popleft()
            return time.monotonic() - self._arrivals[0][1] if self._arrivals else 0.0
