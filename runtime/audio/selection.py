"""Selection: which sound track and which channel of a file are heard."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...models.errors import AudioError, InputError


@dataclass(frozen=True)
class Selection:
    """What is heard of a file or an array; by default the first channel, which is what SALMONN takes.

    Raises InputError for numbers below 1, and for a channel and the mean of all.
    """

    track: int | None = None
    """Of the file's sound tracks, from 1; None: its main one."""
    channel: int | None = None
    """From 1; None: the first."""
    mix: bool = False
    """The mean of all channels."""

    def __post_init__(self) -> None:
        for name, number in (("track", self.track), ("channel", self.channel)):
            if number is not None and number < 1:
                raise InputError(f"{name} {number} does not exist: the first is 1")
        if self.mix and self.channel is not None:
            raise InputError(f"the mean of all channels and channel {self.channel} are two things: give one of them")

    def of(self, samples: NDArray[np.generic], name: str) -> NDArray[np.float64]:
        """[n, channels] -> [n]. Raises AudioError when there is no such channel."""
        if self.mix:
            return samples.mean(axis=1, dtype=np.float64)
        self.check_channel(samples.shape[1], name)
        return samples[:, (self.channel or 1) - 1].astype(np.float64)

    def check_channel(self, n: int, name: str) -> None:
        """Raises AudioError when a file of n channels has no such."""
        if self.channel is not None and self.channel > n:
            raise AudioError(f"{name} has no channel {self.channel}: {_there_is(n, 'channel')}")

    def check_track(self, n: int, name: str) -> None:
        """Raises AudioError when a file of n sound tracks has no such."""
        if self.track is not None and self.track > n:
            raise AudioError(f"{name} has no sound track {self.track}: {_there_is(n, 'track')}")


MAIN = Selection()


def _there_is(n: int, what: str) -> str:
    return f"it has one, leave --{what} out" if n == 1 else f"it has {n}, give --{what} 1 to {n}"
