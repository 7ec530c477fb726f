"""Talk: recordings -> somebody who speaks them half of the time, as a live source with a clock."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np

from ...models.audio import SAMPLE_RATE, Waveform
from ...runtime.sources.playback import MICROPHONE_CHUNK
from ...runtime.sources.source import Chunk, SourceItem

PAUSES = (0.6, 1.4)
"""A pause lasts as long as what was said before it, times something between these: half of the time nobody speaks."""
SHORTEST_PAUSE_SECONDS = 1.2
"""Enough for the gate to be sure of, behind the last recording too."""
_SILENCE = np.zeros(120 * SAMPLE_RATE, np.float32)


def talk(clips: Sequence[Waveform], seconds: float, seed: int) -> Iterator[Waveform]:
    """Pieces of sound, float32 at 16 kHz: a pause, then clips with pauses behind them, of so many seconds or more.

    They are views of the clips: a further talk takes no memory. seed: which clips, which pauses.
    """
    rng = random.Random(seed)
    yield _SILENCE[: round(rng.uniform(*PAUSES) * len(rng.choice(clips)))]
    n = 0
    while n < seconds * SAMPLE_RATE:
        clip = rng.choice(clips)
        pause = max(round(rng.uniform(*PAUSES) * len(clip)), round(SHORTEST_PAUSE_SECONDS * SAMPLE_RATE))
        yield clip
        yield _SILENCE[:pause]
        n += len(clip) + min(pause, len(_SILENCE))


class TalkSource:
    """Pieces of sound at real pace: what was spoken by now."""

    realtime = True

    def __init__(self, pieces: Iterator[Waveform]) -> None:
        self.n_read = 0
        """Samples that were given out."""
        self._pieces = pieces
        self._held: Waveform = np.zeros(0, np.float32)
        self._started: float | None = None
        self._closed = threading.Event()

    def read(self, timeout_s: float) -> list[SourceItem] | None:
        """See Source; the first call starts the clock."""
        if self._started is None:
            self._started = time.monotonic()
        wait_s = self._started + (self.n_read + MICROPHONE_CHUNK) / SAMPLE_RATE - time.monotonic()
        self._closed.wait(max(0.0, min(timeout_s, wait_s)))
        items: list[SourceItem] = []
        while not self._closed.is_set() and self.n_read + MICROPHONE_CHUNK <= self.now_s * SAMPLE_RATE:
            waveform = self._next()
            if not len(waveform):
                self._closed.set()
                break
            items.append(Chunk(self.n_read / SAMPLE_RATE, waveform))
            self.n_read += len(waveform)
        return items or (None if self._closed.is_set() else [])

    def close(self) -> None:
        """See Source."""
        self._closed.set()

    @property
    def now_s(self) -> float:
        """Wall time since the first sample was spoken."""
        return 0.0 if self._started is None else time.monotonic() - self._started

    def _next(self) -> Waveform:
        """The next 32 ms, at the end what is left."""
        while len(self._held) < MICROPHONE_CHUNK and (piece := next(self._pieces, None)) is not None:
            self._held = piece if not len(self._held) else np.concatenate([self._held, piece])
        waveform = self._held[:MICROPHONE_CHUNK]
        self._held = self._held[MICROPHONE_CHUNK:]
        return waveform
