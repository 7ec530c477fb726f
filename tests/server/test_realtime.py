"""Realtime transcription with the openai package's own client: the order of events, deltas, commits, formats."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import av
import numpy as np
import pytest
from auricle.runtime.engine import Engine
from auricle.runtime.server.openai.realtime.audio_formats import G711_TABLES
from numpy.testing import assert_array_equal
from served import Served

from .realtime_client import RATE, TRANSCRIPTION, Talk, kinds, pcm, spoken, talking

COMMAND, WEATHER = "turn on the kitchen dishwasher", "what is the weather in dublin tonight"
COMPLETED = f"{TRANSCRIPTION}.completed"
MANUAL: dict[str, Any] = {"turn_detection": None}


def test_two_sentences_with_the_servers_vad(served: Served, engine: Engine) -> None:
    async def run() -> Talk:
        async with talking(served) as talk:
            turns = {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500}
            session = await talk.configure(turn_detection=turns, transcription={"model": "whisper-1", "language": "en"})
            assert session["audio"]["input"]["turn_detection"] == turns
            await asyncio.gather(talk.say(pcm(spoken(engine, "command", "weather"))), talk.until(COMPLETED, 2))
            return talk

    talk = asyncio.run(run())
    assert talk.transcripts() == [COMMAND, WEATHER]
    ids = [event["event_id"] for event in talk.events]
    assert len(set(ids)) == len(ids)
    before: str | None = None
    for started in talk.of("input_audio_buffer.speech_started"):
        item: str = started["item_id"]
        told = [event for event in talk.events if item in (event.get("item_id"), event.get("item", {}).get("id"))]
        order = [kind for kind in kinds(told) if not kind.endswith(".delta")]
        assert order == [
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            "conversation.item.added",
            "conversation.item.done",
            COMPLETED,
        ]
        assert [e["previous_item_id"] for e in told if "previous_item_id" in e] == [before] * 3
        assert talk.deltas(item) == told[-1]["transcript"]
        before = item
    starts = [e["audio_start_ms"] for e in talk.of("input_audio_buffer.speech_started")]
    ends = [e["audio_end_ms"] for e in talk.of("input_audio_buffer.speech_stopped")]
    assert starts[0] < 300 and 1500 < ends[0] < 2500 < starts[1] < 3200 and 4500 < ends[1] < 5500


def test_commits_of_the_client_with_deltas_before_them(served: Served, engine: Engine) -> None:
    async def run() -> tuple[Talk, list[str]]:
        async with talking(served) as talk:
            session = await talk.configure(**MANUAL)
            assert session["audio"]["input"]["turn_detection"] is None
            early: list[str] = []
            for name in ("command", "weather"):
                await talk.say(pcm(spoken(engine, name)))
                early.append((await talk.until(f"{TRANSCRIPTION}.delta"))["item_id"])
                await talk.connection.input_audio_buffer.commit()
                await talk.until(COMPLETED)
            return talk, early

    talk, early = asyncio.run(run())
    assert talk.transcripts() == [COMMAND, WEATHER]
    committed = [event["item_id"] for event in talk.of("input_audio_buffer.committed")]
    assert committed == early
    assert [talk.deltas(item) for item in committed] == [COMMAND, WEATHER]
    assert not talk.of("input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped")


@pytest.mark.parametrize(("name", "codec"), [("audio/pcmu", "pcm_mulaw"), ("audio/pcma", "pcm_alaw")])
def test_the_formats_of_telephones(served: Served, engine: Engine, name: str, codec: str) -> None:
    async def run() -> Talk:
        async with talking(served) as talk:
            session = await talk.configure(format={"type": name}, **MANUAL)
            assert session["audio"]["input"]["format"] == {"type": name}
            await talk.say(encoded(pcm(spoken(engine, "weather"), 8000), codec), 400)
            await talk.connection.input_audio_buffer.commit()
            await talk.until(COMPLETED)
            return talk

    [transcript] = asyncio.run(run()).transcripts()
    assert transcript.startswith("what is the weather in ")  # the city is lost with the high frequencies


@pytest.mark.parametrize(("name", "codec"), [("audio/pcmu", "pcm_mulaw"), ("audio/pcma", "pcm_alaw")])
def test_every_code_of_g711_is_read_as_ffmpeg_does(name: str, codec: str) -> None:
    context = av.CodecContext.create(codec, "r")
    assert isinstance(context, av.AudioCodecContext)
    context.sample_rate, context.layout = 8000, av.AudioLayout("mono")
    [frame] = context.decode(av.Packet(bytes(range(256))))
    assert_array_equal(G711_TABLES[name], frame.to_ndarray()[0].astype(np.float32) / 2**15)


def encoded(data: bytes, codec: str) -> bytes:
    """16-bit samples at 8 kHz as FFmpeg writes them in G.711."""
    context = av.CodecContext.create(codec, "w")
    assert isinstance(context, av.AudioCodecContext)
    context.sample_rate, context.format, context.layout = 8000, av.AudioFormat("s16"), av.AudioLayout("mono")
    frame = av.AudioFrame.from_ndarray(np.frombuffer(data, np.int16)[None], "s16", "mono")
    frame.sample_rate = 8000
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])


def test_errors_leave_the_session_open(served: Served, engine: Engine) -> None:
    async def run() -> list[dict[str, Any]]:
        async with talking(served) as talk:
            await talk.connection.input_audio_buffer.commit(event_id="c1")
            await talk.say(pcm(spoken(engine, "command")))
            await talk.until(COMPLETED)
            await talk.connection.input_audio_buffer.commit(event_id="c2")  # the server's VAD has committed already
            await talk.connection.input_audio_buffer.clear()
            await talk.until("error")
            for event in (
                {"type": "no.such", "event_id": "c3"},
                {"type": "input_audio_buffer.append", "audio": base64.b64encode(b"odd").decode()},
                {"type": "input_audio_buffer.append", "audio": "?"},
                {"type": "input_audio_buffer.append"},
                {"type": "session.update", "session": {"type": "realtime"}},
                {"type": "session.update", "session": {"audio": {"input": {"format": {"type": "audio/opus"}}}}},
                {"type": "session.update", "session": {"audio": {"input": {"turn_detection": {"threshold": 7}}}}},
                {"type": "session.update", "session": {"audio": {"input": {"transcription": {"model": "nobody"}}}}},
                {"type": "conversation.item.retrieve", "item_id": "nowhere"},
                {"session": {}},
            ):
                await talk.connection.send(event)
                await talk.until("error")
            return [event["error"] for event in talk.of("error")]

    errors = asyncio.run(run())
    empty = ("input_audio_buffer_commit_empty", None)
    assert [(error["code"], error.get("param")) for error in errors] == [
        empty,
        empty,
        ("invalid_value", "type"),
        ("invalid_value", "audio"),
        ("invalid_value", "audio"),
        ("missing_required_parameter", "audio"),
        ("invalid_value", "session.type"),
        ("invalid_value", "session.audio.input.format.type"),
        ("invalid_value", "session.audio.input.turn_detection.threshold"),
        ("model_not_found", "model"),
        ("item_not_found", "item_id"),
        ("missing_required_parameter", "type"),
    ]
    assert [error.get("event_id") for error in errors[:4]] == ["c1", "c2", "c3", None]
    assert {error["type"] for error in errors} == {"invalid_request_error"}


def test_what_cannot_be_followed_is_left_out(served: Served) -> None:
    async def run() -> dict[str, Any]:
        async with talking(served) as talk:
            words = {
                "model": "gpt-transcribe",
                "language": "fr",
                "prompt": "lamp, kettle",
                "delay": "low",
                "keywords": ["tap"],
            }
            await talk.connection.session.update(
                session={
                    "type": "transcription",
                    "include": ["item.input_audio_transcription.logprobs"],
                    "audio": {
                        "input": {
                            "noise_reduction": {"type": "near_field"},
                            "transcription": {**words, "delay": "low"},
                            "turn_detection": {"type": "semantic_vad", "eagerness": "high", "strange": 1},
                        }
                    },
                }
            )
            return (await talk.until("session.updated"))["session"]

    session = asyncio.run(run())
    assert session["include"] is None and session["audio"]["input"] == {
        "format": {"type": "audio/pcm", "rate": 24000},
        "noise_reduction": None,
        "transcription": {"model": "gpt-transcribe", "prompt": "lamp, kettle", "keywords": ["tap", "lamp", "kettle"]},
        "turn_detection": {"type": "semantic_vad", "eagerness": "high"},
    }


def test_a_buffer_that_is_cleared_is_forgotten_and_items_can_be_asked_for(served: Served, engine: Engine) -> None:
    async def run() -> Talk:
        async with talking(served) as talk:
            await talk.configure(**MANUAL)
            await talk.say(pcm(spoken(engine, "weather")))
            await talk.connection.input_audio_buffer.clear()
            await talk.until("input_audio_buffer.cleared")
            await talk.say(pcm(spoken(engine, "command")))
            await talk.connection.input_audio_buffer.commit()
            item = (await talk.until(COMPLETED))["item_id"]
            await talk.connection.conversation.item.retrieve(item_id=item)
            await talk.until("conversation.item.retrieved")
            await talk.connection.conversation.item.delete(item_id=item)
            await talk.until("conversation.item.deleted")
            return talk

    talk = asyncio.run(run())
    assert talk.transcripts() == [COMMAND]
    [retrieved] = talk.of("conversation.item.retrieved")
    assert retrieved["item"]["content"] == [{"type": "input_audio", "transcript": COMMAND}]


@pytest.mark.parametrize("pause_s", [0.0, 2.0])
def test_a_clear_is_answered_behind_the_commit_before_it(served: Served, engine: Engine, pause_s: float) -> None:
    """Some clients end their input so, and take for complete what is not committed by then."""

    async def run() -> Talk:
        async with talking(served) as talk:
            sound = pcm(spoken(engine, "command", "weather", pause_s=2.0))
            await talk.say(sound[: len(sound) - round((2.0 - pause_s) * RATE) * 2])
            await talk.connection.input_audio_buffer.commit()
            await talk.connection.input_audio_buffer.clear()
            await talk.until("input_audio_buffer.cleared")
            return talk

    talk = asyncio.run(run())
    order = [event["type"] for event in talk.of("input_audio_buffer.committed", "input_audio_buffer.cleared", "error")]
    assert order == ["input_audio_buffer.committed"] * 2 + ["error"] * (pause_s > 0) + ["input_audio_buffer.cleared"]
    assert talk.transcripts() == [COMMAND, WEATHER]


def test_unstable_text_for_who_asks_for_it(served: Served, engine: Engine) -> None:
    async def run() -> Talk:
        async with talking(served, auricle="auricle.captions") as talk:
            sound = pcm(spoken(engine, "weather"))
            await talk.say(sound[: RATE * 2])  # a second
            await talk.until("auricle.caption")
            await talk.say(sound[RATE * 2 :])
            await talk.until(COMPLETED)
            await talk.connection.input_audio_buffer.commit()
            await talk.until("auricle.ledger")
            return talk

    talk = asyncio.run(run())
    [ledger] = talk.of("auricle.ledger")
    assert ledger["captured_ms"] == pytest.approx(len(spoken(engine, "weather")) / 16, abs=1)
    assert ledger["captured_ms"] == pytest.approx(ledger["decoded_ms"] + ledger["skipped_ms"])
    assert ledger["decoded_ms"] > ledger["skipped_ms"] > 0 == ledger["dropped_ms"]
    captions = talk.of("auricle.caption")
    assert captions and any(caption["unstable"] for caption in captions)
    assert all(
        WEATHER.startswith(caption["stable"]) and caption["start_ms"] < caption["end_ms"] for caption in captions
    )
    assert {caption["item_id"] for caption in captions} == {talk.of(COMPLETED)[0]["item_id"]}


def test_two_sessions_at_once_do_not_mix(served: Served, engine: Engine) -> None:
    async def run(name: str) -> Talk:
        async with talking(served) as talk:
            await asyncio.gather(talk.say(pcm(spoken(engine, name, name))), talk.until(COMPLETED, 2))
            return talk

    async def both() -> tuple[Talk, Talk]:
        return await asyncio.gather(run("command"), run("weather"))

    first, second = asyncio.run(both())
    assert (first.transcripts(), second.transcripts()) == ([COMMAND] * 2, [WEATHER] * 2)


def test_a_change_in_the_middle_loses_no_sound(served: Served, engine: Engine) -> None:
    """Keywords from the next commit on; the server's VAD takes over what was not committed."""

    async def run() -> Talk:
        async with talking(served) as talk:
            await talk.configure(**MANUAL)
            sound = pcm(spoken(engine, "command"))
            for changes in ({"transcription": {"keywords": ["lamp"]}}, {"turn_detection": {"type": "server_vad"}}):
                await talk.say(sound[: len(sound) // 4 * 2])
                await talk.configure(**changes)
                await talk.say(sound[len(sound) // 4 * 2 :])
                if "transcription" in changes:
                    await talk.connection.input_audio_buffer.commit()
                await talk.until(COMPLETED)
            return talk

    talk = asyncio.run(run())
    whole, half = talk.transcripts()
    assert whole == COMMAND and half.startswith("turn on the")
    assert len(talk.of("input_audio_buffer.committed")) >= 2
