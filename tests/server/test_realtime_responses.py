"""Realtime conversations, answered in text: the order of events, cancelling, speech that interrupts, items."""

from __future__ import annotations

import asyncio
import base64
import threading
from typing import Any

import pytest
from auricle.models.errors import RunError
from auricle.runtime.engine import Engine
from served import Served

from .realtime_client import TRANSCRIPTION, Talk, kinds, pcm, spoken, talking

MODEL = "gpt-realtime"
N_FREE_STEPS = 3  # of a token each
COMPLETED = f"{TRANSCRIPTION}.completed"
ORDER = [
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
]


def sound_item(engine: Engine, name: str, text: str | None = None, **more: Any) -> dict[str, Any]:
    audio = base64.b64encode(pcm(spoken(engine, name, pause_s=0.0))).decode()
    content: list[dict[str, Any]] = [{"type": "input_audio", "audio": audio}]
    content += [{"type": "input_text", "text": text}] if text else []
    return {"type": "message", "role": "user", "content": content, **more}


def answer(event: dict[str, Any]) -> str:
    return event["response"]["output"][0]["content"][0]["text"]


@pytest.fixture
def release(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Answers stop behind their first words, until this is set or they are cancelled."""
    released = threading.Event()
    feed = engine.llm.feed
    n_steps = 0

    def held_feed(ids: Any, every: bool = False) -> Any:
        nonlocal n_steps
        n_steps += len(ids) == 1
        while n_steps > N_FREE_STEPS and not released.wait(0.01):
            if engine.llm.before_pass is not None:
                engine.llm.before_pass()
        return feed(ids, every)

    monkeypatch.setattr(engine.llm, "feed", held_feed)
    return released


def test_what_is_said_is_answered_and_remembered(served: Served, engine: Engine) -> None:
    async def run() -> Talk:
        async with talking(served, MODEL) as talk:
            await talk.configure(transcription={"model": MODEL})
            for name in ("weather", "sum"):
                await asyncio.gather(talk.say(pcm(spoken(engine, name))), talk.until("response.done"))
            return talk

    talk = asyncio.run(run())
    session = talk.events[0]["session"]
    assert (session["type"], session["output_modalities"]) == ("realtime", ["text"])
    first, second = talk.of("response.done")
    assert answer(first) == "checking the weather in dublin tonight"
    response = first["response"]["id"]
    item = first["response"]["output"][0]["id"]
    told = [
        event
        for event in talk.events
        if response in (event.get("response_id"), event.get("response", {}).get("id"))
        or event.get("item", {}).get("id") == item
    ]
    assert kinds(told) == ORDER
    assert "".join(event.get("delta", "") for event in told) == answer(first)
    assert first["response"]["status"] == "completed"
    assert first["response"]["output"][0]["content"][0]["type"] == "output_text"
    usage, later = first["response"]["usage"], second["response"]["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] and usage["output_tokens"] > 3
    assert later["input_tokens"] > usage["input_tokens"] + usage["output_tokens"]  # the first turn is read too
    assert later["input_token_details"]["audio_tokens"] > usage["input_token_details"]["audio_tokens"] > 0
    committed = talk.of("input_audio_buffer.committed")
    assert committed[1]["previous_item_id"] == item


def test_responses_on_request(served: Served, engine: Engine) -> None:
    async def run() -> Talk:
        async with talking(served, MODEL) as talk:
            await talk.configure(turn_detection=None)
            await talk.connection.response.create(event_id="early")
            await talk.until("response.done")
            await talk.connection.conversation.item.create(
                item=sound_item(engine, "siren", "Please describe the audio.")
            )
            await talk.connection.response.create(response={"metadata": {"client_event_id": "x1"}})
            await talk.until("response.done")
            outside = {"conversation": "none", "input": [sound_item(engine, "weather")], "max_output_tokens": 3}
            await talk.connection.response.create(response=outside)
            await talk.until("response.done")
            await talk.say(pcm(spoken(engine, "weather")))
            await talk.connection.input_audio_buffer.commit()
            await talk.connection.response.create()
            await talk.until("response.done")
            return talk

    talk = asyncio.run(run())
    nothing, siren, outside, committed = talk.of("response.done")
    assert nothing["response"]["status"] == "failed" and nothing["response"]["status_details"]["error"]["message"]
    assert answer(siren) == "a siren is wailing"
    created = [event["response"]["metadata"] for event in talk.of("response.created")]
    assert created[1] == siren["response"]["metadata"] == {"client_event_id": "x1"}
    assert (outside["response"]["status"], outside["response"]["conversation_id"]) == ("incomplete", None)
    assert outside["response"]["status_details"]["reason"] == "max_output_tokens"
    assert outside["response"]["usage"]["output_tokens"] == 3
    added = [event["item"]["id"] for event in talk.of("conversation.item.added")]
    assert outside["response"]["output"][0]["id"] not in added
    assert committed["response"]["status"] == "completed" and answer(committed)


def test_a_response_that_is_cancelled(served: Served, engine: Engine, release: threading.Event) -> None:
    async def run() -> Talk:
        async with talking(served, MODEL) as talk:
            await talk.configure(turn_detection=None)
            await talk.connection.response.cancel(event_id="none")
            await talk.until("error")
            await talk.connection.conversation.item.create(item=sound_item(engine, "weather"))
            await talk.connection.response.create()
            await talk.until("response.output_text.delta")
            await talk.connection.response.create(event_id="second")
            await talk.until("error")
            await talk.connection.response.cancel()
            await talk.until("response.done")
            release.set()
            item = talk.of("response.done")[0]["response"]["output"][0]["id"]
            await talk.connection.conversation.item.retrieve(item_id=item)
            await talk.until("conversation.item.retrieved")
            await talk.connection.response.create(response={"instructions": "weather"})  # the session goes on
            await talk.until("response.created")
            return talk

    talk = asyncio.run(run())
    errors = [(event["error"]["code"], event["error"]["event_id"]) for event in talk.of("error")]
    assert errors == [
        ("response_cancel_not_active", "none"),
        ("conversation_already_has_active_response", "second"),
    ]
    assert talk.of("error")[0]["error"]["message"].startswith("Cancellation failed")
    [done] = talk.of("response.done")
    assert done["response"]["status"] == "cancelled"
    assert done["response"]["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
    said = "".join(event["delta"] for event in talk.of("response.output_text.delta"))
    assert answer(done) == said and said and "checking the weather in dublin tonight".startswith(said)
    [retrieved] = talk.of("conversation.item.retrieved")
    assert (retrieved["item"]["status"], retrieved["item"]["content"][0]["text"]) == ("incomplete", said)


@pytest.mark.parametrize("interrupts", [True, False])
def test_speech_interrupts_an_answer_where_it_may(
    served: Served, engine: Engine, release: threading.Event, interrupts: bool
) -> None:
    async def run() -> Talk:
        async with talking(served, MODEL) as talk:
            turns = {"type": "server_vad", "interrupt_response": interrupts}
            assert (await talk.configure(turn_detection=turns))["audio"]["input"]["turn_detection"]["create_response"]
            await talk.say(pcm(spoken(engine, "weather")))
            await talk.until("response.output_text.delta")
            saying = asyncio.create_task(talk.say(pcm(spoken(engine, "sum"))))
            await talk.until("response.done" if interrupts else "input_audio_buffer.speech_started")
            release.set()
            await asyncio.gather(saying, talk.until("response.done", 1 if interrupts else 2))
            return talk

    talk = asyncio.run(run())
    first, second = (event["response"] for event in talk.of("response.done"))
    if interrupts:
        assert first["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
        order = [event["type"] for event in talk.events]
        started = [at for at, kind in enumerate(order) if kind == "input_audio_buffer.speech_started"]
        assert started[1] < order.index("response.done") < started[1] + 8
    else:
        assert first["output"][0]["content"][0]["text"] == "checking the weather in dublin tonight"
    assert second["status"] == "completed"
    assert not talk.of(COMPLETED)  # nobody asked for a transcript


def test_items_are_created_deleted_and_put_in_order(served: Served, engine: Engine) -> None:
    async def run() -> Talk:
        async with talking(served, MODEL) as talk:
            items = talk.connection.conversation.item
            await items.create(item=sound_item(engine, "weather", id="a"))
            system = {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "Be short."}]}
            await items.create(item=system, previous_item_id="root")
            await items.create(item=sound_item(engine, "weather", id="b"), previous_item_id="a")
            await items.create(item=sound_item(engine, "weather", id="a"), event_id="twice")
            await items.create(item=sound_item(engine, "weather"), previous_item_id="nowhere")
            await items.create(item={"type": "function_call_output", "call_id": "1", "output": ""})
            await items.truncate(item_id="a", content_index=0, audio_end_ms=500)
            await items.delete(item_id="a")
            await items.retrieve(item_id="a")
            await talk.until("error", 4)
            return talk

    talk = asyncio.run(run())
    added = talk.of("conversation.item.added")
    assert [event["previous_item_id"] for event in added] == [None, None, "a"]
    assert added[0]["item"]["content"] == [{"type": "input_audio", "transcript": None}]
    assert talk.of("conversation.item.truncated")[0]["audio_end_ms"] == 500
    assert talk.of("conversation.item.deleted")[0]["item_id"] == "a"
    codes = ["item_create_duplicate_item_id", "invalid_value", "unsupported_value", "item_not_found"]
    assert [event["error"]["code"] for event in talk.of("error")] == codes


def test_an_answer_that_failed_can_be_asked_for_again(
    served: Served, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = engine.encode
    failures = [RunError("the graph computed no numbers")]

    def fails_once(*given: Any) -> Any:
        if failures:
            raise failures.pop()
        return encode(*given)

    monkeypatch.setattr(engine, "encode", fails_once)

    async def run() -> Talk:
        async with talking(served, MODEL) as talk:
            await talk.connection.conversation.item.create(item=sound_item(engine, "weather"))
            for _ in range(2):
                await talk.connection.response.create()
                await talk.until("response.done")
            return talk

    failed, answered = asyncio.run(run()).of("response.done")
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["status_details"]["error"]["message"] == "the graph computed no numbers"
    assert answer(answered) == "checking the weather in dublin tonight"
