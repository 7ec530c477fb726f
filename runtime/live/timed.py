"""The aligner in live captions: times of a final's words, and of a caption's stable ones where they cost little."""

from __future__ import annotations

import time

from ..engine import Engine
from ..events import Final, TimedWord
from ..llm.sampling import Generation
from ..stream_load import RunningMean
from .open_segment import aligned_generation
from .speculation import SegmentDecoder

MOST = 0.15
"""Of what an update takes may the times of its stable words."""


class LiveAligner:
    """Of one session. Without an aligner in the bundle, or about another task than a transcription, it does nothing."""

    def __init__(self, engine: Engine, generation: Generation) -> None:
        self._engine = engine
        self._generation = aligned_generation(generation)
        self._seconds = RunningMean()
        """Of wall time that an alignment takes: as a final's, with its support, until there was a caption's."""

    def final(self, final: Final, decoder: SegmentDecoder, end: int) -> Final:
        """With words and support, of a segment that ends there. Raises RunError."""
        if not self._aligns(final.prompt):
            return final
        started = time.perf_counter()
        aligned = self._engine.aligned(final, decoder.samples(end), self._generation)
        if self._seconds.value is None:
            self._seconds.add(time.perf_counter() - started)
        return aligned

    def stable_words(
        self, stable: str, text: str, decoder: SegmentDecoder, end: int, update_s: float | None
    ) -> tuple[TimedWord, ...]:
        """The stable text's, in seconds of the segment up to `end`, whose whole text is given too. Raises RunError.

        None before the session's first final has told what they cost, and where that is too much of an update.
        """
        if not stable or update_s is None or not self._aligns(decoder.prompts[0]):
            return ()
        if self._seconds.value is None or self._seconds.value > MOST * update_s:
            return ()
        started = time.perf_counter()
        words = self._engine.words(decoder.samples(end), text)
        self._seconds.add(time.perf_counter() - started)
        n_left = len("".join(stable.split()))
        found: list[TimedWord] = []
        for word in words:
            n_left -= len(word.text)
            if n_left < 0:
                break
            found.append(word)
        return tuple(found)

    def _aligns(self, prompt: str) -> bool:
        return self._engine.times_words and self._engine.prompt.transcribes(prompt)
