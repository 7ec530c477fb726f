"""Choosing one token: what is forbidden stays out, the same seed says the same, options refuse nonsense."""

from __future__ import annotations

import numpy as np
import pytest
from auricle.models.errors import InputError
from auricle.runtime.llm.sampling import Generation, forbid, log_softmax, nucleus, penalize, sample
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

LOGITS = arrays.arrays(np.float32, st.integers(2, 40), elements=st.floats(-30, 30, width=32))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"beams": 0}, "beams=0"),
        ({"beams": 65}, "between 1 and 64"),
        ({"temperature": -0.1}, "temperature=-0.1"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"top_p": 1.1}, "top_p=1.1"),
        ({"seed": -1}, "seed=-1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty=0.0"),
        ({"length_penalty": float("inf")}, "length_penalty=inf"),
        ({"beams": 4, "temperature": 0.7}, "beams 1"),
    ],
)
def test_impossible_options_are_refused_by_name(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Generation(**wrong)  # pyright: ignore[reportArgumentType]


def test_the_random_pad_row_and_specials_cannot_be_chosen() -> None:
    """The reference has a 32001st row of random weights: here it is the likeliest, before BOS and UNK."""
    logits = np.zeros(32001, np.float32)
    logits[[32000, 1, 0, 77]] = 9, 8, 7, 6
    allowed = forbid(logits, [0, 1], 32000)
    assert allowed.shape == (32000,)
    assert allowed.argmax() == 77
    assert allowed.base is logits  # 200 KB a token are not copied
    assert forbid(np.stack([logits] * 3), [0, 1], 32000).argmax(axis=-1).tolist() == [77] * 3


def test_repetition_penalty_makes_any_score_smaller() -> None:
    scores = np.array([2.0, -2.0, 3.0])
    assert penalize(scores, [0, 1, 1, 1], 2.0).tolist() == [1.0, -4.0, 3.0]
    assert penalize(scores, [], 2.0) is scores
    assert penalize(scores, [0], 1.0) is scores


@settings(deadline=None)
@given(LOGITS)
def test_log_softmax_sums_to_one(logits: np.ndarray) -> None:
    probabilities = np.exp(log_softmax(logits))
    assert probabilities.sum() == pytest.approx(1)
    assert (np.diff(probabilities[np.argsort(logits)]) >= 0).all()


def test_nucleus_keeps_the_fewest_that_reach_top_p() -> None:
    probabilities = np.array([0.1, 0.5, 0.15, 0.25])
    for top_p, ids, kept in (
        (0.5, [1], [1.0]),
        (0.51, [1, 3], [2 / 3, 1 / 3]),
        (0.8, [1, 3, 2], [0.5 / 0.9, 0.25 / 0.9, 0.15 / 0.9]),
        (1.0, [1, 3, 2, 0], [0.5, 0.25, 0.15, 0.1]),
        (1e-9, [1], [1.0]),
    ):
        found = nucleus(probabilities, top_p)
        assert found[0].tolist() == ids
        assert found[1] == pytest.approx(kept)


@settings(deadline=None)
@given(LOGITS, st.floats(0.01, 0.99))
def test_nucleus_is_what_sorting_everything_gives(logits: np.ndarray, top_p: float) -> None:
    probabilities = np.exp(log_softmax(logits))
    order = np.argsort(-probabilities, kind="stable")
    reached = np.cumsum(probabilities[order])
    ids, kept = nucleus(probabilities, top_p)
    assert ids.tolist() == order[: len(ids)].tolist()
    assert reached[len(ids) - 1] >= top_p - 1e-9
    assert len(ids) == 1 or reached[len(ids) - 2] < top_p + 1e-9
    assert kept.sum() == pytest.approx(1)


@settings(deadline=None)
@given(LOGITS, st.floats(0.01, 1), st.floats(1e-3, 5), st.integers(0, 2**32))
def test_the_same_seed_draws_the_same_and_never_what_is_forbidden(
    logits: np.ndarray, top_p: float, temperature: float, seed: int
) -> None:
    generation = Generation(temperature=temperature, top_p=top_p, seed=seed)
    allowed = forbid(logits, [0], len(logits))
    drawn = [sample(allowed, generation, np.random.default_rng(seed)) for _ in range(2)]
    assert drawn[0] == drawn[1] != 0


def test_a_tiny_temperature_is_greedy_and_1_is_the_distribution() -> None:
    logits = np.log(np.array([0.2, 0.5, 0.3]))
    rng = np.random.default_rng(0)
    assert {sample(logits, Generation(temperature=1e-4), rng) for _ in range(50)} == {1}
    drawn = [sample(logits, Generation(temperature=1.0, top_p=1.0), rng) for _ in range(4000)]
    assert np.bincount(drawn) / 4000 == pytest.approx([0.2, 0.5, 0.3], abs=0.03)


def test_temperature_0_takes_the_likeliest() -> None:
    rng = np.random.default_rng(0)
    assert sample(np.array([1.0, 3.0, 2.0]), Generation(), rng) == 1
