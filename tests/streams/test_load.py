"""The load of live streams: how many fit, and how rare their updates become."""

from __future__ import annotations

import pytest
from auricle.runtime.stream_load import LIMIT, LONGEST_HOP_SECONDS, CostByLength, Load, RunningMean


def load_of(update_s: float, final_s: float, n_speaking: int = 0) -> Load:
    load = Load()
    load.update.add(update_s, 2.0)
    load.add_final(final_s, 4.0)
    for stream in range(n_speaking):
        load.begin(stream)
    return load


def test_a_mean_follows_what_is_new() -> None:
    mean = RunningMean()
    assert mean.value is None
    for sample in (1.0, 3.0):
        mean.add(sample)
    assert mean.value == 2.0
    for _ in range(300):
        mean.add(5.0)
    assert mean.value == pytest.approx(5.0, abs=0.01)


def test_the_load_is_that_of_people_who_speak_half_of_the_time_with_rare_updates() -> None:
    """A segment of 4 s: its update at 2 s, and the final in the place of that at 4 s."""
    assert load_of(0.2, 0.4).of(3) == pytest.approx(3 * 0.5 * (0.4 + 0.2) / 4)
    assert Load().of(100) == 0.0


def test_updates_are_reckoned_as_long_as_they_are_when_they_are_rare() -> None:
    """However often they come now: in 9 s at 2, 4, 6 and 8 s; in 1.5 s there is none. So many finals as there are."""
    load = Load()
    for length_s in (0.5, 1.0, 1.5, 2.0):
        load.update.add(0.05 + 0.1 * length_s, length_s)
    load.add_final(0.95, 9.0)
    load.add_final(0.2, 1.5)
    updates_s = sum(0.05 + 0.1 * length_s for length_s in (2, 4, 6, 8))
    assert load.of(1) == pytest.approx(0.5 * (updates_s + 0.95 + 0.2) / (9.0 + 1.5))


@pytest.mark.parametrize(
    ("lengths", "seconds", "at_2"),
    [((1.0, 3.0), (0.3, 0.1), 0.2), ((1.0, 3.0), (0.0, 6.0), 3.0), ((3.0, 3.0), (0.2, 0.4), 0.3)],
    ids=["more sound took less", "more than in proportion", "one length"],
)
def test_a_line_says_nothing_absurd(lengths: tuple[float, ...], seconds: tuple[float, ...], at_2: float) -> None:
    cost = CostByLength()
    assert cost.at(2.0) is None is cost.mean
    for length_s, took_s in zip(lengths, seconds, strict=True):
        cost.add(took_s, length_s)
    assert cost.at(2.0) == pytest.approx(at_2)
    for length_s in (0.1, 1.0, 10.0, 30.0):
        at = cost.at(length_s)
        assert at is not None and 0 <= at <= seconds[1] * 30 and at <= (cost.at(2 * length_s) or 0.0)


def test_streams_are_admitted_up_to_the_limit_and_the_first_always() -> None:
    load = load_of(0.4, 0.4)  # 0.1 each
    assert [n for n in range(12) if load.admits(n)] == list(range(8))
    assert load_of(60.0, 60.0).admits(0) and not load_of(60.0, 60.0).admits(1)
    assert Load().admits(1000)


def test_the_hop_is_as_asked_for_while_there_is_time() -> None:
    assert Load().hop_s(0.5) == 0.5
    assert load_of(0.03, 0.04, n_speaking=1).hop_s(0.5) == 0.5
    assert load_of(10.0, 10.0).hop_s(0.5) == 0.5


@pytest.mark.parametrize("n_speaking", [6, 8, 10])
def test_the_hop_grows_until_the_updates_of_all_fit(n_speaking: int) -> None:
    load = load_of(0.08, 0.1, n_speaking)
    hop_s = load.hop_s(0.5)
    assert 0.5 < hop_s < LONGEST_HOP_SECONDS
    assert n_speaking * (0.1 / 4 + 0.08 / hop_s) == pytest.approx(LIMIT)


@pytest.mark.parametrize(("final_s", "nominal_s"), [(0.1, 0.5), (9.0, 0.5), (9.0, 5.0)])
def test_the_hop_never_grows_beyond_the_longest(final_s: float, nominal_s: float) -> None:
    assert load_of(1.0, final_s, n_speaking=50).hop_s(nominal_s) == max(nominal_s, LONGEST_HOP_SECONDS)


def test_who_has_spoken_counts_no_more() -> None:
    load = load_of(0.2, 0.1, n_speaking=2)
    busy_s = load.hop_s(0.1)
    load.end(1)
    load.end(1)
    assert load.hop_s(0.1) < busy_s
    load.end(0)
    assert load.hop_s(0.1) == 0.1
