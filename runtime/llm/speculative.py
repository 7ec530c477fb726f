"""Answers side by side, each in a sequence of its own, and their drafts: questions in; the answers and their cost out.

`reply_to_all`: several prompts about one clip      seq 0  prefix | audio tokens | suffix 0 | draft 0
                                                    seq 1  ---- shared ---->     | suffix 1 | draft 1
`reply_to_each`: each about a clip of its own       seq 0  prefix | audio tokens 0 | suffix
                                                    seq 1  shared | audio tokens 1 | suffix

Suffixes and drafts are one pass, and so is the next token of every answer. Every row of a draft gives the token that
would have followed there: the draft is kept up to the first that differs, and decoding goes on from it. Prompts that
begin differently before the audio (a SALM's do) share nothing: these are answered one after the other. Greedy. The
tokens are those of answering each prompt from the start, for a kept draft token is the one that was the likeliest; but
a pass of more rows rounds otherwise, which can turn a near tie.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..events import FinishReason
from .boosting import Boost
from .grammar.gbnf import Grammar
from .llama import Floats
from .sampling import Generation, TokenScores
from .session import Llm
from .stopping import StoppingCriteria


@dataclass(frozen=True)
class Reply:
    """The answer to one prompt."""

    ids: tuple[int, ...]
    n_drafted: int
    n_accepted: int
    """Leading tokens of the draft that stand in the answer."""
    finish_reason: FinishReason
    """As Final.finish_reason."""
    avg_logprob: float | None = None
    """As Final.avg_logprob."""


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
    generation: Generation | None = None,
    started: float = 0.0,
) -> Replies:
    """Answer every prompt about audio_tokens [n, hidden]; the first n_kept of them are those of the last call.

    A draft may be empty; each prompt has its own limit of new tokens. generation: when to stop, which grammar to
    follow, which ids to force, and the seconds since `started` (time.monotonic()) that all answers have together;
    nothing else of it counts. Raises InputError when all that does not fit into the model, RunError.
    """
    generation = generation or Generation()
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
        llm.reserve(len(before) + len(audio_tokens), [len(suffix) for suffix in suffixes], limits)
        kept = min(kept, llm.prefill_audio(before, audio_tokens, n_kept))
        begins = [llm.n_past] * len(members)
        answers = _answers(llm, suffixes, begins, [drafts[n] for n in members], limits, generation, started)
        for answer in answers[1:]:
            llm.context.copy(0, answer.sequence)
        _prefill(llm, suffixes, answers)
        prefilled = time.perf_counter()
        n_steps += _finish(llm, answers)
        prefill_ms += (prefilled - start) * 1e3
        decode_ms += (time.perf_counter() - prefilled) * 1e3
        found |= {n: answer.reply() for n, answer in zip(members, answers, strict=True)}
    return Replies(tuple(found[n] for n in range(len(prompts))), kept, n_steps, prefill_ms, decode_ms)


def reply_to_each(
    llm: Llm,
    audio_tokens: Sequence[Floats],
    prompt: str,
    max_new_tokens: Sequence[int],
    generation: Generation | None = None,
    started: float = 0.0,
) -> Replies:
    """Answer one prompt about each of several clips: audio_tokens [n, hidden] each, with a limit of new tokens each.

    generation, started: as of reply_to_all. Raises InputError when all that does not fit into the model, RunError.
    """
    generation = generation or Generation()
    before, suffix = llm.prompts.around(prompt)
    start = time.perf_counter()
    suffixes = [suffix] * len(audio_tokens)
    llm.reserve(len(before), [len(audio) + len(suffix) for audio in audio_tokens], max_new_tokens)
    llm.prefill_audio(before, audio_tokens[0][:0])
    begins = [llm.n_past + len(audio) for audio in audio_tokens]
    nothing = [()] * len(audio_tokens)
    answers = _answers(llm, suffixes, begins, nothing, max_new_tokens, generation, started)
    _feed_audio(llm, audio_tokens)
    _prefill(llm, suffixes, answers)
    prefilled = time.perf_counter()
    n_steps = _finish(llm, answers)
    replies = tuple(answer.reply() for answer in answers)
    return Replies(replies, 0, n_steps, (prefilled - start) * 1e3, (time.perf_counter() - prefilled) * 1e3)


@dataclass
class _Answer:
    sequence: int
    start: int
    """Position of the answer's first token."""
    draft: list[int]
    criteria: StoppingCriteria
    grammar: Grammar | None
    boost: Boost
    forced_ids: tuple[int, ...]
    n_accepted: int = 0
    scores: TokenScores = field(default_factory=TokenScores)

    @property
    def ids(self) -> list[int]:
        """What was decoded so far."""
        return self.criteria.ids

    @property
    def finished(self) -> bool:
        """Whether no token is to follow."""
        return self.criteria.finish_reason is not None

    def choose(self, logits: Floats) -> int:
        """The likeliest token [vocab] of those that may come, or the one that is forced here."""
        if len(self.ids) < len(self.forced_ids):
            return self.forced_ids[len(self.ids)]
        boosted = self.boost(logits, self.ids)
        token = int((boosted if self.grammar is None else self.grammar.mask(boosted)).argmax())
        self.scores.add(logits, token)
        return token

    def take(self, token: int) -> None:
        """The next token, or EOS."""
        self.criteria.add(token)
        if self.grammar is not None and self.criteria.finish_reason != "eos":
            self.grammar.accept(token)

    def reply(self) -> Reply:
        n_accepted = min(self.n_accepted, len(self.ids))
        reason = self.criteria.finish_reason or "eos"
        return Reply(tuple(self.ids), len(self.draft), n_accepted, reason, self.scores.mean)


def _answers(
    llm: Llm,
    suffixes: Sequence[Sequence[int]],
    begins: Sequence[int],
    drafts: Sequence[Sequence[int]],
    limits: Sequence[int],
    generation: Generation,
    started: float,
) -> list[_Answer]:
    """One of each question, in sequences 0, 1, ...; begins: the position behind its audio."""
    answers: list[_Answer] = []
    for sequence, (suffix, begin, draft, limit) in enumerate(zip(suffixes, begins, drafts, limits, strict=True)):
        detokenizer = llm.detokenizer() if generation.stop else None
        criteria = StoppingCriteria(generation, started, detokenizer, llm.end_ids(generation), limit)
        grammar = None if generation.gbnf is None else llm.grammar(generation.gbnf, sequence)
        drafted = list(draft[: limit - 1])
        start, boost = begin + len(suffix), llm.prompts.boost
        answers.append(_Answer(sequence, start, drafted, criteria, grammar, boost, generation.forced_ids))
    return answers


def _feed_audio(llm: Llm, audio_tokens: Sequence[Floats]) -> None:
    """Behind what sequence 0 begins with, each clip into a sequence of its own, in as few passes as there can be."""
    for sequence in range(1, len(audio_tokens)):
        llm.context.copy(0, sequence)
    rows = np.concatenate(audio_tokens)
    places = [(llm.n_past + at, sequence) for sequence, audio in enumerate(audio_tokens) for at in range(len(audio))]
    for begin in range(0, len(rows), llm.context.n_batch):
        positions, sequences = zip(*places[begin : begin + llm.context.n_batch], strict=True)
        llm.context.decode_embeddings(rows[begin : begin + llm.context.n_batch], positions, sequences)


def _finish(llm: Llm, answers: Sequence[_Answer]) -> int:
    """Decode all of them to their ends; returns how many passes that took."""
    n_steps = 0
    while unfinished := _unfinished(answers):
        _step(llm, unfinished)
        n_steps += 1
    return n_steps


def _unfinished(answers: Sequence[_Answer]) -> list[_Answer]:
    """Those that go on, once their time was looked at: tokens of a draft that was kept by then cost nothing more."""
    for answer in answers:
        answer.criteria.check_time()
    return [answer for answer in answers if not answer.finished]


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
    """Accept the draft while it is what the model chooses; forget the KV of the rest."""
    for row, guess in zip(logits, [*answer.draft, None], strict=True):
        token = answer.choose(row)
        answer.take(token)
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
        answer.take(answer.choose(row))
