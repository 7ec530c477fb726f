"""Long clips are cut in pauses, and no sample is lost or heard twice."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from auricle.models.audio import SAMPLE_RATE, Waveform, synthetic_clip
from auricle.runtime.audio.decode import read_audio
from auricle.runtime.audio.split import Segment, split_at_pauses
from hypothesis import given, settings
from hypothesis import strategies as st

JFK = Path(__file__).parents[1] / "golden" / "jfk.wav"


def noise(seed: int, n: int, gain: float) -> Waveform:
    return (gain * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


def bursts(seed: int, seconds: float, background: float = 0.0) -> tuple[Waveform, list[tuple[float, float]]]:
    """Speech-like bursts of 0.3 to 2.5 s between pauses of 0.25 to 0.8 s, and where the pauses are."""
    rng = np.random.default_rng(seed)
    pieces: list[Waveform] = []
    pauses: list[tuple[float, float]] = []
    at = 0.0
    while at < seconds:
        for lengths, gain in (((0.3, 2.5), 0.2), ((0.25, 0.8), background)):
            n = round(rng.uniform(*lengths) * SAMPLE_RATE)
            pieces.append(noise(int(rng.integers(1 << 30)), n, gain * rng.uniform(0.5, 1)))
            if gain == background:
                pauses.append((at, at + n / SAMPLE_RATE))
            at += n / SAMPLE_RATE
    return np.concatenate(pieces), pauses


def whole(segments: list[Segment], waveform: Waveform, max_seconds: float) -> None:
    """The promises that hold for any input."""
    np.testing.assert_array_equal(np.concatenate([s.waveform for s in segments]), waveform)
    assert all(0 < len(s.waveform) <= max_seconds * SAMPLE_RATE for s in segments)
    starts = np.cumsum([0, *(len(s.waveform) for s in segments)]) / SAMPLE_RATE
    np.testing.assert_allclose([s.start_s for s in segments], starts[:-1], rtol=0, atol=1e-9)
    np.testing.assert_allclose([s.end_s for s in segments], starts[1:], rtol=0, atol=1e-9)
    assert [s.last for s in segments] == [False] * (len(segments) - 1) + [True]
    if len(segments) > 1:
        assert min(len(s.waveform) for s in segments) >= int(0.1 * int(max_seconds * SAMPLE_RATE))


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 20 * SAMPLE_RATE),
    max_seconds=st.sampled_from([1.0, 1.01, 2.5, 4.0, 10.0, 30.0]),
    seed=st.integers(0, 99),
    gain=st.sampled_from([0.0, 1e-5, 0.1]),
)
def test_every_sample_once_and_no_segment_too_long(n: int, max_seconds: float, seed: int, gain: float) -> None:
    waveform = noise(seed, n, gain)
    segments = list(split_at_pauses(waveform, max_seconds))
    whole(segments, waveform, max_seconds)
    if n <= max_seconds * SAMPLE_RATE:
        assert len(segments) == 1
    assert n < 100 or all(s.silent == (gain < 1e-4) for s in segments)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), size=st.integers(100, 90_000), max_seconds=st.sampled_from([5.0, 10.0]))
def test_chunks_change_nothing(seed: int, size: int, max_seconds: float) -> None:
    waveform, _ = bursts(seed, 40)
    chunks = (waveform[i : i + size] for i in range(0, len(waveform), size))
    streamed = list(split_at_pauses(chunks, max_seconds))
    at_once = list(split_at_pauses(waveform, max_seconds))
    assert [s.start_s for s in streamed] == [s.start_s for s in at_once]
    whole(streamed, waveform, max_seconds)


@pytest.mark.parametrize("background", [0.0, 0.005, 0.02])
@pytest.mark.parametrize("max_seconds", [10.0, 30.0])
@pytest.mark.parametrize("seed", range(5))
def test_cuts_lie_inside_pauses(background: float, max_seconds: float, seed: int) -> None:
    waveform, pauses = bursts(seed, 150, background)
    segments = list(split_at_pauses(waveform + np.float32(0.05), max_seconds))
    assert len(segments) >= 150 / max_seconds
    for segment in segments[1:]:
        inside = [min(segment.start_s - begin, end - segment.start_s) for begin, end in pauses]
        assert max(inside) > 0.05


@pytest.mark.parametrize("pause_s", [0.15, 0.2, 0.3])
def test_even_a_short_pause_is_found_between_unequal_neighbours(pause_s: float) -> None:
    waveform = noise(0, 20 * SAMPLE_RATE, 0.2)
    waveform[8 * SAMPLE_RATE :] *= 0.1
    begin, end = 8 * SAMPLE_RATE, round((8 + pause_s) * SAMPLE_RATE)
    waveform[begin:end] = 0
    cut = next(split_at_pauses(waveform, 10.0)).end_s
    assert 8 < cut < 8 + pause_s


def test_the_longest_pause_wins() -> None:
    waveform = noise(0, 12 * SAMPLE_RATE, 0.2)
    for begin, length in ((6.5, 0.3), (8.0, 0.9), (9.3, 0.4)):
        waveform[round(begin * SAMPLE_RATE) : round((begin + length) * SAMPLE_RATE)] *= 0.001
    assert next(split_at_pauses(waveform, 10.0)).end_s == pytest.approx(8.45, abs=0.1)


def test_a_little_too_long_leaves_no_tiny_tail() -> None:
    for extra in (1, 100, 8000, 20_000):
        segments = list(split_at_pauses(synthetic_clip(3, 10.0 + extra / SAMPLE_RATE), 10.0))
        assert len(segments) == 2 and len(segments[1].waveform) >= SAMPLE_RATE


def test_a_real_clip_that_fits_is_untouched_and_a_cut_falls_in_its_pauses() -> None:
    waveform = read_audio(JFK)
    assert [len(s.waveform) for s in split_at_pauses(waveform)] == [len(waveform)]
    for segment in list(split_at_pauses(waveform, 5.0))[1:]:
        middle = round(segment.start_s * SAMPLE_RATE)
        around = waveform[middle - 480 : middle + 480]
        assert np.sqrt(np.mean(np.square(around))) < 0.1 * np.sqrt(np.mean(np.square(waveform)))


def test_silent_segments_are_marked() -> None:
    waveform = np.concatenate([noise(0, 9 * SAMPLE_RATE, 0.1), np.zeros(40 * SAMPLE_RATE, np.float32)])
    flags = [s.silent for s in split_at_pauses(waveform, 10.0)]
    assert flags[0] is False and all(flags[2:]) and len(flags) >= 5


def test_nothing_in_nothing_out_and_a_window_too_small() -> None:
    assert list(split_at_pauses(np.zeros(0, np.float32))) == []
    assert list(split_at_pauses(iter([]))) == []
    for wrong in (0.0, -1.0, 0.99, float("nan")):
        with pytest.raises(ValueError, match="max_seconds"):
            list(split_at_pauses(np.zeros(10, np.float32), wrong))


def test_ten_minutes_in_bounded_memory() -> None:
    def chunks() -> Iterator[Waveform]:
        for i in range(600):
            yield noise(i, SAMPLE_RATE, 0.1)

    tracemalloc.start()
    n = sum(len(segment.waveform) for segment in split_at_pauses(chunks()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n == 600 * SAMPLE_RATE and peak < 20_000_000
