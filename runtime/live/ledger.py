"""Ledger: samples captured -> decoded, skipped or dropped; nothing is lost without a report.

captured == decoded + skipped + dropped + pending        at every moment
"""

from __future__ import annotations

from ...models.audio import SAMPLE_RATE


class Ledger:
    """Counts of samples at 16 kHz; each sample is captured once and then decoded, skipped or dropped once.

    Every method takes a number of samples >= 0 and raises AssertionError, a bug of the caller, when more is
    accounted for than is pending. One thread at a time.
    """

    def __init__(self) -> None:
        self.captured = 0
        """Every sample of the timeline so far, received or lost."""
        self.decoded = 0
        """In a segment that was decoded."""
        self.skipped = 0
        """Never shown to the model: silence by the gate's decision, or not meant for it."""
        self.dropped = 0
        """Lost, and reported as a gap."""

    @property
    def pending(self) -> int:
        """Captured and not decided upon yet."""
        return self.captured - self.decoded - self.skipped - self.dropped

    def capture(self, n: int) -> None:
        """A source delivered n samples; they are pending now."""
        self.captured += _checked(n)

    def decode(self, n: int) -> None:
        """n pending samples were in a segment that was decoded."""
        self.decoded += self._take(n)

    def skip(self, n: int) -> None:
        """n pending samples are silence, or not meant for the model."""
        self.skipped += self._take(n)

    def drop(self, n: int) -> None:
        """n pending samples are given up: their loss is reported."""
        self.dropped += self._take(n)

    def gap(self, n: int) -> None:
        """The source itself reported n samples that it could not deliver (AudioDropped, DeviceFound)."""
        self.capture(n)
        self.drop(n)

    def seconds(self) -> dict[str, float]:
        """The five counts in seconds."""
        return {f"{name}_s": n / SAMPLE_RATE for name, n in self.as_dict().items()}

    def as_dict(self) -> dict[str, int]:
        """The five counts in samples at 16 kHz; the last four add up to the first."""
        names = ("captured", "decoded", "skipped", "dropped", "pending")
        return {name: getattr(self, name) for name in names}

    def _take(self, n: int) -> int:
        if _checked(n) > self.pending:
            raise AssertionError(f"the ledger has {self.pending} samples pending and was told of {n}: {self.as_dict()}")
        return n


def _checked(n: int) -> int:
    if n < 0:
        raise AssertionError(f"the ledger was told of {n} samples")
    return n
