"""Neighbours: what a stream says does not depend on them, and its finals wait for one turn of theirs at most."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import pytest
from auricle.models.audio import SAMPLE_RATE, Waveform
from auricle.runtime.audio.decode import read_audio
from auricle.runtime.engine import Engine
from auricle.runtime.events import Caption, Final, LiveEvent, SpeechStarted
from auricle.runtime.live.captions import LiveOptions, captions
from auricle.runtime.llm.sampling import Generation
from auricle.runtime.scheduler import Cancelled, Priority, Scheduler
from auricle.runtime.server.live_session import LiveSession, LiveSetup
from auricle.runtime.server.options import ServerOptions
from auricle.runtime.server.service import Service
from auricle.runtime.sources.playback import FilePlayback
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .live_sessions import Session, until

FINAL, UPDATE, BATCH = Priority
ONE_WORD = 'root ::= [a-z]+ " please"'


@dataclass(frozen=True)
class Setup:
    """What a stream hears, and how."""

    clip: str
    options: LiveOptions = field(default_factory=lambda: LiveOptions(hop_ms=1000))
    keywords: tuple[str, ...] = ()
    lora_scale: float | None = None


SETUPS = (
    Setup("command"),
    Setup("command", lora_scale=0.0),
    Setup("weather", LiveOptions("slot_filling:city", also=("asr",), hop_ms=1000)),
    Setup("reminder", LiveOptions(hop_ms=1500, settle_s=1.0, context="short"), keywords=("bicycle", "lamp")),
    Setup("command", LiveOptions(hop_ms=1000, generation=Generation(gbnf=ONE_WORD)), keywords=("radio",)),
    Setup("shopping", LiveOptions("keywords", hop_ms=1000), lora_scale=2.0),
)


@pytest.fixture(scope="module")
def scheduler(engine: Engine) -> Scheduler:
    """One for all: a stream's LoRA scale is, unless it says another, what the engine had when this began."""
    return Scheduler(engine)


@pytest.fixture(scope="module")
def clips(engine: Engine) -> dict[str, Waveform]:
    silence = np.zeros(SAMPLE_RATE, np.float32)
    names = {setup.clip for setup in SETUPS}
    return {name: np.concatenate([read_audio(engine.bundle.path(f"clips/{name}.wav")), silence]) for name in names}


def text_of(event: LiveEvent) -> object:
    """An event without what it took."""
    if isinstance(event, Caption):
        return replace(event, work=cast(Any, None))
    return replace(event, timings=cast(Any, None)) if isinstance(event, Final) else event


def session(engine: Engine, scheduler: Scheduler, setup: Setup, clip: Waveform) -> Iterator[object]:
    stream = scheduler.stream()
    stream.keywords = setup.keywords
    if setup.lora_scale is not None:
        stream.lora_scale = setup.lora_scale
    return map(text_of, captions(FilePlayback(clip, "fast"), engine, setup.options, stream))


@pytest.fixture(scope="module")
def alone(engine: Engine, scheduler: Scheduler, clips: dict[str, Waveform]) -> list[list[object]]:
    """What each gives when nobody else speaks."""
    found = [[*session(engine, scheduler, setup, clips[setup.clip])] for setup in SETUPS]
    said = [next(event for event in events if isinstance(event, Final)) for events in found]
    assert said[0] != said[1] and said[4].text.endswith(" please")  # a setup that is not followed would show
    return found


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(order=st.lists(st.integers(0, len(SETUPS) - 1), min_size=12, max_size=40))
def test_whatever_their_order_streams_say_what_they_say_alone(
    engine: Engine,
    scheduler: Scheduler,
    clips: dict[str, Waveform],
    alone: list[list[object]],
    order: list[int],
) -> None:
    sessions = [session(engine, scheduler, setup, clips[setup.clip]) for setup in SETUPS]
    found: list[list[object]] = [[] for _ in SETUPS]
    for n in [*order, *(each for each in range(len(SETUPS)) for _ in alone[each])]:
        if (event := next(sessions[n], None)) is not None:
            found[n].append(event)
    assert found == alone


def test_streams_at_once_say_what_they_say_alone(
    engine: Engine, scheduler: Scheduler, clips: dict[str, Waveform], alone: list[list[object]]
) -> None:
    found: dict[int, list[object]] = {}

    def run(n: int) -> None:
        found[n] = [*session(engine, scheduler, SETUPS[n], clips[SETUPS[n].clip])]

    threads = [threading.Thread(target=run, args=(n,)) for n in range(len(SETUPS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[n] for n in range(len(SETUPS))] == alone


@pytest.fixture
def decoded_by(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The threads that decoded, in their order."""
    encode = engine.encode
    order: list[str] = []

    def counting(*given: Any) -> Any:
        order.append(threading.current_thread().name)
        return encode(*given)

    monkeypatch.setattr(engine, "encode", counting)
    return order


def n_finals(session: Session) -> int:
    return sum(isinstance(event, Final) for event in session.events)


@pytest.mark.parametrize("what", ["flood", "die"])
def test_a_final_waits_for_one_update_of_its_neighbours_at_most(
    engine: Engine, clips: dict[str, Waveform], decoded_by: list[str], what: str
) -> None:
    """They speak since long before, and their sound comes faster than it can be decoded."""
    scheduler = Scheduler(engine)
    neighbours = [Session(engine, scheduler, LiveOptions(hop_ms=50)) for _ in range(3)]
    other = Session(engine, scheduler)
    other.thread.name = "other"
    with scheduler.stream().turn(FINAL):
        for each in neighbours:
            each.source.feed(
                np.concatenate([clips["shopping"][:-SAMPLE_RATE], clips["command"][: 3 * SAMPLE_RATE // 2]])
            )
        until(lambda: scheduler.waiting() == {UPDATE: 3})
        other.source.feed(clips["reminder"])
        until(lambda: scheduler.waiting() == {UPDATE: 3, FINAL: 1})
        if what == "die":
            for each in neighbours:
                each.stream.cancel()
    until(lambda: n_finals(other) == 1)
    assert decoded_by.index("other") <= 1
    for each in (*neighbours, other):
        each.join()
    assert all(isinstance(each.error, Cancelled) == (what == "die") for each in neighbours)


def test_a_stream_that_fails_in_its_turn_gives_it_back(
    engine: Engine, clips: dict[str, Waveform], monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = engine.encode

    def failing(*given: Any) -> Any:
        if threading.current_thread().name == "neighbour":
            raise RuntimeError("broken")
        return encode(*given)

    monkeypatch.setattr(engine, "encode", failing)
    scheduler = Scheduler(engine)
    neighbour, other = (Session(engine, scheduler) for _ in range(2))
    neighbour.thread.name = "neighbour"
    for each in (neighbour, other):
        each.source.feed(clips["command"])
    until(lambda: n_finals(other) == 1 and neighbour.error is not None)
    other.join()
    assert scheduler.load.hop_s(1e-9) == 1e-9  # the one that failed does not count as somebody who speaks


def test_a_stream_that_asks_all_the_time_has_one_wish(engine: Engine, clips: dict[str, Waveform]) -> None:
    scheduler = Scheduler(engine)
    session = Session(engine, scheduler, LiveOptions(hop_ms=50))
    speech = clips["shopping"][: 2 * SAMPLE_RATE]
    with scheduler.stream().turn(FINAL):
        for at in range(0, len(speech), SAMPLE_RATE // 10):
            session.source.feed(speech[at : at + SAMPLE_RATE // 10])
            until(lambda at=at: session.live.received_s >= (at + SAMPLE_RATE // 10) / SAMPLE_RATE)
            assert scheduler.waiting().total() <= 1
        assert scheduler.waiting() == {UPDATE: 1}
    until(lambda: any(isinstance(event, Caption) for event in session.events))
    session.join()


def test_a_client_that_does_not_read_holds_nobody_up(engine: Engine, clips: dict[str, Waveform]) -> None:
    service = Service(engine, ServerOptions(port=0))

    async def run() -> list[str]:
        silent, other = LiveSession(service, LiveSetup()), LiveSession(service, LiveSetup())
        unread = silent.events()
        silent.push(np.concatenate([*clips.values()]))
        assert isinstance(await anext(unread), SpeechStarted)
        other.push(clips["command"])
        other.finish()
        texts = [event.text async for event in other.events() if isinstance(event, Final)]
        await unread.aclose()
        return texts

    with closing(service):
        assert asyncio.run(run()) == ["turn on the kitchen dishwasher"]
