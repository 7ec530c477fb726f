"""Several live streams on one engine: what becomes rarer under load, and what never does."""

from __future__ import annotations

import numpy as np
import pytest
from auricle.models.audio import SAMPLE_RATE, Waveform
from auricle.runtime.audio.decode import read_audio
from auricle.runtime.engine import Engine
from auricle.runtime.events import Caption, Final, SpeechStarted
from auricle.runtime.live.captions import LiveOptions
from auricle.runtime.scheduler import Priority, Scheduler

from .live_sessions import Session, until

FINAL, UPDATE, BATCH = Priority
ROOM = "slot_filling:room"


@pytest.fixture(scope="module")
def clips(engine: Engine) -> list[Waveform]:
    """What is said in each: a second of silence behind it."""
    silence = np.zeros(SAMPLE_RATE, np.float32)
    names = ("command", "reminder", "weather")
    return [np.concatenate([read_audio(engine.bundle.path(f"clips/{name}.wav")), silence]) for name in names]


@pytest.mark.parametrize(("update_s", "n_captions"), [(0.01, 1), (10.0, 0)])
def test_updates_are_rarer_where_they_cost_more(
    engine: Engine, clips: list[Waveform], update_s: float, n_captions: int
) -> None:
    """1.5 s of speech are more than the hop of 500 ms, and less than the longest one."""
    scheduler = Scheduler(engine)
    scheduler.load.update.add(update_s, 1.0)
    session = Session(engine, scheduler)
    for end_s in (1.5, 1.6):  # the second is heard when the first was dealt with
        session.source.feed(clips[0][round(session.live.received_s * SAMPLE_RATE) : round(end_s * SAMPLE_RATE)])
        until(lambda end_s=end_s: session.live.received_s == end_s)
    session.source.feed(clips[0][round(1.6 * SAMPLE_RATE) :])
    until(lambda: any(isinstance(event, Final) for event in session.events))
    session.join()
    assert sum(isinstance(event, Caption) for event in session.events) == n_captions


def test_a_late_update_asks_the_first_question_alone_and_the_final_all(engine: Engine, clips: list[Waveform]) -> None:
    speech = np.concatenate([clip[:-SAMPLE_RATE] for clip in clips[:2]])
    scheduler = Scheduler(engine)
    session = Session(engine, scheduler, LiveOptions(hop_ms=500, also=(ROOM,)))
    with scheduler.stream().turn(FINAL):
        session.source.feed(speech[: 2 * SAMPLE_RATE])
        until(lambda: scheduler.waiting()[UPDATE] == 1)
        session.source.feed(speech[2 * SAMPLE_RATE :])
        until(lambda: session.live.received_s > 4.0)
    until(lambda: any(isinstance(event, Caption) for event in session.events))
    session.source.feed(np.zeros(SAMPLE_RATE, np.float32))
    until(lambda: any(isinstance(event, Final) for event in session.events))
    session.join()
    late = next(event for event in session.events if isinstance(event, Caption))
    final = next(event for event in session.events if isinstance(event, Final))
    assert late.also == () and late.stable + late.unstable
    assert [prompt for prompt, _ in final.also] == [engine.prompt.prompt_for(ROOM)]


def test_what_decodes_take_is_known_to_the_load(engine: Engine, clips: list[Waveform]) -> None:
    scheduler = Scheduler(engine)
    session = Session(engine, scheduler)
    session.source.feed(clips[0][: SAMPLE_RATE * 3 // 2])
    until(lambda: any(isinstance(event, Caption) for event in session.events))
    assert scheduler.load.final.value is None and scheduler.load.hop_s(1e-9) > 1e-9
    session.source.feed(clips[0][SAMPLE_RATE * 3 // 2 :])
    until(lambda: any(isinstance(event, Final) for event in session.events))
    session.join()
    assert scheduler.load.final.value and scheduler.load.update.mean
    assert scheduler.load.of(2) > 0 and scheduler.load.hop_s(1e-9) == 1e-9


def test_a_stream_whose_segments_nobody_decodes_makes_no_hop_longer(engine: Engine, clips: list[Waveform]) -> None:
    scheduler = Scheduler(engine)
    scheduler.load.update.add(10.0, 1.0)
    session = Session(engine, scheduler, LiveOptions(decode=False))
    session.source.feed(clips[0][: SAMPLE_RATE * 3 // 2])
    until(lambda: any(isinstance(event, SpeechStarted) for event in session.events))
    assert scheduler.load.hop_s(0.5) == 0.5
    session.join()
