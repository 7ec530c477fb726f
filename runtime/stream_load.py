"""Load: what decodes of live streams took -> the share of the engine that so many of them need, and their hop.

    load = n * SPEECH_SHARE * (a final and updates every LONGEST_HOP_SECONDS) / a segment's seconds / lanes

At a load of 1 every lane of the engine is always at work. Decodes on several lanes share the cores and take longer side
by side than alone: what they take is known best where many speak.
"""

from __future__ import annotations

import math
from collections.abc import Hashable

LIMIT = 0.8
"""The largest load that is planned for. The rest is for speech gates, sockets and chance."""
LONGEST_HOP_SECONDS = 2.0
"""Of sound between two updates, where the hop that was asked for is shorter and the machine has no time for it."""
SPEECH_SHARE = 0.5
"""Of the time people in a conversation speak."""
NEWEST = 32
"""Decodes that a mean is of, about: it follows what the machine does now."""


class RunningMean:
    """A mean of the newest samples; the first one counts until there are others."""

    def __init__(self) -> None:
        self.value: float | None = None
        """None before the first sample."""
        self._n = 0

    def add(self, sample: float) -> None:
        """One more."""
        self._n = min(self._n + 1, NEWEST)
        self.value = sample if self.value is None else self.value + (sample - self.value) / self._n


class CostByLength:
    """Seconds that decodes take by the seconds of sound that they hear: a line through the newest of them."""

    def __init__(self) -> None:
        self._n = 0
        self._length = self._seconds = self._variance = self._covariance = 0.0

    def add(self, seconds: float, length_s: float) -> None:
        """One more."""
        self._n = min(self._n + 1, NEWEST)
        further = length_s - self._length
        self._length += further / self._n
        self._seconds += (seconds - self._seconds) / self._n
        self._variance += (further * (length_s - self._length) - self._variance) / self._n
        self._covariance += (further * (seconds - self._seconds) - self._covariance) / self._n

    @property
    def mean(self) -> float | None:
        """None before the first sample."""
        return self._seconds if self._n else None

    def at(self, length_s: float) -> float | None:
        """What one takes that hears so much. More sound takes no less time, and not more than in proportion."""
        if not self._n or not self._length:
            return self.mean
        slope = self._covariance / self._variance if self._variance else 0.0
        return self._seconds + min(max(slope, 0.0), self._seconds / self._length) * (length_s - self._length)


class Load:
    """Measured costs of live streams on one engine. Any thread. n_lanes: decodes that run at a time."""

    def __init__(self, n_lanes: int = 1) -> None:
        self.n_lanes = n_lanes
        self.update = CostByLength()
        """Of an update, in seconds of the engine."""
        self.final = RunningMean()
        """The same of a final."""
        self._needed = RunningMean()
        """The same of a segment whose updates are as rare as they may be, and its final."""
        self._length = RunningMean()
        """Seconds that it lasts."""
        self._speaking: set[Hashable] = set()

    def add_final(self, seconds: float, length_s: float) -> None:
        """A segment of this length is over, and its final took so long."""
        ends_s = (n * LONGEST_HOP_SECONDS for n in range(1, math.ceil(length_s / LONGEST_HOP_SECONDS)))
        self.final.add(seconds)
        self._needed.add(seconds + sum(self.update.at(end_s) or 0.0 for end_s in ends_s))
        self._length.add(length_s)

    def begin(self, stream: Hashable) -> None:
        """Somebody speaks there: updates are due."""
        self._speaking.add(stream)

    def end(self, stream: Hashable) -> None:
        """Nobody does any more. Twice is fine."""
        self._speaking.discard(stream)

    def of(self, n_streams: int) -> float:
        """The load of so many live streams when their updates are as rare as they may be; 0 while nothing is known."""
        return n_streams * SPEECH_SHARE * self._per_second(self._needed)

    def admits(self, n_streams: int) -> bool:
        """Whether one more fits beside so many. The first always does: it may be all that the machine is for."""
        return not n_streams or self.of(n_streams + 1) <= LIMIT

    def hop_s(self, nominal_s: float) -> float:
        """Seconds of sound between two updates of a stream, of all that speak now alike: nominal_s where there is time.

        Never shorter than that, and longer than LONGEST_HOP_SECONDS only where nominal_s is.
        """
        n_speaking = len(self._speaking)  # once: another stream may end meanwhile
        update_s = self.update.mean
        if not n_speaking or update_s is None:
            return nominal_s
        left = LIMIT / n_speaking - self._per_second(self.final)
        needed_s = update_s / self.n_lanes / left if left > 0 else LONGEST_HOP_SECONDS
        return max(nominal_s, min(needed_s, LONGEST_HOP_SECONDS))

    def _per_second(self, of_segment: RunningMean) -> float:
        """Of speech, without a pause: the share of all lanes."""
        return (of_segment.value or 0.0) / (self._length.value or 1.0) / self.n_lanes
