"""Pushed sound: what another thread hands over as it comes -> a source.

What is not heard within BACKLOG_SECONDS is dropped, and AudioDropped says so.
"""

from __future__ import annotations

import threading
import time
from collections import deque

from ...models.audio import SAMPLE_RATE, Waveform
from ..events import AudioDropped
from .source import Chunk, SourceItem

BACKLOG_SECONDS = 300.0  # of sound that nobody has heard yet: 19 MB
ARRIVAL_SAMPLES = SAMPLE_RATE // 100  # how finely it is kept when sound came


class PushedSource:
    """Sound at 16 kHz that one thread pushes and another reads. Who pushes never waits."""

    realtime = True

    def __init__(self, start: int = 0) -> None:
        """start: where its first sample lies in the session, for `end` and `age_s`; items begin at 0."""
        self.start = start
        self.ended = False
        """Nothing is pushed any more."""
        self._changed = threading.Condition()
        self._waiting: deque[Waveform | int] = deque()
        """Sound, and how many samples were dropped."""
        self._n_waiting = 0
        self._n_read = 0
        self._arrivals: deque[tuple[int, float]] = deque()
        """Of the newest sound: until which sample it had come by when."""
        self._closed = False

    @property
    def end(self) -> int:
        """Where the next sample lies in the session."""
        return self.start + self._n_read + self._n_waiting

    def push(self, waveform: Waveform) -> None:
        """Sound that follows, float32 [n] at 16 kHz; dropped when too much waits."""
        with self._changed:
            room = max(0, round(BACKLOG_SECONDS * SAMPLE_RATE) - self._n_waiting)
            fits = waveform[:room]
            if len(fits):
                self._waiting.append(fits)
                self._arrived(len(fits))
            self.lose(len(waveform) - len(fits))

    def lose(self, n: int) -> None:
        """A gap of so many samples follows."""
        if not n:
            return
        with self._changed:
            if self._waiting and isinstance(lost := self._waiting[-1], int):
                self._waiting[-1] = lost + n
            else:
                self._waiting.append(n)
            self._arrived(n)

    def _arrived(self, n: int) -> None:
        self._n_waiting += n
        if len(self._arrivals) > 1 and self.end - self._arrivals[-2][0] < ARRIVAL_SAMPLES:
            self._arrivals.pop()
        self._arrivals.append((self.end, time.monotonic()))
        while self._arrivals[0][0] < self.end - 2 * BACKLOG_SECONDS * SAMPLE_RATE:
            self._arrivals.popleft()
        self._changed.notify_all()

    def finish(self) -> None:
        """Nothing follows: what waits is still read, then comes the end."""
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def read(self, timeout_s: float) -> list[SourceItem] | None:
        """See Source."""
        with self._changed:
            if not (self._waiting or self.ended or self._closed):
                self._changed.wait(timeout_s)
            items: list[SourceItem] = []
            while self._waiting:
                next_ = self._waiting.popleft()
                at_s = self._n_read / SAMPLE_RATE
                lost = isinstance(next_, int)
                items.append(AudioDropped(at_s, next_ / SAMPLE_RATE) if lost else Chunk(at_s, next_))
                self._n_read += next_ if lost else len(next_)
            self._n_waiting = 0
            return items or (None if self.ended or self._closed else [])

    def close(self) -> None:
        """See Source. Pushing goes on, for whoever reads it next."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def reopen(self) -> float:
        """What was not read yet is the beginning of a source of its own. Returns the seconds that were."""
        with self._changed:
            self._closed = False
            n = self._n_read
            self.start += n
            self._n_read = 0
            return n / SAMPLE_RATE

    def age_s(self, end_s: float) -> float:
        """How long ago the sample at that second of the session came; the newest, where it did not."""
        position = end_s * SAMPLE_RATE
        with self._changed:
            came = next((at for end, at in self._arrivals if end >= position), None)
            newest = self._arrivals[-1][1] if self._arrivals else time.monotonic()
        return time.monotonic() - (newest if came is None else came)
