"""The load of live streams: how many fit, and how rare their updates become."""

from __future__ import annotations

import pytest
from auricle.runtime.stream_load import LIMIT, LONGEST_HOP_SECONDS, Load, RunningMean


def load_of(update_s: float, final_s: float, n_speaking: int = 0) -> Load:
    load = Load()
    load.update.add(update_s)
    load.final.add(final_s)
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
    """Each second half a stream speaks: a quarter of a final, half an update."""
    assert load_of(0.2, 0.4).of(3) == pytest.approx(3 * 0.5 * (0.4 / 4 + 0.2 / 2))
    assert Load().of(100) == 0.0


def test_streams_are_admitted_up_to_the_limit_and_the_first_always() -> None:
    load = load_of(0.2, 0.4)  # 0.1 each
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
