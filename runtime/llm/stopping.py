"""An answer while it is said: what can be shown of it already, and when it must end."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from ..events import Piece
from .repetition import sound_length
from .sampling import Generation
from .session import Llm

REMEDIES = {
    "length": "raise --max-new-tokens, or give the strings of the schema a maxLength",
    "time": "raise --max-seconds",
    "stop": "it held a --stop text: leave that out",
}
"""By what ended an answer that should have gone on."""


class Saying:
    """Takes ids one by one. `add` until `stopped` is not None, then `finish`.

    started: time.monotonic() when the question was put; the answer's seconds count from there.
    """

    ids: list[int]
    """What was said; of a loop its sound beginning."""
    stopped: str | None
    """None while it may go on, or when the model ended it; else "length", "loop", "stop" or "time"."""

    def __init__(self, llm: Llm, generation: Generation, started: float, guard: bool = False) -> None:
        self.ids = []
        self.stopped = None
        self._llm = llm
        self._generation = generation
        self._guard = (guard or generation.guard) and generation.gbnf is None  # a form may repeat itself
        self._deadline = None if generation.max_seconds is None else started + generation.max_seconds
        self._detokenizer = llm.detokenizer()
        self._held = ""

    def add(self, token: int) -> str:
        """The text that can be shown now: what may be the beginning of a stop is held back."""
        self.ids.append(token)
        piece = self._show(self._detokenizer.add(token))
        if self.stopped is None:
            if self._guard and (n_sound := sound_length(self.ids)) < len(self.ids):
                self.stopped = "loop"
                del self.ids[n_sound:]
            elif len(self.ids) == self._generation.max_new_tokens:
                self.stopped = "length"
            elif self._deadline is not None and time.monotonic() >= self._deadline:
                self.stopped = "time"
        return piece

    def finish(self) -> str:
        """The text that was held back."""
        if self.stopped == "stop":
            return ""
        piece = self._show(self._detokenizer.finish())
        if self.stopped == "stop":
            return piece
        rest = piece + self._held
        self._held = ""
        return rest

    def take(self, tokens: Iterable[int]) -> Iterator[Piece]:
        """The whole answer, as it can be shown."""
        for token in tokens:
            if piece := self.add(token):
                yield Piece(piece)
            if self.stopped is not None:
                break
        if rest := self.finish():
            yield Piece(rest)

    @property
    def text(self) -> str:
        """The whole answer, without space around it."""
        return cut_at(self._llm.text(self.ids), self._generation.stop).strip()

    def _show(self, piece: str) -> str:
        stops = self._generation.stop
        if not stops:
            return piece
        self._held += piece
        cut = cut_at(self._held, stops)
        if len(cut) < len(self._held):
            self.stopped = "stop"
            self._held = ""
            return cut
        n_open = max(_n_begun(self._held, stop) for stop in stops)
        shown = self._held[: len(self._held) - n_open]
        self._held = self._held[len(self._held) - n_open :]
        return shown


def cut_at(text: str, stops: Iterable[str]) -> str:
    """What stands before the first of the stops."""
    places = [at for stop in stops if (at := text.find(stop)) >= 0]
    return text[: min(places)] if places else text


def _n_begun(text: str, stop: str) -> int:
    """How many letters at the end of text may be the beginning of stop."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
