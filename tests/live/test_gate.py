"""The speech gate: the segments of Silero's own code, whatever the chunks, and no sample lost or doubled."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from itertools import cycle, pairwise
from pathlib import Path

import numpy as np
import pytest
from auricle.models.audio import SAMPLE_RATE, Waveform
from auricle.models.errors import InputError
from auricle.runtime.audio.decode import read_audio
from auricle.runtime.live.gate import Closed, FixedGate, Gate, GateEvent, GateOptions, Opened, SpeechGate
from auricle.runtime.live.silero import FRAME_LENGTH, SileroVad
from fake_vad import LoudnessVad
from hypothesis import given, settings
from hypothesis import strategies as st

NUMBERS = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety"
)


@pytest.fixture(scope="module")
def vad() -> SileroVad:
    return SileroVad()


def run(gate: Gate, waveform: Waveform, sizes: Iterator[int] | int = SAMPLE_RATE) -> list[GateEvent]:
    """Feed in chunks; check after each what must hold at every moment."""
    events: list[GateEvent] = []
    at = decided = cut = 0
    chunks = cycle([sizes]) if isinstance(sizes, int) else sizes
    while at < len(waveform):
        n = next(chunks)
        new = gate.step(waveform[at : at + n])
        at = min(at + n, len(waveform))
        events += new
        assert decided <= gate.decided <= at
        for event in new:  # nothing that was decided is taken back
            if isinstance(event, Closed) and event.reason == "full":
                cut = event.end
            position = event.start if isinstance(event, Opened) else event.end
            assert position <= at and (decided <= position or position == cut)
        decided = gate.decided
    events += gate.flush()
    assert gate.decided == len(waveform)
    return events


def segments(events: list[GateEvent], longest: int = 30 * SAMPLE_RATE) -> list[Closed]:
    """Every Opened has its Closed; segments are in order, whole, and not too long."""
    opened, closed = events[::2], events[1::2]
    assert [event.start for event in opened] == [event.start for event in closed]
    found: list[Closed] = []
    for event in closed:
        assert isinstance(event, Closed)
        assert event.start < event.end <= event.start + longest
        assert not found or found[-1].end <= event.start
        found.append(event)
    return found


def speech(*parts: tuple[float, float]) -> Waveform:
    """(seconds, level) after each other."""
    levels = np.concatenate([np.full(round(seconds * SAMPLE_RATE), level, np.float32) for seconds, level in parts])
    levels[::2] *= -1
    return levels


def near(position: int, seconds: float) -> bool:
    return abs(position - seconds * SAMPLE_RATE) <= FRAME_LENGTH


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (GateOptions(), [(2432, 39040), (49536, 73856), (83328, 125568), (127872, 176000)]),
        (GateOptions(speech_pad_ms=30), [(5152, 36320), (52256, 71136), (86048, 122848), (130592, 176000)]),
        (
            GateOptions(threshold=0.7, min_silence_ms=300, speech_pad_ms=30),
            [(5152, 36320), (52256, 70624), (86048, 122336), (130592, 168928)],
        ),
    ],
)
def test_as_the_authors_own_code(
    vad: SileroVad, golden: Path, options: GateOptions, expected: list[tuple[int, int]]
) -> None:
    """Computed by get_speech_timestamps of silero-vad 6.2.3, which sees the whole recording at once."""
    found = segments(run(SpeechGate(vad, options), read_audio(golden / "jfk.wav")))
    assert [(segment.start, segment.end) for segment in found] == expected


@pytest.mark.parametrize("max_segment_s", [30.0, 1.0])
def test_chunk_sizes_do_not_matter(vad: SileroVad, golden: Path, max_segment_s: float) -> None:
    waveform = read_audio(golden / "jfk.wav", max_seconds=2)
    for make in (lambda: SpeechGate(vad, GateOptions(max_segment_s=max_segment_s)), lambda: FixedGate(max_segment_s)):
        whole = run(make(), waveform, len(waveform))
        assert whole
        for size in (1, 7, 160, 1600, 48_000):
            assert run(make(), waveform, size) == whole


levels = st.sampled_from([0.0, 0.07, 0.2, 0.3])
stretches = st.lists(st.tuples(st.floats(0.01, 1.5), levels), min_size=1, max_size=8)


@settings(deadline=None, max_examples=25)
@given(stretches, st.lists(st.integers(1, 40_000), min_size=1, max_size=5), st.floats(1, 4))
def test_any_stream_in_any_chunks(parts: list[tuple[float, float]], sizes: list[int], max_segment_s: float) -> None:
    waveform = speech(*parts)
    options = GateOptions(min_silence_ms=300, speech_pad_ms=100, max_segment_s=max_segment_s)
    makes: list[Callable[[], Gate]] = [lambda: SpeechGate(LoudnessVad(), options), lambda: FixedGate(max_segment_s)]
    for make in makes:
        found = run(make(), waveform, cycle(sizes))
        assert found == run(make(), waveform, len(waveform))
        segments(found, int(max_segment_s * SAMPLE_RATE))


@settings(deadline=None, max_examples=15)
@given(stretches, st.integers(0, 20_000), stretches)
def test_a_gap_ends_everything_and_positions_move_on(
    before: list[tuple[float, float]], n_lost: int, after: list[tuple[float, float]]
) -> None:
    one, two = speech(*before), speech(*after)
    gate = SpeechGate(LoudnessVad())
    first = gate.step(one) + gate.gap(n_lost)
    resumed = len(one) + n_lost
    assert gate.decided == resumed
    second = gate.step(two) + gate.flush()
    alone = run(SpeechGate(LoudnessVad()), two)
    assert first == run(SpeechGate(LoudnessVad()), one)
    assert [(s.start - resumed, s.end - resumed) for s in segments(second)] == [
        (s.start, s.end) for s in segments(alone)
    ]
    assert not first or max(s.end for s in segments(first)) <= len(one)


@settings(deadline=None, max_examples=40)
@given(stretches, st.sampled_from([0.0, 100.0, 250.0, 600.0]), st.floats(1, 3))
def test_no_event_comes_before_the_earliest(
    parts: list[tuple[float, float]], min_speech_ms: float, max_segment_s: float
) -> None:
    """So that who waits for that many samples gets each event as soon as who does not."""
    waveform = speech(*parts)
    options = GateOptions(min_speech_ms=min_speech_ms, max_segment_s=max_segment_s)
    gates: tuple[Gate, ...] = (SpeechGate(LoudnessVad(), options), FixedGate(max_segment_s))
    for gate in gates:
        not_before = 0
        for at in range(FRAME_LENGTH, len(waveform) + 1, FRAME_LENGTH):
            not_before = max(not_before, at - FRAME_LENGTH + gate.earliest_event)
            events = gate.step(waveform[at - FRAME_LENGTH : at])
            assert not events or at >= not_before


def test_silence_waits_for_as_much_as_speech_needs() -> None:
    gate = SpeechGate(LoudnessVad(), GateOptions(min_speech_ms=250))
    assert gate.earliest_event == 8 * FRAME_LENGTH
    gate.step(speech((0.096, 0.3)))
    assert gate.earliest_event == 5 * FRAME_LENGTH
    gate.step(speech((0.2, 0.3)))
    assert gate.earliest_event == FRAME_LENGTH  # a segment is open


@settings(deadline=None, max_examples=40)
@given(stretches, st.sampled_from([0.0, 130.0, 192.0, 450.0, 700.0]), st.sampled_from([100.0, 300.0, 512.0]))
def test_what_is_expected_comes_when_the_silence_goes_on(
    parts: list[tuple[float, float]], pad_ms: float, min_silence_ms: float
) -> None:
    """At every moment, against a gate that hears nothing more."""
    waveform = speech(*parts)
    options = GateOptions(speech_pad_ms=pad_ms, min_silence_ms=min_silence_ms)
    gate = SpeechGate(LoudnessVad(), options)
    for at in range(0, len(waveform), FRAME_LENGTH):
        gate.step(waveform[at : at + FRAME_LENGTH])
        if (expected := gate.expected) is not None:
            silenced = SpeechGate(LoudnessVad(), options)
            silenced.step(waveform[: at + FRAME_LENGTH])
            assert silenced.step(np.zeros(SAMPLE_RATE, np.float32))[0] == expected
            assert expected.end <= at + FRAME_LENGTH


def test_a_pause_is_expected_to_end_a_segment_before_it_does() -> None:
    gate = SpeechGate(LoudnessVad())
    gate.step(speech((1.0, 0.5)))
    assert gate.expected is None
    gate.step(speech((0.3, 0.0)))
    assert gate.expected is not None
    (closed,) = gate.step(speech((0.4, 0.0)))
    assert isinstance(closed, Closed) and gate.expected is None
    gate.step(speech((1.0, 0.5), (0.3, 0.0)))
    assert gate.expected is not None
    gate.step(speech((0.1, 0.5)))
    assert gate.expected is None


def test_short_sounds_and_short_pauses() -> None:
    options = GateOptions(min_speech_ms=250, min_silence_ms=500, speech_pad_ms=100)
    click = speech((1, 0.0), (0.15, 0.3), (2, 0.0))
    assert run(SpeechGate(LoudnessVad(), options), click) == []
    talk = speech((1, 0.0), (1, 0.3), (0.4, 0.0), (1, 0.3), (2, 0.0))
    (segment,) = segments(run(SpeechGate(LoudnessVad(), options), talk))
    assert near(segment.start, 0.9) and near(segment.end, 3.5) and segment.reason == "pause"


def test_pads_never_overlap() -> None:
    options = GateOptions(min_silence_ms=200, speech_pad_ms=1000)
    talk = speech((0.5, 0.0), (1, 0.3), (0.5, 0.0), (1, 0.3), (0.5, 0.0))
    first, second = segments(run(SpeechGate(LoudnessVad(), options), talk))
    assert first.start == 0 and first.end <= second.start
    assert near(second.start, 1.5 + 0.2) and near(second.end, 3.2)


def test_unsure_sound_ends_nothing_but_a_pause_that_began() -> None:
    options = GateOptions(speech_pad_ms=0)
    murmur = speech((1, 0.3), (1, 0.07), (1, 0.3), (0.1, 0.0), (1, 0.07), (1, 0.3))
    first, second = segments(run(SpeechGate(LoudnessVad(), options), murmur))
    assert near(first.end, 3.0) and near(second.start, 4.1)


def test_a_full_segment_goes_on_in_the_next() -> None:
    """Cut in the only short pause of the last 2 s; what comes then needs no minimum length."""
    talk = speech((4.2, 0.3), (0.25, 0.001), (0.75, 0.3), (2, 0.0))
    found = segments(run(SpeechGate(LoudnessVad(), GateOptions(max_segment_s=5, speech_pad_ms=0)), talk))
    assert [segment.reason for segment in found] == ["full", "pause"]
    assert 4.2 * SAMPLE_RATE < found[0].end < 4.45 * SAMPLE_RATE
    assert found[1].start == found[0].end and near(found[1].end, 5.2)


def test_full_in_a_pause_and_a_last_short_word() -> None:
    """The pause is running when the segment is full: no empty segment follows, but a word of 100 ms does."""
    options = GateOptions(max_segment_s=5, speech_pad_ms=100)
    silent = speech((4.65, 0.3), (3, 0.0))
    (only,) = segments(run(SpeechGate(LoudnessVad(), options), silent))
    assert only.reason == "full" and 4.65 * SAMPLE_RATE < only.end <= 5 * SAMPLE_RATE
    word = speech((4.65, 0.3), (0.4, 0.0), (0.1, 0.3), (3, 0.0))
    first, second = segments(run(SpeechGate(LoudnessVad(), options), word))
    assert first.end <= second.start and near(second.start, 4.95) and near(second.end, 5.25)


def test_decided_lets_old_silence_go() -> None:
    gate = SpeechGate(LoudnessVad(), GateOptions(speech_pad_ms=200))
    gate.step(speech((60, 0.0)))
    assert near(gate.decided, 59.8)
    gate.step(speech((0.1, 0.3)))
    assert near(gate.decided, 59.8)  # a segment may start here
    gate.step(speech((1, 0.3)))
    assert near(gate.decided, 61.1)  # it does, and all of it is speech


def test_fixed_segments_skip_digital_silence() -> None:
    sound = speech((1, 0.0))
    music = np.random.default_rng(0).normal(0, 0.01, 7 * SAMPLE_RATE).astype(np.float32)
    found = segments(run(FixedGate(3), np.concatenate([sound, music, sound, sound])))
    assert [(s.start, s.end, s.reason) for s in found] == [
        (16_000, 64_000, "full"),
        (64_000, 112_000, "full"),
        (112_000, 160_000, "full"),
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"threshold": 1.5}, "threshold 1.5"),
        ({"min_silence_ms": -1}, "min_silence_ms -1"),
        ({"speech_pad_ms": float("nan")}, "speech_pad_ms nan"),
        ({"max_segment_s": 31}, "max_segment_s 31 must be 1 to 30 s"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        GateOptions(**options)
    if "max_segment_s" in options:
        with pytest.raises(InputError, match=said):
            FixedGate(options["max_segment_s"])


@pytest.fixture(scope="module")
def count(tmp_path_factory: pytest.TempPathFactory) -> tuple[Waveform, list[tuple[int, int]]]:
    """A list of numbers spoken without a pause above 120 ms, and where each word lies."""
    if not shutil.which("espeak-ng"):
        pytest.skip("espeak-ng is not installed")
    path = tmp_path_factory.mktemp("numbers") / "numbers.wav"
    subprocess.run(["espeak-ng", "-g", "50", "-w", str(path), NUMBERS], check=True)
    spoken = read_audio(path)
    loud = np.flatnonzero(np.abs(spoken) > 0.003)
    breaks = np.flatnonzero(np.diff(loud) > 0.3 * SAMPLE_RATE)
    starts, ends = loud[np.concatenate([[0], breaks + 1])], loud[np.concatenate([breaks, [len(loud) - 1]])]
    assert len(starts) == len(NUMBERS.split())
    rng = np.random.default_rng(0)
    parts: list[Waveform] = []
    words: list[tuple[int, int]] = []
    at = 0
    for start, end in zip(starts, ends, strict=True):
        pause = np.zeros(rng.integers(480, 1920), np.float32)
        parts += [spoken[start:end], pause]
        words.append((at, at + end - start))
        at += end - start + len(pause)
    waveform = np.concatenate([*parts, np.zeros(SAMPLE_RATE, np.float32)])
    return waveform + rng.normal(0, 1e-4, len(waveform)).astype(np.float32), words


@pytest.mark.parametrize("max_segment_s", [5.0, 10.0])
def test_no_word_is_lost_or_doubled(
    vad: SileroVad, count: tuple[Waveform, list[tuple[int, int]]], max_segment_s: float
) -> None:
    waveform, words = count
    found = segments(run(SpeechGate(vad, GateOptions(max_segment_s=max_segment_s)), waveform, 1600))
    assert len(found) > len(waveform) / SAMPLE_RATE / max_segment_s
    assert [segment.reason for segment in found[:-1]] == ["full"] * (len(found) - 1)
    assert all(one.end == two.start for one, two in pairwise(found))
    joined = np.concatenate([waveform[segment.start : segment.end] for segment in found])
    assert np.array_equal(joined, waveform[found[0].start : found[-1].end])
    for start, end in words:
        assert sum(segment.start <= start and end <= segment.end for segment in found) == 1, (start, end)
