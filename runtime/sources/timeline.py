"""Timeline: samples at any rate, and gaps -> 16 kHz chunks, each with its start in seconds."""

from __future__ import annotations

from ...models.audio import SAMPLE_RATE, Waveform
from ..audio.resample import Resampler
from .source import Chunk


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
        """So much is missing here; call flush() before. Returns it in whole samples at 16 kHz, as seconds."""
        n_lost = round(seconds * SAMPLE_RATE)
        self._n_given += n_lost
        return n_lost / SAMPLE_RATE

    def _chunks(self, waveform: Waveform) -> list[Chunk]:
        if not len(waveform):
            return []
        chunk = Chunk(self.now_s, waveform)
        self._n_given += len(waveform)
        return [chunk]
