"""One hearing, many answers: prompts about the same audio, each with a guess at its answer, decoded side by side.

    seq 0  prefix | audio tokens | suffix 0 | draft 0        the audio's KV is shared,
    seq 1  ---- shared ---->     | suffix 1 | draft 1        suffixes and drafts are one batch

Every row of a draft gives the token that would have followed there: the draft is kept up to the first that differs, and
decoding goes on from it, one pass for one more token of every answer. Prompts that begin differently before the audio
(a SALM's do) share nothing: these are answered one after the other. Greedy. The tokens are those of answering each
prompt from the start, for a kept draft token is the one that was the likeliest.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from .grammar import Grammar
from .llama import Floats
from .repetition import sound_length
from .sampling import Generation
from .session import Llm
from .stopping import cut_at


@dataclass(frozen=True)
class Reply:
    """The answer to one prompt."""

    ids: tuple[int, ...]
    n_drafted: int
    n_accepted: int
    """Leading tokens of the draft that stand in the answer."""
    stopped: str | None
    """None: the model ended it; else "length", "loop", "stop" or "time"."""


@dataclass(frozen=True)
class Replies:
    """What was answered and what it took."""

    replies: tuple[Reply, ...]
    n_kept: int
    """Audio tokens whose KV was kept."""
    n_steps: int
    """Passes after the prefill, each one token of every unfinished answer."""
    prefill_ms: float
    decode_ms: float


def reply_to_all(
    llm: Llm,
    audio_tokens: Floats,
    prompts: Sequence[str],
    drafts: Sequence[Sequence[int]],
    max_new_tokens: Sequence[int],
    n_kept: int = 0,
    rules: Generation | None = None,
    started: float = 0.0,
) -> Replies:
    """Answer every prompt about audio_tokens [n, hidden]; the first n_kept of them are those of the last call.

    A draft may be empty; each prompt has its own limit of new tokens. rules: what to stop at, which form to follow, and
    the seconds since `started` (time.monotonic()) that all answers have together; nothing else of it counts. Raises
    InputError when all that does not fit into the model, RunError.
    """
    around = [llm.prompts.around(prompt) for prompt in prompts]
    found: dict[int, Reply] = {}
    kept = len(audio_tokens)
    n_steps = 0
    prefill_ms = 0.0
    decode_ms = 0.0
    for before in dict.fromkeys(before for before, _ in around):
        members = [n for n, ids in enumerate(around) if ids[0] == before]
        start = time.perf_counter()
        suffixes = [around[n][1] for n in members]
        limits = [max_new_tokens[n] for n in members]
        llm.make_room(len(before) + len(audio_tokens), [len(suffix) for suffix in suffixes], limits)
        kept = min(kept, llm.hear(before, audio_tokens, n_kept))
        answers = _ask(llm, suffixes, [drafts[n] for n in members], limits, _Rules(llm, rules or Generation(), started))
        prefilled = time.perf_counter()
        while unfinished := [answer for answer in answers if not answer.finished]:
            if unfinished[0].rules.over():  # what a draft has said by then costs nothing more
                for answer in unfinished:
                    answer.finished = True
                    answer.stopped = "time"
                break
            _step(llm, unfinished)
            n_steps += 1
        prefill_ms += (prefilled - start) * 1e3
        decode_ms += (time.perf_counter() - prefilled) * 1e3
        found |= {n: answer.reply() for n, answer in zip(members, answers, strict=True)}
    return Replies(tuple(found[n] for n in range(len(prompts))), kept, n_steps, prefill_ms, decode_ms)


class _Rules:
    """When an answer ends before the model ends it, and which form it has."""

    def __init__(self, llm: Llm, generation: Generation, started: float) -> None:
        self._llm = llm
        self._generation = generation
        limit = generation.max_seconds
        self._deadline = None if limit is None else started + limit

    def grammar(self, sequence: int) -> Grammar | None:
        gbnf = self._generation.gbnf
        return None if gbnf is None else self._llm.grammar(gbnf, sequence)

    def stopped(self, ids: list[int], limit: int) -> str | None:
        stops = self._generation.stop
        if stops and cut_at(text := self._llm.text(ids), stops) != text:
            return "stop"
        return "length" if len(ids) == limit else None

    def over(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline


@dataclass
class _Answer:
    sequence: int
    start: int
    """Position of the answer's first token."""
    draft: list[int]
    limit: int
    rules: _Rules
    grammar: Grammar | None
    ids: list[int] = field(default_factory=list[int])
    n_accepted: int = 0
    finished: bool = False
    stopped: str | None = None

    def choose(self, logits: Floats) -> int:
        """The likeliest token [vocab] of those that may come."""
        return int((logits if self.grammar is None else self.grammar.mask(logits)).argmax())

    def take(self, token: int, eos: frozenset[int]) -> None:
        """The next token, or the end."""
        if token in eos:
            self.finished = True
            return
        self.ids.append(token)
        if self.grammar is not None:
            self.grammar.accept(token)
        if self.grammar is None and (length := sound_length(self.ids)) < len(self.ids):
            self.stopped = "loop"
            del self.ids[length:]
        else:
            self.stopped = self.rules.stopped(self.ids, self.limit)
        self.finished = self.stopped is not None

    def reply(self) -> Reply:
        return Reply(tuple(self.ids), len(self.draft), min(self.n_accepted, len(self.ids)), self.stopped)


def _ask(
    llm: Llm, suffixes: Sequence[Sequence[int]], drafts: Sequence[Sequence[int]], limits: Sequence[int], rules: _Rules
) -> list[_Answer]:
    """Every question behind what was heard, each in its own sequence, and what its draft is worth."""
    answers = [
        _Answer(sequence, llm.n_past + len(suffix), list(draft[: limit - 1]), limit, rules, rules.grammar(sequence))
        for sequence, (suffix, draft, limit) in enumerate(zip(suffixes, drafts, limits, strict=True))
    ]
    for answer in answers[1:]:
        llm.context.copy(0, answer.sequence)
    _prefill(llm, suffixes, answers)
    return answers


def _prefill(llm: Llm, suffixes: Sequence[Sequence[int]], answers: Sequence[_Answer]) -> None:
    """All suffixes and drafts in one batch (in several, where they are longer than one may be)."""
    rows = [
        (token, answer.start - len(suffix) + at, answer.sequence, at >= len(suffix) - 1)
        for suffix, answer in zip(suffixes, answers, strict=True)
        for at, token in enumerate([*suffix, *answer.draft])
    ]
    found: list[Floats] = []
    for begin in range(0, len(rows), llm.context.n_batch):
        part = rows[begin : begin + llm.context.n_batch]
        wanted = [at for at, row in enumerate(part) if row[3]]
        ids, positions, sequences, _ = zip(*part, strict=True)
        found += list(llm.allowed(llm.context.decode_ids(ids, positions, sequences, wanted))) if wanted else []
    for answer in answers:
        own = found[: len(answer.draft) + 1]
        found = found[len(answer.draft) + 1 :]
        _verify(llm, answer, own)


def _verify(llm: Llm, answer: _Answer, logits: Sequence[Floats]) -> None:
    """Keep the draft while it is what the model says; forget the KV of the rest."""
    for row, guess in zip(logits, [*answer.draft, None], strict=True):
        token = answer.choose(row)
        answer.take(token, llm.eos)
        if answer.finished or token != guess:
            break
        answer.n_accepted += 1
    llm.context.drop(answer.sequence, answer.start + answer.n_accepted)


def _step(llm: Llm, answers: Sequence[_Answer]) -> None:
    """One more token of each answer."""
    last = [answer.ids[-1] for answer in answers]
    positions = [answer.start + len(answer.ids) - 1 for answer in answers]
    sequences = [answer.sequence for answer in answers]
    logits = llm.context.decode_ids(last, positions, sequences, range(len(answers)))
    for answer, row in zip(answers, llm.allowed(logits), strict=True):
        answer.take(answer.choose(row), llm.eos)
