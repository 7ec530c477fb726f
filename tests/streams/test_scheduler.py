"""The scheduler: who goes first, who is withdrawn, and that no stream notices the others."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from auricle.models.audio import SAMPLE_RATE, Waveform
from auricle.models.errors import InputError
from auricle.runtime.audio.decode import read_audio
from auricle.runtime.engine import Engine, EngineOptions, load
from auricle.runtime.events import Caption, Final, KeywordsRead, LiveEvent, SpeechStarted
from auricle.runtime.keywords import Keywords
from auricle.runtime.live.captions import Live, LiveOptions, captions
from auricle.runtime.llm.options import LlmOptions
from auricle.runtime.scheduler import Cancelled, EngineStream, Priority, Scheduler
from auricle.runtime.sources.playback import FilePlayback
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .live_sessions import WAIT, Session, until

FINAL, UPDATE, BATCH = Priority


class FakeLlm:
    """What a turn sets."""

    def __init__(self) -> None:
        self.lora_scale = 1.0
        self.before_pass: Callable[[], None] | None = None

    def share_cores(self, n_sessions: int) -> None:
        assert n_sessions == 1

    def set_lora_scale(self, scale: float) -> None:
        if scale > 9:
            raise InputError("no adapter")
        self.lora_scale = scale


def fake_engine() -> Engine:
    lanes: list[Any] = [SimpleNamespace(keywords=(), llm=FakeLlm()) for _ in range(3)]
    lanes[0].lanes = lambda n: tuple(lanes[:n])
    return cast(Engine, lanes[0])


def fake_scheduler() -> Scheduler:
    return Scheduler(fake_engine())


class Asking:
    """A thread that wants one turn."""

    def __init__(self, stream: EngineStream, note: Callable[[], object] = lambda: None, **asked: Any) -> None:
        self._stream = stream
        self._note = note
        self._asked = asked
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            with self._stream.turn(**self._asked):
                self._note()
        except Exception as error:
            self.error = error

    def join(self) -> None:
        self.thread.join(WAIT)
        assert not self.thread.is_alive()


def test_finals_go_first_then_the_oldest_caption_then_files() -> None:
    scheduler = fake_scheduler()
    order: list[str] = []
    wishes = {
        "file": (BATCH, 1.0),
        "caption": (UPDATE, 5.0),
        "older caption": (UPDATE, 4.0),
        "final": (FINAL, 9.0),
        "older final": (FINAL, 8.0),
        "older file": (BATCH, 0.0),
    }
    with scheduler.stream().turn(BATCH):
        asking = [
            Asking(scheduler.stream(), lambda name=name: order.append(name), priority=priority, waiting_since=since)
            for name, (priority, since) in wishes.items()
        ]
        until(lambda: scheduler.waiting().total() == len(wishes))
        assert scheduler.waiting() == {FINAL: 2, UPDATE: 2, BATCH: 2}
    for each in asking:
        each.join()
    assert order == ["older final", "final", "older caption", "caption", "older file", "file"]


def test_an_update_whose_segment_has_ended_goes_before_other_updates() -> None:
    scheduler = fake_scheduler()
    order: list[str] = []
    ended = threading.Event()
    with scheduler.stream().turn(FINAL):
        first = Asking(scheduler.stream(), lambda: order.append("update"), priority=UPDATE, waiting_since=1.0)
        other = Asking(
            scheduler.stream(),
            lambda: order.append("final"),
            priority=UPDATE,
            waiting_since=2.0,
            promote=ended.is_set,
        )
        until(lambda: scheduler.waiting()[UPDATE] == 2)
        ended.set()
        until(lambda: scheduler.waiting()[FINAL] == 1)
    first.join()
    other.join()
    assert order == ["final", "update"]


def test_a_cancelled_stream_is_withdrawn_and_the_others_go_on() -> None:
    scheduler = fake_scheduler()
    gone, stays = scheduler.stream(), scheduler.stream()
    with scheduler.stream().turn(FINAL):
        withdrawn = Asking(gone, priority=FINAL)
        waiting = Asking(stays, priority=BATCH)
        until(lambda: scheduler.waiting().total() == 2)
        gone.cancel()
        withdrawn.join()  # while the engine is still held
        assert isinstance(withdrawn.error, Cancelled)
        assert scheduler.waiting() == {BATCH: 1}
    waiting.join()
    assert waiting.error is None
    with pytest.raises(Cancelled), gone.turn(FINAL):
        pass


def test_closing_ends_every_stream() -> None:
    scheduler = fake_scheduler()
    with scheduler.stream().turn(FINAL):
        waiting = Asking(scheduler.stream(), priority=FINAL)
        until(lambda: scheduler.waiting().total() == 1)
        scheduler.close()
        waiting.join()
    assert isinstance(waiting.error, Cancelled)
    with pytest.raises(Cancelled, match="stops"), scheduler.stream().turn(FINAL):
        pass


def test_keywords_and_scale_are_those_of_the_stream() -> None:
    scheduler = fake_scheduler()
    engine = cast(Any, scheduler.engine)
    one = scheduler.stream()
    one.keywords = ("lamp",)
    with one.turn(UPDATE):
        assert engine.keywords == ("lamp",)
        engine.keywords = ("radio",)
        engine.llm.lora_scale = 0.5
        other = scheduler.stream()
    with other.turn(UPDATE):
        assert engine.keywords == ()
        assert engine.llm.lora_scale == 1.0
    with one.turn(FINAL):
        assert engine.keywords == ("radio",)
        assert engine.llm.lora_scale == 0.5


def test_what_the_bundle_cannot_use_fails_alone() -> None:
    scheduler = fake_scheduler()
    wrong = scheduler.stream()
    wrong.lora_scale = 10.0
    for _ in range(2):
        with pytest.raises(InputError), wrong.turn(UPDATE):
            pass
    with scheduler.stream().turn(UPDATE) as engine:
        assert engine.llm.lora_scale == 1.0


def test_one_stream_cannot_have_two_turns() -> None:
    stream = fake_scheduler().stream()
    with stream.turn(FINAL), pytest.raises(AssertionError, match="second"), stream.turn(FINAL):
        pass


def test_turns_are_observed() -> None:
    seen: list[tuple[Priority, float, float]] = []
    scheduler = Scheduler(fake_scheduler().engine, lambda *turn: seen.append(turn))
    with scheduler.stream().turn(BATCH):
        pass
    [(priority, waited_s, held_s)] = seen
    assert priority is BATCH and waited_s >= 0 and held_s >= 0


@pytest.fixture(scope="module")
def clips(engine: Engine) -> list[Waveform]:
    folder = engine.bundle.path("clips")
    rows = json.loads((folder / "clips.json").read_text())
    silence = np.zeros(SAMPLE_RATE, np.float32)
    names = [row["file"] for row in rows if "audio" not in row["task"]][:3]
    return [np.concatenate([read_audio(folder / name), silence]) for name in names]


OPTIONS = (
    LiveOptions(hop_ms=1000),
    LiveOptions(hop_ms=1000, keywords=Keywords(["lamp, radio"]), also=("slot_filling:room",)),
    LiveOptions(hop_ms=1500, settle_s=1.0, context="short"),
)


def text_of(event: LiveEvent) -> object:
    """An event without what it took."""
    if isinstance(event, Caption):
        return event.start_s, event.end_s, event.stable, event.unstable, event.also
    if isinstance(event, Final):
        return replace(event, timings=cast(Any, None))
    return event


def events_of(engine: Engine, clip: Waveform, options: LiveOptions, stream: EngineStream | None = None) -> list[object]:
    return [text_of(event) for event in captions(FilePlayback(clip, "fast"), engine, options, stream)]


@pytest.fixture(scope="module")
def alone(engine: Engine, clips: list[Waveform]) -> list[list[object]]:
    """What each clip gives when nobody else uses the engine."""
    found: list[list[object]] = []
    for clip, options in zip(clips, OPTIONS, strict=True):
        engine.keywords = ()
        found.append(events_of(engine, clip, options))
    engine.keywords = ()
    return found


def test_a_stream_alone_says_what_the_engine_says(
    engine: Engine, clips: list[Waveform], alone: list[list[object]]
) -> None:
    stream = Scheduler(engine).stream()
    assert events_of(engine, clips[0], OPTIONS[0], stream) == alone[0]


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(order=st.lists(st.integers(0, 2), min_size=8, max_size=24))
def test_whatever_their_order_streams_say_what_they_say_alone(
    engine: Engine, clips: list[Waveform], alone: list[list[object]], order: list[int]
) -> None:
    scheduler = Scheduler(engine)
    with ExitStack() as stack:
        sessions = [
            captions(FilePlayback(clip, "fast"), engine, options, scheduler.stream())
            for clip, options in zip(clips, OPTIONS, strict=True)
        ]
        for session in sessions:
            stack.callback(session.close)
        found: list[list[object]] = [[], [], []]
        for n in [*order, *(each for each in range(3) for _ in alone[each])]:
            if (event := next(sessions[n], None)) is not None:
                found[n].append(text_of(event))
    assert found == alone
    engine.keywords = ()


def test_streams_in_threads_say_what_they_say_alone(
    engine: Engine, clips: list[Waveform], alone: list[list[object]]
) -> None:
    scheduler = Scheduler(engine)
    found: dict[int, list[object]] = {}

    def run(n: int) -> None:
        found[n] = events_of(engine, clips[n], OPTIONS[n], scheduler.stream())

    threads = [threading.Thread(target=run, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.keywords = ()
    assert [found[n] for n in range(3)] == alone


def test_an_update_that_waited_works_on_the_newest_audio(engine: Engine, clips: list[Waveform]) -> None:
    scheduler = Scheduler(engine)
    session = Session(engine, scheduler)
    with scheduler.stream().turn(FINAL):
        session.source.feed(clips[0][: SAMPLE_RATE * 3 // 2])
        until(lambda: scheduler.waiting()[UPDATE] == 1)
        session.source.feed(clips[0][SAMPLE_RATE * 3 // 2 : SAMPLE_RATE * 2])
        until(lambda: session.live.received_s == 2.0)
    until(lambda: any(isinstance(event, Caption) for event in session.events))
    session.join()
    first = next(event for event in session.events if isinstance(event, Caption))
    assert first.end_s == pytest.approx(2.0, abs=0.04)


def test_a_final_replaces_the_update_that_waits(engine: Engine, clips: list[Waveform]) -> None:
    scheduler = Scheduler(engine)
    session = Session(engine, scheduler)
    with scheduler.stream().turn(FINAL):
        session.source.feed(clips[0][: SAMPLE_RATE * 3 // 2])
        until(lambda: scheduler.waiting()[UPDATE] == 1)
        session.source.feed(clips[0][SAMPLE_RATE * 3 // 2 :])
        until(lambda: scheduler.waiting() == {FINAL: 1})
    until(lambda: any(isinstance(event, Final) for event in session.events))
    session.join()
    spoken = [event for event in session.events if isinstance(event, Caption | Final)]
    assert [type(event) for event in spoken] == [Final]
    [alone] = [event for event in captions(FilePlayback(clips[0], "fast"), engine) if isinstance(event, Final)]
    assert cast(Final, spoken[0]).text == alone.text


def test_other_keywords_in_the_middle_are_this_stream_s_alone(engine: Engine, clips: list[Waveform]) -> None:
    scheduler = Scheduler(engine)
    stream = scheduler.stream()
    live = Live(engine, FilePlayback(np.concatenate(clips), "fast"), LiveOptions(hop_ms=2000), stream)
    read: list[tuple[str, ...]] = []
    for event in live:
        if isinstance(event, SpeechStarted) and not read:
            live.use_keywords(Keywords(["lamp, radio"]))
        if isinstance(event, KeywordsRead):
            read.append(event.words)
        with scheduler.stream().turn(FINAL) as own:
            assert own.keywords == ()
    assert read == [("lamp", "radio")] and stream.keywords == ("lamp", "radio")
    with load(None, EngineOptions(llm=LlmOptions(keyword_boost=0.0))) as listing:
        listed = Live(listing, FilePlayback(clips[0], "fast"))
        with pytest.raises(InputError, match="512 fit"):
            listed.use_keywords(Keywords([",".join(f"antidisestablishmentarianism{n}" for n in range(50))]))


def test_a_client_that_goes_away_ends_a_decode_at_its_next_pass(engine: Engine, clips: list[Waveform]) -> None:
    stream = Scheduler(engine).stream()
    expected = engine.ask(clips[1], "asr").text
    with pytest.raises(Cancelled), stream.turn(BATCH) as own:
        for _ in own.stream(clips[1], "asr"):
            stream.cancel()
    assert engine.ask(clips[1], "asr").text == expected
