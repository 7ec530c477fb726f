"""One line of time for everything a source hears: chunks and gaps, end to end, in samples at 16 kHz.

0                                                   seconds since the source's first sample
|-- Chunk --|-- Chunk --| AudioDropped |-- Chunk --|    DeviceFound    |-- Chunk --|
                          (a gap)                      (a gap as well)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ...models.audio import SAMPLE_RATE, Waveform
from ..audio.resample import Resampler
from ..events import AudioDropped, DeviceFound, DeviceLost


@dataclass(frozen=True)
class Chunk:
    """Sound that came at once."""

    start_s: float
    """Seconds from the source's first sample by the device's clock, gaps included; n / 16000 for a whole n."""
    waveform: Waveform


Heard = Chunk | AudioDropped | DeviceLost | DeviceFound
"""What a source gives. AudioDropped and DeviceFound are gaps; chunks and gaps follow each other end to end."""


class Source(Protocol):
    """Something that is read by one thread, and may be closed by any."""

    @property
    def realtime(self) -> bool:
        """Sound comes by the clock; False: as fast as it is read."""
        ...

    def read(self, timeout_s: float) -> list[Heard] | None:
        """Everything that came since the last read, in order.

        Waits up to timeout_s for something; [] when nothing came; None at the end, for ever after.
        """
        ...

    def close(self) -> None:
        """Stop, from any thread, twice if need be. A read that waits returns at once.

        What was captured before is still read; then comes the end.
        """
        ...


class Timeline:
    """Mono samples at any rate in; 16 kHz chunks with their place in time out. Not thread-safe."""

    def __init__(self) -> None:
        self._resampler = Resampler()
        self._n_given = 0

    @property
    def now_s(self) -> float:
        """Where the next chunk or gap starts, seconds."""
        return self._n_given / SAMPLE_RATE

    def push(self, samples: Waveform, sample_rate: int) -> list[Chunk]:
        """What is ready after these samples: one chunk or none."""
        return self._chunks(self._resampler.push(samples, sample_rate))

    def flush(self) -> list[Chunk]:
        """What was still inside the resampler: the last before a gap or the end."""
        return self._chunks(self._resampler.flush())

    def gap(self, seconds: float) -> float:
        """Nothing was heard for so long; call flush() before. Returns it in whole samples at 16 kHz, as seconds."""
        n_lost = round(seconds * SAMPLE_RATE)
        self._n_given += n_lost
        return n_lost / SAMPLE_RATE

    def _chunks(self, waveform: Waveform) -> list[Chunk]:
        if not len(waveform):
            return []
        chunk = Chunk(self.now_s, waveform)
        self._n_given += len(waveform)
        return [chunk]
