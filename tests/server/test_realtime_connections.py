"""Realtime connections: who is let in, readers that stop, clients that go away, a server that stops."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import Any

import pytest
from auricle.models.errors import RunError
from auricle.runtime.engine import Engine
from auricle.runtime.events import Final, SessionEnded, Word
from auricle.runtime.live.captions import LiveOptions
from auricle.runtime.server.live_session import LiveSession, LiveSessionEvent, LiveSetup, StretchEnded
from auricle.runtime.server.options import ServerOptions
from auricle.runtime.sources import pushed
from served import Served, serving
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from .realtime_client import TRANSCRIPTION, pcm, spoken, talking
from .test_sessions import n_sessions, until

PATH = "/v1/realtime?intent=transcription"


def opened(running: Served, path: str = PATH, **options: Any) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{running.port}{path}", compression=None, **options)


def send(connection: ClientConnection, kind: str, **fields: Any) -> None:
    connection.send(json.dumps({"type": kind, **fields}))


def test_keys_in_the_header_and_in_a_subprotocol(engine: Engine) -> None:
    with serving(engine, ServerOptions(port=0, key="s3cret")) as running:
        with pytest.raises(InvalidStatus) as refused:
            opened(running)
        assert refused.value.response.status_code == 401
        with opened(running, additional_headers={"Authorization": "Bearer s3cret"}) as connection:
            assert connection.subprotocol is None
        offered = ["realtime", "openai-insecure-api-key.s3cret", "openai-agents-sdk.1"]
        with opened(running, subprotocols=offered) as connection:
            assert connection.subprotocol == "realtime"


def test_models_and_intents_that_are_none(served: Served) -> None:
    for query, status in (("?model=nobody", 404), ("?intent=dancing", 400)):
        with pytest.raises(InvalidStatus) as refused:
            opened(served, f"/v1/realtime{query}")
        assert refused.value.response.status_code == status
        assert json.loads(refused.value.response.body or b"{}")["error"]["type"] == "invalid_request_error"


def test_one_session_more_than_allowed(engine: Engine) -> None:
    with serving(engine, ServerOptions(port=0, max_sessions=1)) as running:
        with opened(running) as first:
            first.recv()
            with pytest.raises(InvalidStatus) as refused:
                opened(running)
            assert refused.value.response.status_code == 429
        until(lambda: n_sessions(running) == 0)
        with opened(running) as second:
            assert json.loads(second.recv())["type"] == "session.created"


def test_a_client_that_goes_away_in_the_middle_leaves_nothing(served: Served, engine: Engine) -> None:
    with opened(served) as connection:
        connection.recv()
        sound = base64.b64encode(pcm(spoken(engine, "weather", pause_s=0.0))).decode()
        send(connection, "input_audio_buffer.append", audio=sound)
        while json.loads(connection.recv())["type"] != "input_audio_buffer.speech_started":
            pass
    until(lambda: n_sessions(served) == 0 and not served.service.scheduler.waiting())


def test_a_reader_that_stops_is_ended(engine: Engine) -> None:
    """What it is told fills its socket, then the queue; it holds neither the server nor another session up."""
    with serving(engine, ServerOptions(port=0, send_seconds=0.5)) as running:
        connection = opened(running, max_queue=1)
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a" * 60_000}]}
        began = time.monotonic()
        try:
            while n_sessions(running):
                assert time.monotonic() < began + 30
                send(connection, "conversation.item.create", item=item)
        except ConnectionClosed:
            pass
        until(lambda: n_sessions(running) == 0)
        connection.socket.close()


def test_messages_that_are_too_large_or_no_text(served: Served) -> None:
    with opened(served) as connection:
        connection.recv()
        connection.send(b"\x00\x01")
        assert json.loads(connection.recv())["error"]["code"] == "invalid_value"
        connection.send("[" * 100_000)
        assert json.loads(connection.recv())["error"]["code"] == "invalid_value"
        silence = base64.b64encode(bytes(11 << 20)).decode()  # 15 MiB of text
        send(connection, "input_audio_buffer.append", audio=silence)
        send(connection, "no.such")
        assert json.loads(connection.recv())["error"]["param"] == "type"
        with pytest.raises(ConnectionClosed):
            connection.send("a" * (22 << 20))
            connection.recv()


def test_a_server_that_stops_sends_the_last_words_first(engine: Engine) -> None:
    with serving(engine) as running, opened(running) as connection:
        sound = base64.b64encode(pcm(spoken(engine, "command", pause_s=0.0))).decode()
        send(connection, "input_audio_buffer.append", audio=sound)
        events = [json.loads(connection.recv())]
        while events[-1]["type"] != "input_audio_buffer.speech_started":
            events.append(json.loads(connection.recv()))
        running.server.should_exit = True
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                events.append(json.loads(connection.recv()))
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1012
        assert events[-1]["type"] == f"{TRANSCRIPTION}.completed"
        assert events[-1]["transcript"] == "turn on the kitchen dishwasher"


# the session beneath, which knows no protocol


async def heard(session: LiveSession) -> list[LiveSessionEvent]:
    return [event async for event in session.events()]


def ledgers(events: list[LiveSessionEvent]) -> list[SessionEnded]:
    return [event.ledger for event in events if isinstance(event, StretchEnded)]


def test_stretches_follow_each_other_in_time_and_their_ledgers_balance(served: Served, engine: Engine) -> None:
    async def run() -> list[LiveSessionEvent]:
        session = LiveSession(served.service, LiveSetup())
        sound = spoken(engine, "command")
        session.push(sound)
        session.cut(LiveSetup(LiveOptions(vad=False), ("lamp",)))
        session.push(sound)
        session.discard()
        session.push(sound)
        session.finish()
        session.push(sound)  # too late
        return await heard(session)

    events = asyncio.run(run())
    finals = [event for event in events if isinstance(event, Final)]
    seconds = len(spoken(engine, "command")) / 16_000
    assert [final.text for final in finals] == ["turn on the kitchen dishwasher"] * 2
    last = finals[1].words[-1]
    assert finals[1].start_s == pytest.approx(2 * seconds) and isinstance(last, Word)
    assert last.heard_s <= 3 * seconds + 1e-6
    for ledger in ledgers(events):
        assert ledger.captured_s == pytest.approx(seconds)
        assert ledger.captured_s == pytest.approx(ledger.decoded_s + ledger.skipped_s + ledger.dropped_s)
    assert len(ledgers(events)) == 2


def test_sound_that_nobody_hears_in_time_is_dropped_and_told(
    served: Served, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pushed, "BACKLOG_SECONDS", 2.0)

    async def run() -> list[LiveSessionEvent]:
        session = LiveSession(served.service, LiveSetup())
        for _ in range(5):  # before its thread begins
            session.push(spoken(engine, "command", pause_s=0.0)[:16_000])
        session.finish()
        return await heard(session)

    [ledger] = ledgers(asyncio.run(run()))
    assert (ledger.captured_s, ledger.dropped_s) == (5.0, 3.0)


def test_a_segment_that_fails_is_told_and_the_next_is_heard(
    served: Served, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = engine.encode
    failing = True

    def once(*given: Any) -> Any:
        nonlocal failing
        if failing:
            raise RunError("the graph computed no numbers")
        return encode(*given)

    monkeypatch.setattr(engine, "encode", once)

    async def run() -> list[dict[str, Any]]:
        nonlocal failing
        async with talking(served) as talk:
            await asyncio.gather(talk.say(pcm(spoken(engine, "command"))), talk.until(f"{TRANSCRIPTION}.failed"))
            failing = False
            await asyncio.gather(talk.say(pcm(spoken(engine, "weather"))), talk.until(f"{TRANSCRIPTION}.completed"))
            return talk.events

    events = asyncio.run(run())
    failed = next(event for event in events if event["type"] == f"{TRANSCRIPTION}.failed")
    assert failed["error"]["message"] == "the graph computed no numbers"
    assert events[-1]["transcript"] == "what is the weather in dublin tonight"
    told = served.service.metrics.text().decode()
    assert 'auricle_latency_seconds_count{kind="final"} 0.0' not in told and 'kind="final"' in told
