"""Beam search as an algorithm, on scorers small enough to work out by hand. Numbers are log-probabilities."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from auricle.runtime.llm.beam import BeamRule, LogProbs, beam_search
from auricle.runtime.llm.sampling import log_softmax, penalize
from hypothesis import given, settings
from hypothesis import strategies as st

EOS = 2
Row = Callable[[tuple[int, ...]], LogProbs]


def table(rows: Mapping[tuple[int, ...], Mapping[int, float]], vocab: int = 10) -> Row:
    """A scorer that knows what follows each beginning; what it does not list is impossible."""

    def row(ids: tuple[int, ...]) -> LogProbs:
        scores = np.full(vocab, -np.inf)
        for token, score in rows.get(ids, {}).items():
            scores[token] = score
        return scores

    return row


class Search:
    """Runs a scorer, and remembers the hypotheses of each step."""

    def __init__(self, row: Row) -> None:
        self.row, self.n_steps = row, 0
        self.beams: list[tuple[int, ...]] = [()]

    def step(self, tokens: Sequence[int], parents: Sequence[int]) -> LogProbs:
        self.n_steps += 1
        self.beams = [(*self.beams[parent], token) for token, parent in zip(tokens, parents, strict=True)]
        return np.stack([self.row(ids) for ids in self.beams])

    def run(self, rule: BeamRule) -> list[int]:
        return list(beam_search(self.row(()), self.step, rule))


FINISHED_OR_LONGER = table(
    {
        (): {5: -0.5, 6: -1.0},
        (5,): {EOS: -1.5, 7: -9.0},  # 5, EOS: -2.0
        (6,): {7: -1.3},
        (6, 7): {8: -1.3},  # 6, 7, 8: -3.6, still open at the end
        (5, 7): {8: -9.0},
    }
)


def test_the_dummy_bos_counts_as_one_token() -> None:
    """The finished one has -2.0 / 2 either way, the open one -3.6 / (3 + 1) with BOS, -3.6 / 3 without."""
    with_bos = BeamRule(2, 3, {EOS}, count_bos=True)
    without = BeamRule(2, 3, {EOS}, count_bos=False)
    assert Search(FINISHED_OR_LONGER).run(with_bos) == [6, 7, 8]
    assert Search(FINISHED_OR_LONGER).run(without) == [5]


def test_length_penalty_0_compares_sums() -> None:
    assert Search(FINISHED_OR_LONGER).run(BeamRule(2, 3, {EOS}, length_penalty=0.0)) == [5]


def test_eos_ranked_beyond_the_beams_is_ignored() -> None:
    """EOS is third at first: two beams do not finish with it, though with -1.2 / 1 it would win."""
    row = table({(): {5: -1.0, 6: -1.1, EOS: -1.2}, (5,): {7: -5.0}, (6,): {7: -6.0}})
    assert Search(row).run(BeamRule(2, 2, {EOS})) == [5, 7]
    assert Search(row).run(BeamRule(3, 2, {EOS})) == []


def test_a_beam_that_looked_worse_at_first_wins() -> None:
    row = table({(): {5: -0.6, 6: -0.9}, (5,): {7: -2.0, 8: -2.1}, (6,): {9: -0.1}})
    assert Search(row).run(BeamRule(1, 2, {EOS})) == [5, 7]
    assert Search(row).run(BeamRule(2, 2, {EOS})) == [6, 9]


def test_stops_when_no_open_beam_can_beat_the_worst_finished_one() -> None:
    """The second tokens finish two, -1.1 / 2 and -1.3 / 2, but -1.1 / 3 is still better than the worse.

    After the third, the best is -9 / 4.
    """
    row = table(
        {
            (): {5: -1.0, 6: -1.2},
            (5,): {EOS: -0.1, 7: -7.0},
            (6,): {EOS: -0.1, 7: -7.1},
            (5, 7): {8: -1.0},
            (6, 7): {8: -1.0},
            (5, 7, 8): {8: -1.0},
            (6, 7, 8): {8: -1.0},
        }
    )
    search = Search(row)
    assert search.run(BeamRule(2, 200, {EOS})) == [5]
    assert search.n_steps == 2


def test_one_beam_is_greedy_but_scores_where_it_stops() -> None:
    row = table({(): {5: -0.1, 6: -3.0}, (5,): {EOS: -0.1, 7: -3.0}})
    assert Search(row).run(BeamRule(1, 5, {EOS})) == [5]


def test_eos_at_once_is_an_empty_answer() -> None:
    assert Search(table({(): {EOS: -0.1}})).run(BeamRule(4, 5, {EOS})) == []


def test_the_last_step_is_not_computed() -> None:
    """Nobody reads what would follow the last allowed token."""
    search = Search(random_scorer(1, 20, 1.0, -50.0))
    assert len(search.run(BeamRule(3, 6, {EOS}))) == 6
    assert search.n_steps == 5


def test_ids_are_said_as_soon_as_all_hypotheses_agree() -> None:
    search = Search(table({(): {5: -0.1}, (5,): {6: -0.1}, (5, 6): {7: -0.7, 8: -0.8}, (5, 6, 7): {9: -1.0}}))
    said = beam_search(search.row(()), search.step, BeamRule(2, 4, {EOS}))
    assert [(next(said), search.n_steps) for _ in range(4)] == [(5, 0), (6, 1), (7, 3), (9, 3)]


def test_repetition_penalty_acts_on_log_probabilities() -> None:
    row = table({(): {5: -0.1, 6: -1.0}, (5,): {5: -0.2, 6: -0.3}, (6,): {5: -1.0}})
    search = Search(row)
    ids = beam_search(search.row(()), search.step, BeamRule(1, 2, {EOS}), lambda s, ids: penalize(s, ids, 2.0))
    assert list(ids) == [5, 6]


def random_scorer(seed: int, vocab: int, sharpness: float, eos_bonus: float) -> Row:
    """The same log-probabilities for the same ids, whoever asks."""

    def row(ids: tuple[int, ...]) -> LogProbs:
        logits = np.random.default_rng([seed, *ids]).normal(size=vocab) * sharpness
        logits[EOS] += eos_bonus
        return log_softmax(logits)

    return row


def reference(row: Row, beams: int, n: int, length_penalty: float) -> tuple[int, ...]:
    """transformers 4.28's rule the long way: every continuation sorted, lists instead of arrays."""
    alive: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    done: list[tuple[float, tuple[int, ...]]] = []
    for length in range(1, n + 1):
        every = [(s + p, (*ids, t)) for s, ids in alive for t, p in enumerate(row(ids))]
        best = sorted(every, key=lambda one: -one[0])[: 2 * beams]
        for rank, (score, ids) in enumerate(best):
            if ids[-1] == EOS and rank < beams and sum(i[-1] != EOS for _, i in best[:rank]) < beams:
                done = sorted([*done, (score / length**length_penalty, ids[:-1])])[-beams:]
        alive = [one for one in best if one[1][-1] != EOS][:beams]
        if len(done) == beams and done[0][0] >= best[0][0] / (length + 1) ** length_penalty:
            return done[-1][1]
    done += [(score / (n + 1) ** length_penalty, ids) for score, ids in alive]
    return max(done)[1]


@settings(deadline=None)
@given(
    seed=st.integers(0, 10_000),
    beams=st.integers(1, 5),
    n=st.integers(1, 10),
    length_penalty=st.sampled_from([0.0, 0.6, 1.0, 2.0, -0.5]),
    sharpness=st.sampled_from([0.5, 1.0, 3.0]),
    eos_bonus=st.sampled_from([-2.0, 1.0, 3.0]),
    vocab=st.sampled_from([12, 700]),
)
def test_random_scorers_agree_with_the_rule_written_out(
    seed: int, beams: int, n: int, length_penalty: float, sharpness: float, eos_bonus: float, vocab: int
) -> None:
    row = random_scorer(seed, vocab, sharpness, eos_bonus)
    found = Search(row).run(BeamRule(beams, n, {EOS}, length_penalty))
    assert tuple(found) == reference(row, beams, n, length_penalty)


@pytest.mark.parametrize("count_bos", [True, False])
def test_a_wide_search_finds_the_best_of_all(count_bos: bool) -> None:
    """With a beam for every sequence it is an exhaustive search."""
    row = random_scorer(3, 6, 1.0, -50.0)
    found = Search(row).run(BeamRule(60, 3, {EOS}, count_bos=count_bos))
    every = [(a, b, c) for a in range(6) for b in range(6) for c in range(6) if EOS not in (a, b, c)]
    assert tuple(found) == max(every, key=lambda ids: sum(row(ids[:i])[ids[i]] for i in range(3)))
