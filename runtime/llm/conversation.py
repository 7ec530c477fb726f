"""A conversation in one KV cache: turns in, each with audio or text alone, answer ids out; earlier turns stay.

    [BOS] system | USER: <Speech> audio </Speech> prompt ASSISTANT: answer [EOS] | USER: prompt ASSISTANT: ...
    ^ head         ^ turn                                                          ^ the next, here without audio

When the next turn would not fit, the oldest leave and the kept ones are read again. To shift these back inside the
cache would not be the same: their keys and values were computed with the others before them (on the golden checkpoint
the next logits would be off by 1.3, and their spread is 0.9). Half of the context is free then: it happens seldom.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...models.errors import InputError
from ..system.exclusive import exclusively
from .kv_prefix import n_alike
from .llama import Floats
from .sampling import Generation, TokenScores
from .session import Llm

N_CTX = 2048  # positions where LlmOptions.n_ctx says nothing: a gigabyte with a 7B model


@dataclass(frozen=True)
class _Turn:
    """One question and what was answered."""

    before: Sequence[int]
    audio_tokens: Floats
    """float32 [n, hidden]; none where the turn is text alone."""
    suffix: Sequence[int]
    answer: list[int] = field(default_factory=list[int])
    """Its ids as far as they were taken, without EOS."""

    @property
    def n_question(self) -> int:
        """Positions of what was asked."""
        return len(self.before) + len(self.audio_tokens) + len(self.suffix)


class Conversation:
    """Turns with one opened model; when others use it in between, they are read again. One thread at a time, as Llm.

    system: stands before all turns, and always stays; keep_first: so does the first turn, which the others are about.
    Raises InputError when the system's text spells a control token.
    """

    def __init__(self, llm: Llm, system: str | None = None, keep_first: bool = False) -> None:
        self.llm = llm
        """In which it is held."""
        self.exclusive = llm.exclusive
        self._n_pinned = int(keep_first)
        self._head = llm.prompts.head(system)
        self._end = llm.prompts.info.end_ids
        self._n_ctx = conversation_size(llm)
        self._turns: list[_Turn] = []
        self._start: int | None = None
        """Position of the last turn's answer; None when the cache holds it to its end."""
        self._stale = False
        """The cache holds turns that have left."""
        self._mark = -1
        """llm.turn as it was left here: another means that the cache holds something else."""

    @property
    def n_turns(self) -> int:
        """Turns that the model remembers, the newest included."""
        return len(self._turns)

    def prefill_audio(self, audio_tokens: Floats, prompt: str, max_new_tokens: int) -> None:
        """Read the next turn's question, audio_tokens [n, hidden], for `answer`; the last answer ends where it is.

        Raises InputError when this turn alone does not fit, RunError.
        """
        self._take(self._turn(audio_tokens, prompt), max_new_tokens)

    def prefill_text(self, prompt: str, max_new_tokens: int) -> None:
        """The next turn's question without new audio: it costs its own tokens only. Raises InputError, RunError."""
        self._take(self._text_turn(prompt), max_new_tokens)

    def remember(self, audio_tokens: Floats | None, prompt: str, answer: str) -> None:
        """Behind the others a turn that was answered elsewhere; it is read with the next question. Raises InputError.

        audio_tokens: [n, hidden], or None for a turn of text alone.
        """
        turn = self._text_turn(prompt) if audio_tokens is None else self._turn(audio_tokens, prompt)
        turn.answer.extend(self.llm.prompts.answer(answer))
        self._turns.append(turn)
        self._stale = True

    def positions_with(self, audio_tokens: Floats | None, prompt: str) -> int:
        """How many the next turn's question and all before it take; turns leave beyond conversation_size."""
        turn = self._text_turn(prompt) if audio_tokens is None else self._turn(audio_tokens, prompt)
        return len(self._head) + sum(self._sizes()) + turn.n_question

    def _text_turn(self, prompt: str) -> _Turn:
        nothing = np.zeros((0, self.llm.spec.hidden), np.float32)
        return _Turn((), nothing, self.llm.prompts.text_turn(prompt))

    def _turn(self, audio_tokens: Floats, prompt: str) -> _Turn:
        before, after = self.llm.prompts.around(prompt)
        return _Turn(before[len(self.llm.prompts.info.start_ids) :], audio_tokens, after)

    @exclusively
    def _take(self, turn: _Turn, max_new_tokens: int) -> None:
        self._drop_oldest(turn.n_question, max_new_tokens)
        if self._stale or self._mark != self.llm.turn:
            self._read_again()
        self._mark = -1  # until all of it was read
        self._end_answer()
        self._begin(turn)
        self.llm.question(turn.suffix)
        self._turns.append(turn)
        self._start = self.llm.n_past
        self._mark = self.llm.turn

    def answer(self, generation: Generation, scores: TokenScores | None = None) -> Iterator[int]:
        """The answer's ids as Llm.generate gives them; those that were taken from here are remembered."""
        return self._remembered(self.llm.generate(generation, scores), self._turns[-1].answer)

    def _remembered(self, tokens: Iterator[int], ids: list[int]) -> Iterator[int]:
        for token in tokens:
            ids.append(token)
            yield token

    def keep(self, n: int) -> None:
        """Of the answer, which is over, only the first n ids are remembered."""
        del self._turns[-1].answer[n:]

    @exclusively
    def retract(self) -> None:
        """The last turn was not meant: it is forgotten with what was answered to it; what was before it stays read."""
        turn = self._turns.pop()
        if self._start is None or self._stale or self._mark != self.llm.turn:
            self._stale = True
        else:
            self.llm.rewind(self._start - turn.n_question)
            self._mark = self.llm.turn
        self._start = None

    @exclusively
    def reserve(self, n_audio_tokens: int, prompt: str, max_new_tokens: int) -> None:
        """Drop the oldest turns now, while nobody waits, as `prefill_audio` would for such a turn.

        Raises InputError when it cannot fit, RunError.
        """
        start_ids = self.llm.prompts.info.start_ids
        n_text = sum(map(len, self.llm.prompts.around(prompt))) - len(start_ids)
        self._drop_oldest(n_audio_tokens + n_text, max_new_tokens)
        if self._stale:
            self._read_again()

    def forget(self) -> None:
        """The next turn is the first."""
        self._turns.clear()
        self._start = None
        self._stale = True

    def _drop_oldest(self, n_question: int, max_new_tokens: int) -> None:
        needed = len(self._head) + n_question + max_new_tokens
        if needed > self._n_ctx:
            raise InputError(
                f"a turn takes {needed} positions, {max_new_tokens} of them for its answer, but {self._n_ctx} are there"
                ": raise n_ctx, lower max_new_tokens, or shorten the prompt"
            )
        sizes = self._sizes()
        free = self._n_ctx - needed
        pinned = sum(sizes[: self._n_pinned])
        if pinned > free:
            raise InputError(
                f"the first turn takes {pinned} positions and this one {needed}, but {self._n_ctx} are there:"
                " raise n_ctx, or lower max_new_tokens"
            )
        if sum(sizes) > free:
            self._stale = True
            while sum(sizes) > free // 2 and len(sizes) > self._n_pinned:
                del sizes[self._n_pinned], self._turns[self._n_pinned]

    def _sizes(self) -> list[int]:
        return [turn.n_question + len(turn.answer) + len(self._end) for turn in self._turns]

    def _read_again(self) -> None:
        """The head and every turn to its end; the head's KV is kept where it is ours."""
        if self._mark == self.llm.turn:
            self.llm.rewind(len(self._head))
        else:
            self.llm.restart(self._n_ctx)
            self.llm.feed(self._head)
        self._mark = -1
        for turn in self._turns:
            self._begin(turn)
            self.llm.feed([*turn.suffix, *turn.answer, *self._end])
        self._start = None
        self._stale = False
        self._mark = self.llm.turn

    def _begin(self, turn: _Turn) -> None:
        self.llm.feed(turn.before)
        self.llm.feed_audio(turn.audio_tokens)

    def _end_answer(self) -> None:
        """The rest of the answer, and EOS; what was computed and not taken is forgotten."""
        if self._start is None:
            return
        ids = self._turns[-1].answer
        n_read = n_alike(self.llm.read[self._start :], ids)
        self.llm.rewind(self._start + n_read)
        self.llm.feed([*ids[n_read:], *self._end])
        self._start = None


def conversation_size(llm: Llm) -> int:
    """Positions of all turns together."""
    return min(llm.options.n_ctx or N_CTX, llm.spec.max_positions)
