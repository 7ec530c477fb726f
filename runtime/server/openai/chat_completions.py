"""POST /v1/chat/completions: messages with sounds -> the answer to the last, whole or as it is decoded."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ....models.errors import InputError
from ....models.prompt import nonempty
from ...assistant_options import default_prompt
from ...engine import Engine
from ...events import Final, FinishReason, Piece
from ...llm.grammar.json_schema import JsonSchema
from ...llm.sampling import Generation
from ...scheduler import EngineStream
from ..dialogues import DialogueEvent, DialogueRead, DialogueTurn, answer_dialogue
from ..errors import invalid, unsupported
from ..jobs import StreamedAnswer, all_in_thread, in_thread, while_connected
from ..service import Service, service_of
from .chat_request import ChatRequest, Turn, read_chat
from .deltas import Deltas
from .event_stream import data, from_first
from .json_fields import read_json

CUT: tuple[FinishReason, ...] = ("length", "time")
"""What ends an answer that should have gone on."""
BETWEEN = "\n"
"""The answers to two segments of a sound that is longer than the model's window."""


async def complete_chat(request: Request) -> Response:
    """The answer to the last message."""
    service = service_of(request)
    body = await request.body()
    chat = await asyncio.to_thread(lambda: read_chat(service, read_json(body)))
    _check(service.engine, chat)
    stream = service.stream()
    answer = _Answer(chat)
    work = _work(service, stream, chat)
    if chat.stream:
        events = _chunks(service, stream, work, answer)
        return StreamedAnswer(await while_connected(request, from_first(events)), stream)
    for event in await all_in_thread(request, service, stream, work):
        answer.add(event)
    return JSONResponse(answer.whole())


def _check(engine: Engine, chat: ChatRequest) -> None:
    """Raises ApiError for what this bundle cannot be asked."""
    if not any(turn.sounds for turn in chat.turns):
        if not engine.bundle.manifest.llm.chats:
            raise unsupported("this bundle only knows about sound: add an input_audio part", "messages")
        if not all(turn.text for turn in chat.turns):
            raise invalid("a message has no text", "messages")


def _work(service: Service, stream: EngineStream, chat: ChatRequest) -> Callable[[], Iterator[DialogueEvent]]:
    def work() -> Iterator[DialogueEvent]:
        engine = service.engine
        try:
            turns = [_turn(engine, turn, hears=any(turn.sounds for turn in chat.turns)) for turn in chat.turns]
            yield from answer_dialogue(service, stream, chat.system, turns, _generation(engine, chat))
        finally:
            for turn in chat.turns:
                for sound in turn.sounds:
                    sound.close()

    return work


def _turn(engine: Engine, turn: Turn, hears: bool) -> DialogueTurn:
    """A task's name stands for its prompt where there is sound. Several sounds are named where they stand."""
    sounds = tuple(sound.path for sound in turn.sounds)
    tag = engine.prompt.audio_tag
    if not sounds:
        return DialogueTurn(nonempty(turn.text), (), turn.answer or "")
    if len(sounds) > 1 and tag is None:
        raise InputError(f"this bundle hears one sound in a message, but {len(sounds)} were given: send one")
    if len(sounds) > 1:
        text = " ".join(part if isinstance(part, str) else str(tag) for part in turn.parts)
    else:
        text = turn.text or default_prompt(engine)
    return DialogueTurn(engine.prompt.prompt_for(text), sounds, turn.answer or "")


def _generation(engine: Engine, chat: ChatRequest) -> Generation:
    return replace(
        engine.defaults,
        beams=1,
        max_new_tokens=chat.max_new_tokens or engine.defaults.max_new_tokens,
        temperature=chat.temperature,
        top_p=chat.top_p,
        seed=chat.seed,
        stop=chat.stop,
        gbnf=None if chat.json_schema is None else JsonSchema(chat.json_schema).gbnf,
    )


class _Answer:
    """What came of a request so far, as the client reads it."""

    def __init__(self, chat: ChatRequest) -> None:
        self._finals: list[Final] = []
        self._read = DialogueRead(0, 0)
        self._head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": chat.model}
        self.with_usage = chat.stream and chat.with_usage

    def add(self, event: DialogueEvent) -> None:
        """The next event."""
        if isinstance(event, Final):
            self._finals.append(event)
        elif isinstance(event, DialogueRead):
            self._read = event

    @property
    def finish_reason(self) -> str:
        """In the client's words."""
        return "length" if any(final.finish_reason in CUT for final in self._finals) else "stop"

    @property
    def usage(self) -> dict[str, Any]:
        """In tokens."""
        n_prompt = self._read.n_prompt_tokens
        n_new = sum(len(final.token_ids) for final in self._finals)
        return {
            "prompt_tokens": n_prompt,
            "completion_tokens": n_new,
            "total_tokens": n_prompt + n_new,
            "prompt_tokens_details": {"audio_tokens": self._read.n_audio_tokens},
        }

    def whole(self) -> dict[str, Any]:
        """All of it at once."""
        text = BETWEEN.join(final.text for final in self._finals if final.text)
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self.finish_reason}
        return {**self._head, "object": "chat.completion", "choices": [choice], "usage": self.usage}

    def chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        """A part of a streamed answer."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._chunk([choice], None)

    def usage_chunk(self) -> bytes:
        """The last part, where it was asked for."""
        return self._chunk([], self.usage)

    def _chunk(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None) -> bytes:
        more = {"usage": usage} if self.with_usage else {}
        return data({**self._head, "object": "chat.completion.chunk", "choices": choices, **more})


async def _chunks(
    service: Service, stream: EngineStream, work: Callable[[], Iterator[DialogueEvent]], answer: _Answer
) -> AsyncGenerator[bytes]:
    deltas = Deltas(BETWEEN)
    begun = False
    async with aclosing(in_thread(service, stream, work)) as events:
        async for event in events:
            if not begun:
                begun = True
                yield answer.chunk({"role": "assistant", "content": ""})
            answer.add(event)
            if isinstance(event, Piece) and (text := deltas.add(event.text)):
                yield answer.chunk({"content": text})
            elif isinstance(event, Final):
                deltas.end_segment()
    yield answer.chunk({}, answer.finish_reason)
    if answer.with_usage:
        yield answer.usage_chunk()
    yield data("[DONE]")
