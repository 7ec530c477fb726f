"""One hearing, many answers: prompts about the same audio, each with a guess at its answer, decoded side by side.

    seq 0  prefix | audio tokens | suffix 0 | draft 0        the audio's KV is shared,
    seq 1  ---- shared ---->     | suffix 1 | draft 1        suffixes and drafts are one batch

Every row of a draft gives the token that would have followed there: the draft is kept up to the first that differs, and
decoding goes on from it, one pass for one more token of every answer. Greedy. The tokens are those of answering each
prompt from the start, for a kept draft token is the one that was the likeliest.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from .llama import Floats
from .llm import Llm
from .loops import sound_length


@dataclass(frozen=True)
class Reply:
    """The answer to one prompt."""

    ids: tuple[int, ...]
    n_drafted: int
    n_accepted: int
    """Leading tokens of the draft that stand in the answer."""
    stopped: str | None
    """None: the model ended it; "length": max_new_tokens; "loop": it began to repeat itself."""


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
) -> Replies:
    """Answer every prompt about audio_tokens [n, hidden]; the first n_kept of them are those of the last call.

    A draft may be empty; each prompt has its own limit of new tokens. Raises InputError when all that does not fit into
    the model, RunError.
    """
    start = time.perf_counter()
    suffixes = [llm.suffix_ids(prompt) for prompt in prompts]
    llm.make_room(len(audio_tokens), [len(suffix) for suffix in suffixes], max_new_tokens)
    n_kept = llm.hear(audio_tokens, n_kept)
    answers = [
        _Answer(sequence, llm.n_past + len(suffix), list(draft[: limit - 1]), limit)
        for sequence, (suffix, draft, limit) in enumerate(zip(suffixes, drafts, max_new_tokens, strict=True))
    ]
    for answer in answers[1:]:
        llm.context.copy(0, answer.sequence)
    _prefill(llm, suffixes, answers)
    prefilled, n_steps = time.perf_counter(), 0
    while unfinished := [answer for answer in answers if not answer.finished]:
        _step(llm, unfinished)
        n_steps += 1
    decode_ms = (time.perf_counter() - prefilled) * 1e3
    return Replies(tuple(answer.reply() for answer in answers), n_kept, n_steps, (prefilled - start) * 1e3, decode_ms)


@dataclass
class _Answer:
    sequence: int
    start: int
    """Position of the answer's first token."""
    draft: list[int]
    limit: int
    ids: list[int] = field(default_factory=list[int])
    n_accepted: int = 0
    finished: bool = False
    stopped: str | None = None

    def take(self, token: int, eos: frozenset[int]) -> None:
        """The next token, or the end."""
        if token in eos:
            self.finished = True
            return
        self.ids.append(token)
        if (length := sound_length(self.ids)) < len(self.ids):
            self.finished, self.stopped = True, "loop"
            del self.ids[length:]
        elif len(self.ids) == self.limit:
            self.finished, self.stopped = True, "length"

    def reply(self) -> Reply:
        return Reply(tuple(self.ids), len(self.draft), min(self.n_accepted, len(self.ids)), self.stopped)


def _prefill(llm: Llm, suffixes: Sequence[Sequence[int]], answers: Sequence[_Answer]) -> None:
    """All suffixes and drafts in one batch (in several, where they are longer than one may be)."""
    rows = [
        (token, answer.start - len(suffix) + at, answer.sequence, at >= len(suffix) - 1)
        for suffix, answer in zip(suffixes, answers, strict=True)
        for at, token in enumerate([*suffix, *answer.draft])
    ]
    found: list[int] = []
    for begin in range(0, len(rows), llm.context.n_batch):
        part = rows[begin : begin + llm.context.n_batch]
        wanted = [at for at, row in enumerate(part) if row[3]]
        ids, positions, sequences, _ = zip(*part, strict=True)
        logits = llm.context.decode_ids(ids, positions, sequences, wanted)
        found += llm.allowed(logits).argmax(axis=-1).tolist() if wanted else []
    for answer in answers:
        likeliest, found = found[: len(answer.draft) + 1], found[len(answer.draft) + 1 :]
        _verify(llm, answer, likeliest)


def _verify(llm: Llm, answer: _Answer, likeliest: Sequence[int]) -> None:
    """Keep the draft while it is what the model says; forget the KV of the rest."""
    for token, guess in zip(likeliest, [*answer.draft, None], strict=True):
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
    for answer, token in zip(answers, llm.allowed(logits).argmax(axis=-1).tolist(), strict=True):
        answer.take(token, llm.eos)
