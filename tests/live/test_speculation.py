"""Speculative endpointing: the same events as without, the final there when its pause is over, and its cost counted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
from auricle.models.audio import SAMPLE_RATE, Waveform
from auricle.runtime.audio.decode import read_audio
from auricle.runtime.engine import Engine, load
from auricle.runtime.events import Caption, Final, LiveEvent, SessionEnded
from auricle.runtime.live.agreement import Agreement
from auricle.runtime.live.captions import Live, LiveOptions
from auricle.runtime.live.gate import Closed, GateOptions
from auricle.runtime.live.open_segment import OpenSegment, is_due
from auricle.runtime.live.segmenter import GateProgress
from auricle.runtime.live.speculation import SegmentDecoder
from auricle.runtime.llm.sampling import Generation
from auricle.runtime.scheduler import Cancelled, EngineStream, Priority, Scheduler
from auricle.runtime.sources.source import SourceItem
from fake_microphone import FRAME, Speaker, silence
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with load() as opened:
        yield opened


@pytest.fixture(scope="module")
def clips(engine: Engine) -> list[Waveform]:
    folder = engine.bundle.path("clips")
    rows = json.loads((folder / "clips.json").read_text())
    sounds = ("audiocaption", "audio_speech_description")
    return [read_audio(folder / row["file"]) for row in rows if row["task"] not in sounds]


def without_times(events: list[LiveEvent]) -> list[LiveEvent]:
    """What is told, but not how long it took."""
    plain: list[LiveEvent] = []
    for event in events:
        if isinstance(event, Caption):
            event = replace(event, work=None)  # pyright: ignore[reportArgumentType]
        elif isinstance(event, Final):
            event = replace(event, timings=None)  # pyright: ignore[reportArgumentType]
        elif isinstance(event, SessionEnded):
            event = replace(event, speculated_s=0.0, wasted_s=0.0)
        plain.append(event)
    return plain


def run(engine: Engine, audio: Waveform, options: LiveOptions, chunk: int = FRAME) -> tuple[Live, list[LiveEvent]]:
    live = Live(engine, Speaker(audio, chunk), options)
    return live, list(live)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(
        st.tuples(st.integers(0, 3), st.floats(0.2, 0.8), st.floats(0.0, 0.8), st.floats(0.0, 0.9)),
        min_size=1,
        max_size=2,
    ),
    chunk=st.sampled_from([FRAME, 1600, 5000]),
    pad_ms=st.sampled_from([0.0, 120.0, 192.0, 200.0, 600.0]),
    min_silence_ms=st.sampled_from([160.0, 300.0, 500.0]),
    hop_ms=st.sampled_from([150.0, 350.0, 500.0]),
    settle_s=st.sampled_from([None, None, 0.5]),
    context=st.sampled_from([None, "short", "short"]),
)
def test_it_changes_nothing_that_is_told(
    engine: Engine,
    clips: list[Waveform],
    parts: list[tuple[int, float, float, float]],
    chunk: int,
    pad_ms: float,
    min_silence_ms: float,
    hop_ms: float,
    settle_s: float | None,
    context: str | None,
) -> None:
    """Clips torn apart anywhere, any pauses around what ends a segment, sound as it comes: every event, times,
    words and avg_logprob included."""
    audio = silence(0.0)
    for index, torn_at, within_s, behind_s in parts:
        clip = clips[index]
        at = round(torn_at * len(clip))
        audio = np.concatenate([audio, clip[:at], silence(within_s), clip[at:], silence(behind_s)])
    options = LiveOptions(
        gate=GateOptions(speech_pad_ms=pad_ms, min_silence_ms=min_silence_ms, max_segment_s=4.0),
        hop_ms=hop_ms,
        settle_s=settle_s,
        context=context,
    )
    _, ahead = run(engine, audio, options, chunk)
    live, plain = run(engine, audio, replace(options, speculate=False), chunk)
    assert without_times(ahead) == without_times(plain)
    assert live.speculated.seconds == 0


def test_the_final_is_there_when_the_pause_is_over(
    engine: Engine, clips: list[Waveform], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is computed once the gate has closed, nothing is told before, and nothing is computed twice."""
    source = Speaker(np.concatenate([clips[0], silence(1.0)]))
    encoded: list[tuple[int, int]] = []
    encode = engine.encode

    def noting(waveform: Waveform, short: bool | None = None) -> object:
        encoded.append((source.n_read, len(waveform)))
        return encode(waveform, short)

    monkeypatch.setattr(engine, "encode", noting)
    live = Live(engine, source, LiveOptions(hop_ms=30_000))
    told = [(event, source.n_read) for event in live]
    ((final, at),) = [(event, at) for event, at in told if isinstance(event, Final)]
    length = round((final.end_s - final.start_s) * SAMPLE_RATE)
    assert [n for _, n in encoded] == [length]
    assert encoded[0][0] < at and at / SAMPLE_RATE >= final.end_s + 0.3
    assert (live.speculated.n_used, live.speculated.n_wasted) == (1, 0)
    (balance,) = [event for event, _ in told if isinstance(event, SessionEnded)]
    assert balance.speculated_s > balance.wasted_s == 0


def test_speech_that_goes_on_makes_it_void(engine: Engine, clips: list[Waveform]) -> None:
    """A pause too short to end the sentence: dropped, counted, and the final is of the whole."""
    half = len(clips[0]) // 2
    audio = np.concatenate([clips[0][:half], silence(0.35), clips[0][half:], silence(1.0)])
    live, events = run(engine, audio, LiveOptions(hop_ms=30_000))
    finals = [event for event in events if isinstance(event, Final)]
    assert len(finals) == 1 and finals[0].end_s - finals[0].start_s > len(clips[0]) / SAMPLE_RATE
    assert live.speculated.n_wasted >= 1 and live.speculated.n_used == 1
    assert 0 < live.speculated.wasted_s < live.speculated.seconds


def test_a_caption_that_falls_into_the_pause_takes_what_is_there(engine: Engine, clips: list[Waveform]) -> None:
    audio = np.concatenate([clips[0], silence(2.0)])
    options = LiveOptions(hop_ms=100.0, gate=GateOptions(min_silence_ms=1000.0))
    live, events = run(engine, audio, options)
    captions = [event for event in events if isinstance(event, Caption)]
    free = [event for event in captions if event.work.encoders_ms == 0]
    assert len(free) >= 5 and captions[-1] is free[-1] and free[-1].end_s > free[0].end_s
    assert live.speculated.n_wasted == 0


def test_a_file_that_is_read_at_once_has_nothing_to_gain(engine: Engine, clips: list[Waveform]) -> None:
    audio = np.concatenate([clips[0], silence(1.0)])
    live = Live(engine, Speaker(audio, realtime=False))
    assert [event for event in live if isinstance(event, Final)]
    assert live.speculated.seconds == 0


def test_a_hypothesis_whose_time_was_over_is_no_final(engine: Engine, clips: list[Waveform]) -> None:
    """It is computed at the end, as it is without."""
    audio = np.concatenate([clips[0], silence(1.0)])
    live, events = run(engine, audio, LiveOptions(generation=Generation(40, max_seconds=1e-9), hop_ms=30_000))
    assert [event.finish_reason for event in events if isinstance(event, Final)] == ["time"]
    assert (live.speculated.n_used, live.speculated.n_wasted) == (0, 1)


def test_others_go_first_and_a_cancelled_one_is_dropped(engine: Engine, clips: list[Waveform]) -> None:
    """On a shared engine it is an update, its final needs no turn of its own, and who has gone gets none."""
    turns: list[Priority] = []
    scheduler = Scheduler(engine, lambda priority, _waited, _held: turns.append(priority))
    audio = np.concatenate([clips[0], silence(1.0)])
    stream = scheduler.stream()
    live = Live(engine, Speaker(audio), LiveOptions(hop_ms=30_000), stream)
    (final,) = [event for event in live if isinstance(event, Final)]
    assert turns == [Priority.UPDATE]
    gone = scheduler.stream()
    leaving = Leaving(audio, round((final.end_s + 0.1) * SAMPLE_RATE), gone)
    told: list[LiveEvent] = []
    with pytest.raises(Cancelled):
        told.extend(Live(engine, leaving, LiveOptions(hop_ms=30_000), gone))
    assert turns == [Priority.UPDATE] * 2  # it had been computed
    assert not [event for event in told if isinstance(event, Final)]


class Leaving(Speaker):
    """Somebody who is gone from a sample on."""

    def __init__(self, audio: Waveform, until: int, stream: EngineStream) -> None:
        super().__init__(audio)
        self._until = until
        self._stream = stream

    def read(self, timeout_s: float) -> list[SourceItem] | None:
        if self.n_read >= self._until:
            self._stream.cancel()
        return super().read(timeout_s)


def test_an_update_that_is_due_waits_for_what_the_pause_will_be() -> None:
    """Begun in the first 0.2 s of a pause, it would stand in the way of the one that can be the final."""
    agreement, decoder = Agreement(2), cast(SegmentDecoder, None)
    segment = OpenSegment(0, decoder, agreement, updated_at=0, shown_at=0.0)
    hop, long = SAMPLE_RATE // 2, SAMPLE_RATE
    assert not is_due(segment, GateProgress(hop - 1, True), hop)
    assert is_due(segment, GateProgress(hop, True), hop)
    assert not is_due(segment, GateProgress(hop, True, pausing=True), hop)
    assert is_due(segment, GateProgress(hop, True, Closed(0, hop, "pause"), pausing=True), hop)
    assert is_due(segment, GateProgress(long, True, pausing=True), hop)
