"""Stopping criteria: an answer's tokens in, when it ends and why (`finish_reason`) and what can be shown of it out.

"eos"     the model ended it                 "stop"    a stop sequence would have followed
"length"  max_new_tokens were decoded        "loop"    it repeats itself: cut behind the first copy
"time"    max_seconds were over
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence

from ..events import FinishReason
from .detokenizer import Detokenizer
from .sampling import Generation

MAX_PERIOD = 24  # tokens of what is repeated
MIN_COPIES = 4  # "seven seven seven" is speech
MIN_TOKENS = 18  # in all copies together

REMEDIES: dict[str, str] = {
    "length": "raise --max-new-tokens, or give the strings of the schema a maxLength",
    "time": "raise --max-seconds",
    "stop": "it held a --stop text: leave that out",
}
"""By the finish_reason of an answer that should have gone on."""


class StoppingCriteria:
    """Decides when one answer ends, and why, in plain and speculative decoding. `add` until there is a finish_reason.

    started: time.monotonic() when the question was put; the answer's seconds count from there. detokenizer: a fresh
    one, to know the text by; without it `add` gives none and stop sequences are not looked for. eos: ids that end the
    answer, where whoever decodes does not end it there already. max_new_tokens: generation's when None.
    """

    ids: list[int]
    """The answer without EOS; of a loop its sound beginning."""
    finish_reason: FinishReason | None
    """None while it may go on."""

    def __init__(
        self,
        generation: Generation,
        started: float,
        detokenizer: Detokenizer | None = None,
        eos: Collection[int] = (),
        max_new_tokens: int | None = None,
    ) -> None:
        self.ids = []
        self.finish_reason = None
        self._limit = generation.max_new_tokens if max_new_tokens is None else max_new_tokens
        self._guard = generation.guard and generation.gbnf is None  # a form may repeat itself
        self._deadline = None if generation.max_seconds is None else started + generation.max_seconds
        self._eos = eos
        self._detokenizer = detokenizer
        self._stops = StopSequences(generation.stop)

    def add(self, token: int) -> str:
        """The next token; returns the text that can be shown now."""
        if token in self._eos:
            self.finish_reason = "eos"
            return ""
        self.ids.append(token)
        shown = "" if self._detokenizer is None else self._stops.add(self._detokenizer.add(token))
        if self._stops.found:
            self.finish_reason = "stop"
        elif self._guard and (n_sound := sound_length(self.ids)) < len(self.ids):
            self.finish_reason = "loop"
            del self.ids[n_sound:]
        elif len(self.ids) == self._limit:
            self.finish_reason = "length"
        return shown

    def check_time(self) -> None:
        """Ends the answer when its time is over: to be called once a forward pass, for draft tokens cost nothing."""
        if self.finish_reason is None and self._deadline is not None and time.monotonic() >= self._deadline:
            self.finish_reason = "time"

    def finish(self, reason: FinishReason = "eos") -> str:
        """No more tokens come; returns the text that was held back. reason: why, where nothing ended it here."""
        self.finish_reason = self.finish_reason or reason
        if self._stops.found or self._detokenizer is None:
            return ""
        shown = self._stops.add(self._detokenizer.finish())
        if self._stops.found:
            self.finish_reason = "stop"
        return shown + self._stops.finish()


class StopSequences:
    """Looks for stop sequences: text in pieces in, what can be shown of it out; their beginnings are held back."""

    found: bool
    """Whether one of them came: nothing is shown from there on."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.found = False
        self._stops = stops
        self._held = ""

    def add(self, piece: str) -> str:
        """The next piece; returns the text that can be shown now."""
        if not self._stops:
            return piece
        self._held += piece
        cut = cut_at(self._held, self._stops)
        if len(cut) < len(self._held):
            self.found = True
            self._held = ""
            return cut
        n_open = max(_n_begun(self._held, stop) for stop in self._stops)
        shown = self._held[: len(self._held) - n_open]
        self._held = self._held[len(self._held) - n_open :]
        return shown

    def finish(self) -> str:
        """The text that was held back: it began no stop sequence."""
        rest = self._held
        self._held = ""
        return rest


def cut_at(text: str, stops: Iterable[str]) -> str:
    """What stands before the first of the stop sequences."""
    places = [at for stop in stops if (at := text.find(stop)) >= 0]
    return text[: min(places)] if places else text


def _n_begun(text: str, stop: str) -> int:
    """How many letters at the end of text may be the beginning of stop."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


def sound_length(ids: Sequence[int]) -> int:
    """How many leading ids to keep: all, or up to the end of the first copy of what the end repeats.

    A loop is at least four copies in a row, and at least 18 tokens, of 1 to 24 tokens.
    """
    for period in range(1, MAX_PERIOD + 1):
        n_copies = max(MIN_COPIES, -(-MIN_TOKENS // period))
        if len(ids) < period * n_copies:
            continue
        unit = ids[len(ids) - period :]
        if all(ids[len(ids) - period * (n + 1) : len(ids) - period * n] == unit for n in range(1, n_copies)):
            return len(ids) - period * (n_copies - 1)
    return len(ids)
