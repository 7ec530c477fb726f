"""Responses: a request, or the end of a user's turn -> an answer in text, event by event, until it is interrupted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from .....models.errors import AuricleError
from ....events import Final, Piece
from ...errors import ApiError, api_error, invalid
from ...jobs import in_thread
from ...service import Service
from ..deltas import Deltas
from ..json_fields import Fields
from .answers import AnswerRead, Memory, read_questions
from .configuration import SessionConfiguration, limited, output_tokens
from .items import Item, Items, read_item
from .outbox import EventOutbox, new_id

LOG = logging.getLogger("auricle.server")
Reason = Literal["turn_detected", "client_cancelled"]
MAX_METADATA, MAX_KEY, MAX_VALUE = 16, 64, 512
CUT = ("length", "time")


@dataclass(eq=False)
class _Response:
    """One answer while it is made."""

    id: str
    item: Item
    context: list[Item]
    instructions: str
    max_output_tokens: int | None
    metadata: dict[str, str] | None
    conversation_id: str | None
    previous_id: str | None = None
    said: str = ""
    task: asyncio.Task[None] | None = None

    def as_json(self, status: str, details: object, output: list[dict[str, Any]], usage: object) -> dict[str, Any]:
        """As clients read it."""
        return {
            "object": "realtime.response",
            "id": self.id,
            "status": status,
            "status_details": details,
            "output": output,
            "conversation_id": self.conversation_id,
            "output_modalities": ["text"],
            "max_output_tokens": "inf" if self.max_output_tokens is None else self.max_output_tokens,
            "metadata": self.metadata,
            "usage": usage,
        }


class Responses:
    """One session's, one at a time."""

    def __init__(
        self, service: Service, outbox: EventOutbox, items: Items, settled: Callable[[], Awaitable[None]]
    ) -> None:
        """settled: waits until every sound that was committed is there."""
        self._service = service
        self._outbox = outbox
        self._items = items
        self._settled = settled
        self._conversation_id = new_id("conv")
        self._memory = Memory()
        self._active: _Response | None = None
        self._next: SessionConfiguration | None = None
        """Somebody has spoken while an answer was made that is not to be interrupted."""

    @property
    def task(self) -> asyncio.Task[None] | None:
        """Of the answer that is made now."""
        return None if self._active is None else self._active.task

    def create(self, event: Fields, configuration: SessionConfiguration) -> None:
        """For response.create. Raises ApiError."""
        if self._active is not None:
            raise ApiError(
                400,
                f"Conversation already has an active response in progress: {self._active.id}",
                "conversation_already_has_active_response",
            )
        fields = event.object("response")
        conversation = fields.text("conversation", "auto")
        if conversation not in ("auto", "none"):
            raise invalid(f"'{conversation}' is not one of auto, none", fields.name("conversation"))
        instructions = limited(fields.text("instructions"), fields.name("instructions"))
        limit = output_tokens(fields) if "max_output_tokens" in fields else configuration.max_output_tokens
        context = self._context(fields, configuration) if "input" in fields else self._items.all()
        asked = instructions or configuration.instructions
        self._begin(context, asked, limit, _metadata(fields), conversation == "auto")

    def follow(self, configuration: SessionConfiguration) -> None:
        """Answer what was just said, now or as soon as the answer before it is complete."""
        if self._active is not None:
            self._next = configuration
        else:
            limit = configuration.max_output_tokens
            self._begin(self._items.all(), configuration.instructions, limit, None, True)

    def cancel(self, event: Fields) -> None:
        """For response.cancel. Raises ApiError."""
        name = event.text("response_id")
        if self._active is None or (name and name != self._active.id):
            raise ApiError(400, "Cancellation failed: no active response found", "response_cancel_not_active")
        self.interrupt("client_cancelled")

    def interrupt(self, reason: Reason) -> None:
        """End the answer that is made now, if there is one, where it is."""
        if (response := self._active) is None:
            return
        self._next = None
        self._memory = Memory()  # its thread may still use the other for a moment
        if response.task is not None:
            response.task.cancel()
        self._finish(response, "cancelled", {"type": "cancelled", "reason": reason})

    def _context(self, fields: Fields, configuration: SessionConfiguration) -> list[Item]:
        """A response's own input."""
        items: list[Item] = []
        for each in fields.objects("input"):
            if each.text("type") == "item_reference":
                items.append(self._items.known(each, "id"))
            else:
                items.append(read_item(each, configuration.format))
        return items

    def _begin(
        self,
        context: list[Item],
        instructions: str,
        limit: int | None,
        metadata: dict[str, str] | None,
        in_conversation: bool,
    ) -> None:
        item = Item(new_id("item"), "assistant", [], "in_progress")
        conversation_id = self._conversation_id if in_conversation else None
        response = _Response(new_id("resp"), item, context, instructions, limit, metadata, conversation_id)
        self._active = response
        self._outbox.emit("response.created", response=response.as_json("in_progress", None, [], None))
        where = {"response_id": response.id, "output_index": 0}
        self._outbox.emit("response.output_item.added", **where, item=item.as_json())
        if in_conversation:
            response.previous_id = self._items.add(item)
        self._part(response, "response.content_part.added", part={"type": "text", "text": ""})
        response.task = asyncio.create_task(self._run(response))

    async def _run(self, response: _Response) -> None:
        final: Final | None = None
        read = AnswerRead(0, 0)
        deltas = Deltas()
        stream = self._service.stream()
        try:
            await self._settled()
            async with aclosing(in_thread(self._service, stream, lambda: self._work(response, stream))) as events:
                async for event in events:
                    if isinstance(event, Piece):
                        if delta := deltas.add(event.text):
                            response.said += delta
                            self._part(response, "response.output_text.delta", delta=delta)
                    elif isinstance(event, Final):
                        final = event
                    else:
                        read = event
        except Exception as error:
            if not isinstance(error, ApiError | AuricleError):
                LOG.error("%s while a response was made", type(error).__name__)
            told = api_error(error).body["error"]
            self._memory = Memory()
            self._finish(response, "failed", {"type": "failed", "error": told})
            return
        assert final is not None
        response.said = final.text
        usage = _usage(read, len(final.token_ids))
        if final.finish_reason in CUT:
            details = {"type": "incomplete", "reason": "max_output_tokens"}
            self._finish(response, "incomplete", details, usage)
        else:
            self._finish(response, "completed", None, usage)

    def _work(self, response: _Response, stream: Any) -> Iterator[Piece | Final | AnswerRead]:
        engine = self._service.engine
        system, questions = read_questions(engine, response.context, response.instructions)
        limit = response.max_output_tokens or engine.defaults.max_new_tokens
        generation = replace(engine.greedy_defaults, max_new_tokens=limit)
        yield from self._memory.answer(self._service, stream, system, questions, generation)

    def _finish(self, response: _Response, status: str, details: object, usage: dict[str, Any] | None = None) -> None:
        item = response.item
        item.status = "completed" if status == "completed" else "incomplete"
        item.content = [{"type": "output_text", "text": response.said}]
        self._part(response, "response.output_text.done", text=response.said)
        self._part(response, "response.content_part.done", part={"type": "text", "text": response.said})
        if response.conversation_id is not None:
            self._items.done(item, response.previous_id)
        told = item.as_json()
        self._outbox.emit("response.output_item.done", response_id=response.id, output_index=0, item=told)
        done = response.as_json(status, details, [told], usage or _usage(AnswerRead(0, 0), 0))
        self._outbox.emit("response.done", response=done)
        self._active = None
        if (following := self._next) is not None:
            self._next = None
            self.follow(following)

    def _part(self, response: _Response, kind: str, **fields: Any) -> None:
        where = {"response_id": response.id, "item_id": response.item.id, "output_index": 0, "content_index": 0}
        self._outbox.emit(kind, **where, **fields)


def _metadata(fields: Fields) -> dict[str, str] | None:
    given = fields.value("metadata")
    name = fields.name("metadata")
    if given is None:
        return None
    if not isinstance(given, dict) or len(cast("dict[str, Any]", given)) > MAX_METADATA:
        raise invalid(f"{name} must be an object of at most {MAX_METADATA} texts", name)
    for key, value in cast("dict[str, Any]", given).items():
        if not isinstance(value, str) or len(key) > MAX_KEY or len(value) > MAX_VALUE:
            raise invalid(f"{name} must hold texts of at most {MAX_VALUE} characters", name)
    return cast("dict[str, str]", given)


def _usage(read: AnswerRead, n_new: int) -> dict[str, Any]:
    n_text = read.n_tokens - read.n_audio_tokens
    return {
        "total_tokens": read.n_tokens + n_new,
        "input_tokens": read.n_tokens,
        "output_tokens": n_new,
        "input_token_details": {"text_tokens": n_text, "audio_tokens": read.n_audio_tokens, "cached_tokens": 0},
        "output_token_details": {"text_tokens": n_new, "audio_tokens": 0},
    }
