"""The aligner in live captions: times of a final's words, and of a caption's stable ones where they cost little.

A final's support too, where it is asked for: to tell it takes several times as long as the words' times.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from ..engine import Engine
from ..events import Final, TimedWord
from ..llm.sampling import Generation
from ..stream_load import RunningMean
from .speculation import SegmentDecoder, Speculated

MOST = 0.15
"""Of what an update takes may the times of its stable words."""


@dataclass(frozen=True)
class _Aligned:
    """A final that was aligned while the gate still waited."""

    decoder: SegmentDecoder
    end: int
    final: Final
    seconds: float
    """What it took."""


class LiveAligner:
    """Of one session. Without an aligner in the bundle, or about another task than a transcription, it does nothing."""

    def __init__(self, engine: Engine, generation: Generation, speculated: Speculated) -> None:
        self._engine = engine
        self._generation = replace(generation, words=True)
        self._speculated = speculated
        self._seconds = RunningMean()
        """Of wall time that an alignment takes: a final's, support included, until there was a caption's."""
        self._ahead: _Aligned | None = None
        self.newest_s = 0.0
        """Seconds that the newest final's alignment took; 0 where there is none."""

    def has(self, decoder: SegmentDecoder, end: int) -> bool:
        """Whether a final of the segment up to there, which is decoded, needs no work any more."""
        ahead = self._ahead
        return not self._aligns(decoder.prompts[0]) or (
            ahead is not None and ahead.decoder is decoder and ahead.end == end
        )

    def ahead(self, final: Final, decoder: SegmentDecoder, end: int) -> None:
        """Align what would be the final, in advance. Raises RunError."""
        self._over(used=False)
        aligned, took_s = self._timed(final, decoder, end)
        self._ahead = _Aligned(decoder, end, aligned, took_s)

    def final(self, final: Final, decoder: SegmentDecoder, end: int) -> Final:
        """With words, and support where it is asked for, of a segment that ends there. Raises RunError."""
        self.newest_s = 0.0
        if not self._aligns(final.prompt):
            return final
        if self._ahead is not None and self.has(decoder, end):
            aligned, self.newest_s = self._ahead.final, self._ahead.seconds
            self._over(used=True)
        else:
            self._over(used=False)
            aligned, self.newest_s = self._timed(final, decoder, end)
        return replace(final, words=aligned.words, support=aligned.support, finish_reason=aligned.finish_reason)

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
        words = self._engine.aligner.words(decoder.samples(end), text)
        self._seconds.add(time.perf_counter() - started)
        n_left = len("".join(stable.split()))
        found: list[TimedWord] = []
        for word in words:
            n_left -= len(word.text)
            if n_left < 0:
                break
            found.append(word)
        return tuple(found)

    def _timed(self, final: Final, decoder: SegmentDecoder, end: int) -> tuple[Final, float]:
        started = time.perf_counter()
        aligned = self._engine.aligned(final, decoder.samples(end), self._generation)
        took_s = time.perf_counter() - started
        if self._seconds.value is None:
            self._seconds.add(took_s)
        return aligned, took_s

    def _over(self, used: bool) -> None:
        if self._ahead is not None:
            self._speculated.spent(self._ahead.seconds, used, n_answers=0)
            self._ahead = None

    def _aligns(self, prompt: str) -> bool:
        return self._engine.times_words and self._engine.prompt.transcribes(prompt)
