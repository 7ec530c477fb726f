"""Decoding: the first token's logits and a step function in, token ids out, one by one: greedy, sampled or by beams.

Source: docs/reference.md §4.4.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

import numpy as np

from .beam import BeamRule, LogProbs, beam_search
from .boosting import Boost, unboosted
from .grammar.gbnf import Grammar
from .llama import Context, Floats
from .sampling import Generation, TokenScores, log_softmax, penalize, sample

Step = Callable[[int], Floats]
"""step(token) -> logits [vocab] of the token after it; -inf marks what cannot be chosen."""
BeamStep = Callable[[Sequence[int], Sequence[int]], Floats]
"""step(tokens, parents) -> logits [len(tokens), vocab], see beam.Step."""


def decode(
    first: Floats,
    step: Step,
    generation: Generation,
    eos: Collection[int],
    grammar: Grammar | None = None,
    scores: TokenScores | None = None,
    boost: Boost = unboosted,
) -> Iterator[int]:
    """Yield the answer's ids, without EOS, at most max_new_tokens; a step is taken only when one more is asked for.

    first: logits [vocab] after the prompt; -inf marks what cannot be chosen. scores: is told every id before it comes.
    boost: what listed words gain, see KeywordBoost.
    """
    rng = np.random.default_rng(generation.seed)
    forced = generation.forced_ids
    ids: list[int] = []
    logits = first
    while True:
        if len(ids) < len(forced):
            token = forced[len(ids)]
        else:
            penalized = boost(penalize(logits, ids, generation.repetition_penalty), ids)
            token = sample(grammar.mask(penalized) if grammar else penalized, generation, rng)
            if scores is not None:
                scores.add(logits, token)
        if token in eos:
            return
        ids.append(token)
        if grammar:
            grammar.accept(token)
        yield token
        if len(ids) == generation.max_new_tokens:
            return
        logits = step(token)


def search(
    first: Floats, step: BeamStep, generation: Generation, eos: Collection[int], boost: Boost = unboosted
) -> Iterator[int]:
    """Yield the ids of the best of `beams` hypotheses, without EOS, each as soon as no other can win without it."""
    rule = BeamRule(generation.beams, generation.max_new_tokens, eos, generation.length_penalty)

    def log_probs(tokens: Sequence[int], parents: Sequence[int]) -> LogProbs:
        return log_softmax(step(tokens, parents))

    def adjust(scores: LogProbs, ids: Sequence[int]) -> LogProbs:
        return boost(penalize(scores, ids, generation.repetition_penalty), ids)

    return beam_search(log_softmax(first), log_probs, rule, adjust)


class BeamSequences:
    """Beams as sequences of a context that share the prompt's KV; two sets take turns as parents and children."""

    def __init__(self, context: Context, start: int, beams: int) -> None:
        """start: position of the answer's first token."""
        self._context = context
        self._start = start
        self._sets = range(1, 1 + beams), range(1 + beams, 1 + 2 * beams)
        self._n_steps = 0

    def step(self, tokens: Sequence[int], parents: Sequence[int]) -> Floats:
        """Continue beam parents[i], in the first step the prompt, with tokens[i]: logits [len(tokens), vocab]."""
        old = self._sets[self._n_steps % 2]
        new = self._sets[1 - self._n_steps % 2][: len(tokens)]
        for parent, child in zip(parents, new, strict=True):
            self._context.copy(old[parent] if self._n_steps else 0, child)
        for sequence in old:
            self._context.drop(sequence)
        positions = [self._start + self._n_steps] * len(tokens)
        self._n_steps += 1
        return self._context.decode_ids(tokens, positions, new, range(len(tokens)))


class PromptLookup:
    """Steps of `decode` that check guesses in the pass of the token before them: prompt lookup decoding.

    What is guessed is what came after the last N_GRAM tokens where they stood before, in the prompt or in the answer
    itself. A pass gives the logits behind every guess; they count as far as the guesses are what is chosen, so the
    choice is the one without guesses, but for a near tie that a pass of more rows rounds otherwise. Twice as much is
    guessed after a guess that was right to its end, as much as was right after another.
    """

    N_GRAM = 3

    def __init__(
        self,
        ids: Sequence[int],
        read: Callable[[Sequence[int]], Floats],
        drop: Callable[[int], None],
        most: int,
        end: int,
    ) -> None:
        """ids: at all positions, negative where there is none; it grows as `read` appends some and gives the logits
        [len, vocab] behind each, and shrinks as `drop` forgets those from a position on. most: tokens that are guessed
        at once, 0 guesses none; end: positions that there may be."""
        self._ids = ids
        self._read = read
        self._drop = drop
        self._most = most
        self._end = end
        self._length = min(2, most)
        self._follows: dict[tuple[int, ...], int] = {}
        self._n_indexed = 0
        self._guesses: list[int] = []
        self._logits: Floats | None = None
        self._n_right = 0

    def step(self, token: int) -> Floats:
        """See Step."""
        if self._logits is not None and self._n_right < len(self._guesses):
            if token == self._guesses[self._n_right]:
                self._n_right += 1
                return self._logits[self._n_right]
            self._drop(len(self._ids) - len(self._guesses) + self._n_right)
        if self._guesses:
            whole = self._n_right == len(self._guesses)
            self._length = min(self._most, 2 * self._length if whole else max(1, self._n_right))
        self._guesses = self._guess(token)
        self._n_right = 0
        self._logits = self._read([token, *self._guesses])
        return self._logits[0]

    def _guess(self, token: int) -> list[int]:
        """What came after these last tokens when they stood there before."""
        if not self._most:
            return []
        for at in range(max(self._n_indexed, self.N_GRAM), len(self._ids)):
            self._follows[tuple(self._ids[at - self.N_GRAM : at])] = at
        self._n_indexed = len(self._ids)
        last = (*self._ids[max(0, len(self._ids) - self.N_GRAM + 1) :], token)
        begin = self._follows.get(last)
        if begin is None or min(last) < 0:
            return []
        follows = [*self._ids[begin:], token]
        guesses: list[int] = []
        for at in range(min(self._length, self._end - len(self._ids) - 1)):
            if follows[at] < 0:
                break
            guesses.append(follows[at])
            follows.append(follows[at])  # an answer that goes round may go round again
        return guesses
