"""Source: the interface of live audio in, chunks and gaps out, end to end on one line of time at 16 kHz.

0                                                   seconds since the source's first sample
|-- Chunk --|-- Chunk --| AudioDropped |-- Chunk --|    DeviceFound    |-- Chunk --|
                          (a gap)                      (a gap as well)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ...models.audio import Waveform
from ..events import AudioDropped, DeviceFound, DeviceLost, DeviceMuted


@dataclass(frozen=True)
class Chunk:
    """Sound that came at once."""

    start_s: float
    """Seconds from the source's first sample by the device's clock, gaps included; n / 16000 for a whole n."""
    waveform: Waveform


SourceItem = Chunk | AudioDropped | DeviceLost | DeviceFound | DeviceMuted
"""What a source gives. AudioDropped and DeviceFound are gaps; chunks and gaps follow each other end to end."""


class Source(Protocol):
    """Something that is read by one thread, and may be closed by any."""

    @property
    def realtime(self) -> bool:
        """Sound comes by the clock; False: as fast as it is read."""
        ...

    def read(self, timeout_s: float) -> list[SourceItem] | None:
        """Everything that came since the last read, in order.

        Waits up to timeout_s for something; [] when nothing came; None at the end, for ever after.
        """
        ...

    def close(self) -> None:
        """Stop, from any thread, twice if need be. A read that waits returns at once.

        What was captured before is still read; then comes the end.
        """
        ...
