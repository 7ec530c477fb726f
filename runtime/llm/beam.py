"""Beam search: log-probabilities step by step in, the winner's ids out. Pure: knows nothing about llama.cpp.

Ranking, stopping and ties are those of transformers 4.28, with which SALMONN was released (docs/reference.md §4.4).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

LogProbs = npt.NDArray[np.float64]
Step = Callable[[Sequence[int], Sequence[int]], LogProbs]
"""step(tokens, parents) -> log-probabilities [len(tokens), vocab].

Beam i continues beam parents[i] of the step before with tokens[i]; in the first step that is the prompt."""
Adjust = Callable[[LogProbs, Sequence[int]], LogProbs]
"""adjust(log_probs [vocab], ids so far) -> log_probs [vocab]: a repetition penalty, for example."""


BLOCK = 64  # log-probabilities, of which one is looked at while searching for the best


@dataclass(frozen=True)
class BeamRule:
    """How hypotheses compete: by sum_log_prob / length ** length_penalty."""

    beams: int
    max_new_tokens: int
    eos: Collection[int]
    length_penalty: float = 1.0
    count_bos: bool = True  # as 4.28, which counts its dummy BOS and no EOS; newer ones count EOS and no BOS

    def open_score(self, sum_log_prob: float, n_ids: int) -> float:
        """Score of n_ids tokens without EOS: n + 1 long with the dummy BOS, n long without."""
        return sum_log_prob / (n_ids + self.count_bos) ** self.length_penalty

    def finished_score(self, sum_log_prob: float, n_ids: int) -> float:
        """Score of n_ids tokens and an EOS: n + 1 long under both rules."""
        return sum_log_prob / (n_ids + 1) ** self.length_penalty


@dataclass(frozen=True)
class Beam:
    """One hypothesis that is still growing."""

    ids: tuple[int, ...]
    sum_log_prob: float


@dataclass
class Finished:
    """The best `beams` finished hypotheses, in the order they came."""

    beams: int
    found: list[tuple[float, tuple[int, ...]]] = field(default_factory=list[tuple[float, tuple[int, ...]]])

    @property
    def full(self) -> bool:
        """As many as there are beams."""
        return len(self.found) >= self.beams

    @property
    def worst(self) -> float:
        """Score that a newcomer has to beat."""
        return min(score for score, _ in self.found)

    def add(self, score: float, ids: tuple[int, ...]) -> None:
        """Keep it when there is room, or in the place of a worse one."""
        if self.full:
            if score <= self.worst:
                return
            self.found.remove(min(self.found, key=lambda one: one[0]))
        self.found.append((score, ids))

    def best(self) -> tuple[int, ...]:
        """Ids of the highest score; among equals the last to come."""
        return max(reversed(self.found), key=lambda one: one[0])[1] if self.found else ()


def beam_search(first: LogProbs, step: Step, rule: BeamRule, adjust: Adjust | None = None) -> Iterator[int]:
    """Yield the winner's ids, without EOS, each as soon as no other hypothesis can win without it.

    first: log-probabilities [vocab] after the prompt; -inf marks what cannot be chosen.
    """
    finished = Finished(rule.beams)
    beams = [Beam((), 0.0)]
    rows = first[np.newaxis]
    n_yielded = 0
    for n_ids in range(1, rule.max_new_tokens + 1):
        candidates = _candidates(beams, _adjusted(rows, beams, adjust), 2 * rule.beams)
        best_sum = candidates[0][0] if candidates else -np.inf
        beams, parents = _advance(beams, candidates, finished, rule)
        done = finished.full and finished.worst >= rule.open_score(best_sum, n_ids)
        if done or not beams:
            break
        settled = _common([beam.ids for beam in beams] + [ids for _, ids in finished.found])
        yield from settled[n_yielded:]
        n_yielded = max(n_yielded, len(settled))
        if n_ids < rule.max_new_tokens:
            rows = step([beam.ids[-1] for beam in beams], parents)
    else:
        for beam in beams:
            finished.add(rule.open_score(beam.sum_log_prob, len(beam.ids)), beam.ids)
    yield from finished.best()[n_yielded:]


def _adjusted(rows: LogProbs, beams: list[Beam], adjust: Adjust | None) -> LogProbs:
    if adjust is None:
        return rows
    return np.stack([adjust(row, beam.ids) for row, beam in zip(rows, beams, strict=True)])


def _candidates(beams: list[Beam], rows: LogProbs, count: int) -> list[tuple[float, int, int]]:
    """The best (sum_log_prob, parent, id), best first. Twice the beams: EOS cannot use them up."""
    sums = (rows + np.array([[beam.sum_log_prob] for beam in beams])).ravel()
    top = np.flatnonzero(sums >= _bound(sums, count))
    top = top[np.argsort(-sums[top], kind="stable")][:count]
    vocab = rows.shape[1]
    return [(float(sums[i]), int(i) // vocab, int(i) % vocab) for i in top if sums[i] > -np.inf]


def _bound(sums: LogProbs, count: int) -> float:
    """What at least `count` sums reach and few exceed: much faster to find than the best `count`."""
    n_blocks = sums.size // BLOCK
    if n_blocks < count:
        return -np.inf
    highest = sums[: n_blocks * BLOCK].reshape(n_blocks, BLOCK).max(axis=1)
    return float(np.partition(highest, -count)[-count])


def _advance(
    beams: list[Beam], candidates: list[tuple[float, int, int]], finished: Finished, rule: BeamRule
) -> tuple[list[Beam], list[int]]:
    """The next beams and their parents. An EOS counts only when it ranks among the first `beams`."""
    grown: list[Beam] = []
    parents: list[int] = []
    for rank, (sum_log_prob, parent, token) in enumerate(candidates):
        ids = beams[parent].ids
        if token in rule.eos:
            if rank < rule.beams:
                finished.add(rule.finished_score(sum_log_prob, len(ids)), ids)
            continue
        grown.append(Beam((*ids, token), sum_log_prob))
        parents.append(parent)
        if len(grown) == rule.beams:
            break
    return grown, parents


def _common(hypotheses: list[tuple[int, ...]]) -> tuple[int, ...]:
    """The longest beginning that all share."""
    shortest = min(hypotheses, key=len)
    for i, token in enumerate(shortest):
        if any(ids[i] != token for ids in hypotheses):
            return shortest[:i]
    return shortest
