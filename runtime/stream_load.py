"""Load: what decodes of live streams took -> the share of the engine that so many of them need, and their hop.

    load = n * SPEECH_SHARE * (a final's seconds / SEGMENT_SECONDS + an update's seconds / LONGEST_HOP_SECONDS)

A decode has every core while it runs, and no other runs beside it: at a load of 1 the machine does nothing else.
"""

from __future__ import annotations

from collections.abc import Hashable

LIMIT = 0.8
"""The largest load that is planned for. The rest is for speech gates, sockets and chance."""
LONGEST_HOP_SECONDS = 2.0
"""Of sound between two updates, where the hop that was asked for is shorter and the machine has no time for it."""
SPEECH_SHARE = 0.5
"""Of the time people in a conversation speak."""
SEGMENT_SECONDS = 4.0
"""Of speech between two finals."""
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


class Load:
    """Measured costs of live streams on one engine. Any thread."""

    def __init__(self) -> None:
        self.update = RunningMean()
        """Seconds of the engine that an update takes."""
        self.final = RunningMean()
        """The same of a final."""
        self._speaking: set[Hashable] = set()

    def begin(self, stream: Hashable) -> None:
        """Somebody speaks there: updates are due."""
        self._speaking.add(stream)

    def end(self, stream: Hashable) -> None:
        """Nobody does any more. Twice is fine."""
        self._speaking.discard(stream)

    def of(self, n_streams: int) -> float:
        """The load of so many live streams when their updates are as rare as they may be; 0 while nothing is known."""
        return n_streams * SPEECH_SHARE * (self._finals() + (self.update.value or 0.0) / LONGEST_HOP_SECONDS)

    def admits(self, n_streams: int) -> bool:
        """Whether one more fits beside so many. The first always does: it may be all that the machine is for."""
        return not n_streams or self.of(n_streams + 1) <= LIMIT

    def hop_s(self, nominal_s: float) -> float:
        """Seconds of sound between two updates of a stream, of all that speak now alike: nominal_s where there is time.

        Never shorter than that, and longer than LONGEST_HOP_SECONDS only where nominal_s is.
        """
        n_speaking = len(self._speaking)  # once: another stream may end meanwhile
        if not n_speaking or self.update.value is None:
            return nominal_s
        left = LIMIT / n_speaking - self._finals()
        needed_s = self.update.value / left if left > 0 else LONGEST_HOP_SECONDS
        return max(nominal_s, min(needed_s, LONGEST_HOP_SECONDS))

    def _finals(self) -> float:
        """Load by the finals of one stream that speaks without a pause."""
        return (self.final.value or 0.0) / SEGMENT_SECONDS
