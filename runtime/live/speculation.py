"""Speculative endpointing: a segment that pauses -> what its final will be, computed while the gate still waits.

    speech ......|  pad  |                    |
                 pause   |                    the pause was long enough: Closed
                         `- the segment ends here if the pause goes on: decoded ahead, shown to nobody

Speech that goes on makes it void: nothing of it is kept, so that every answer is the one that would have come without.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

from ...models.audio import Waveform
from ..engine import Engine
from ..events import Decoded, Piece
from .gate import Closed
from .incremental import Hypotheses, IncrementalDecoder, IncrementalState


@dataclass
class Speculated:
    """What was computed ahead in one session."""

    n_used: int = 0
    """Answers that were begun when their segment closed."""
    n_wasted: int = 0
    """Those that nobody wanted."""
    seconds: float = 0.0
    """Wall time of all,"""
    wasted_s: float = 0.0
    """and of those that nobody wanted."""

    def spent(self, seconds: float, used: bool, n_answers: int = 1) -> None:
        """One of them is over, or (0) what belongs to one."""
        self.seconds += seconds
        self.wasted_s += 0.0 if used else seconds
        self.n_used += n_answers if used else 0
        self.n_wasted += 0 if used else n_answers

    def balance(self) -> dict[str, float]:
        """As SessionEnded says it."""
        return {"speculated_s": self.seconds, "wasted_s": self.wasted_s}


@dataclass(frozen=True)
class _Pass:
    """The segment up to `end`, decoded."""

    end: int
    found: Hypotheses
    state: IncrementalState
    seconds: float
    """What it took."""

    @property
    def complete(self) -> bool:
        """No audio token is an old one, nothing was cut because its time was over: another pass would say the same."""
        return self.found.exact and all(reply.finish_reason != "time" for reply in self.found.replies)


class SegmentDecoder:
    """One segment's hypotheses: what is decoded ahead counts when it is asked for, and nothing is decoded twice."""

    def __init__(self, decoder: IncrementalDecoder, samples: Callable[[int], Waveform], speculated: Speculated) -> None:
        """samples: of the segment from its beginning up to a position."""
        self.prompts = decoder.prompts
        self._decoder = decoder
        self.samples = samples
        self._speculated = speculated
        self._state = decoder.create_state()
        self._newest: _Pass | None = None
        self._ahead_s: float | None = None
        """What the newest pass took, where nobody has asked for it."""

    def has(self, end: int) -> bool:
        """Whether the segment up to there needs no work any more."""
        newest = self._newest
        asked_all = newest is not None and len(newest.found.replies) == len(self.prompts)
        return newest is not None and newest.end == end and asked_all and newest.complete

    @property
    def newest(self) -> Hypotheses:
        """What the newest pass found, whether anybody asks for it or not."""
        assert self._newest is not None, "nothing was decoded"
        return self._newest.found

    @property
    def newest_s(self) -> float:
        """Seconds that the newest pass took."""
        return self._newest.seconds if self._newest else 0.0

    def ahead(self, engine: Engine, end: int) -> None:
        """Decode the segment up to there in advance, once. Raises InputError, RunError."""
        if self._newest is not None and self._newest.end == end and self._newest.found.exact:
            return
        self._ahead_s = self._pass(engine, end).seconds

    def decode(self, engine: Engine, end: int, first_alone: bool = False, exact: bool = True) -> Hypotheses:
        """The segment up to there; first_alone: the first prompt at least; exact: as of
        IncrementalDecoder.step. Raises InputError, RunError."""
        newest = self._newest if self.has(end) else None
        if newest is None:
            newest = self._pass(engine, end, first_alone, exact)
        self._over(used=True)
        self._state = newest.state
        return newest.found

    def _pass(self, engine: Engine, end: int, first_alone: bool = False, exact: bool = True) -> _Pass:
        self._over(used=False)
        self._newest = None
        started = time.perf_counter()
        found, state = self._decoder.step(engine, self.samples(end), self._state, first_alone, exact)
        self._newest = _Pass(end, found, state, time.perf_counter() - started)
        return self._newest

    def _over(self, used: bool) -> None:
        if self._ahead_s is not None:
            self._speculated.spent(self._ahead_s, used)
            self._ahead_s = None


class AnswerAhead:
    """An answer that was begun in a pause, and is held back until the pause is over."""

    def __init__(self, closed: Closed, decoding: Generator[Piece, None, Decoded]) -> None:
        """closed: the segment that it answers, as it is expected to end."""
        self.closed = closed
        self.seconds = 0.0
        """Wall time that it has taken so far."""
        self._decoding = decoding
        self._pieces: list[Piece] = []
        self._decoded: Decoded | None = None

    @property
    def complete(self) -> bool:
        """Nothing is left to decode."""
        return self._decoded is not None

    def advance(self) -> None:
        """Decode up to the next piece, or to the end. Raises InputError, RunError."""
        started = time.perf_counter()
        try:
            self._pieces.append(next(self._decoding))
        except StopIteration as end:
            self._decoded = end.value
        self.seconds += time.perf_counter() - started

    def released(self) -> Generator[Piece, None, Decoded]:
        """What was held back, then what is decoded from here on."""
        yield from self._pieces
        return (yield from self._decoding) if self._decoded is None else self._decoded

    def close(self) -> None:
        """Nobody wants it."""
        self._decoding.close()
