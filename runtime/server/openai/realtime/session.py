"""GET /v1/realtime: a client's events -> sound that is heard, a conversation, answers.

    receive ─► handlers ─► outbox ─► deliver
                  ▲
    live session ─┘

One task each: who receives never waits for the model, nor for a client that does not read.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from starlette.requests import ClientDisconnect
from starlette.websockets import WebSocket, WebSocketDisconnect

from .....models.audio import Waveform
from .....models.errors import AuricleError
from ....audio.resample import Resampler
from ....scheduler import Cancelled
from ...errors import ApiError, api_error, invalid, missing
from ...service import Service, service_of
from ..json_fields import Fields, read_json
from .configuration import SessionConfiguration, first_configuration, session_of, updated
from .hearing import Hearing
from .items import Items
from .outbox import Outbox, new_id
from .responses import Responses

PROTOCOL = "realtime"
"""The subprotocol that is chosen where some are offered; never the one with the key."""
CAPTIONS = "auricle.captions"
"""?auricle=auricle.captions: unstable text too."""
APPEND = "input_audio_buffer.append"
LARGE = 1 << 18
"""Characters of a message that is decoded beside the event loop."""
LAST_WORDS_SECONDS = 6.0
"""For what is open when the server stops; less than it waits for."""
CLOSE_SECONDS = 1.0
INTERNAL_ERROR, RESTARTING = 1011, 1012
P = ParamSpec("P")
T = TypeVar("T")


async def realtime(websocket: WebSocket) -> None:
    """One session."""
    service = service_of(websocket)
    try:
        configuration = first_configuration(service, websocket.query_params, new_id("sess"))
    except ApiError as error:
        await websocket.send_denial_response(error.response())
        return
    await websocket.accept(PROTOCOL if PROTOCOL in websocket.scope.get("subprotocols", ()) else None)
    captions = CAPTIONS in websocket.query_params.getlist("auricle")
    await RealtimeSession(service, configuration, captions).run(websocket)


class RealtimeSession:
    """One client's."""

    def __init__(self, service: Service, configuration: SessionConfiguration, captions: bool) -> None:
        self._service = service
        self._now = configuration
        self._outbox = Outbox()
        self._items = Items(self._outbox)
        self._hearing = Hearing(service, self._outbox, self._items, configuration, captions)
        self._resampler = Resampler()
        self._handlers: dict[str, Callable[[Fields], object]] = {
            "session.update": self._update,
            "input_audio_buffer.commit": self._commit,
            "input_audio_buffer.clear": self._clear,
            "conversation.item.create": lambda event: self._items.create(event, self._now.format),
            "conversation.item.retrieve": self._items.retrieve,
            "conversation.item.delete": self._items.delete,
            "conversation.item.truncate": self._items.truncate,
        }
        self._responses = Responses(service, self._outbox, self._items, self._hearing.settled)
        if configuration.kind == "realtime":
            self._handlers["response.create"] = lambda event: self._responses.create(event, self._now)
            self._handlers["response.cancel"] = self._responses.cancel
            self._hearing.on_speech = self._interrupt
            self._hearing.on_turn = self._answer

    async def run(self, websocket: WebSocket) -> None:
        """Until the client goes, or the server stops."""
        self._outbox.emit("session.created", session=self._now.as_json())
        code = INTERNAL_ERROR
        sending = asyncio.create_task(self._outbox.deliver(websocket.send_text))
        hearing = asyncio.create_task(self._hearing.run())
        receiving = asyncio.create_task(self._receive(websocket))
        ending = [asyncio.create_task(event.wait()) for event in (self._outbox.full, self._service.stopping)]
        tasks: list[asyncio.Task[Any]] = [sending, hearing, receiving, *ending]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if self._service.stopping.is_set():
                code = RESTARTING
                receiving.cancel()
                await self._last_words(hearing, sending)
            for task in (sending, hearing, receiving):
                if task.done() and not task.cancelled():
                    with contextlib.suppress(WebSocketDisconnect, ClientDisconnect, Cancelled):
                        task.result()
        finally:
            tasks += [answering] if (answering := self._responses.task) else []
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await _close(websocket, code)

    async def _last_words(self, hearing: asyncio.Task[None], sending: asyncio.Task[None]) -> None:
        deadline = time.monotonic() + LAST_WORDS_SECONDS
        self._hearing.finish()
        await asyncio.wait([hearing], timeout=LAST_WORDS_SECONDS)
        while (answering := self._responses.task) is not None and time.monotonic() < deadline:
            await asyncio.wait([answering], timeout=deadline - time.monotonic())
        self._outbox.end()
        await asyncio.wait([sending], timeout=1.0)

    async def _receive(self, websocket: WebSocket) -> None:
        while (message := await websocket.receive())["type"] == "websocket.receive":
            text = message.get("text")
            if text is None:
                self._outbox.error(invalid("events are JSON in text frames, not binary ones"))
            else:
                await self._handle(text)

    async def _handle(self, text: str) -> None:
        event_id: object = None
        try:
            beside = asyncio.to_thread if len(text) > LARGE else _at_once
            event = await beside(read_json, text.encode("utf-8", "replace"))
            event_id = event.value("event_id")
            kind = event.text("type")
            if kind == APPEND:
                self._hearing.push(await beside(self._waveform, event))
            elif not kind:
                raise missing("type")
            elif (handler := self._handlers.get(kind)) is None:
                raise invalid(f"Invalid value: '{kind}'", "type")
            else:
                handler(event)
        except (ApiError, AuricleError) as error:
            self._outbox.error(api_error(error), event_id)

    def _waveform(self, event: Fields) -> Waveform:
        if "audio" not in event:
            raise missing("audio")
        sound = self._now.format.decode(event.text("audio"), "audio")
        return self._resampler.push(sound, self._now.format.rate)

    def _interrupt(self) -> None:
        if self._now.turn_detection is not None and self._now.turn_detection.interrupt_response:
            self._responses.interrupt("turn_detected")

    def _answer(self) -> None:
        if self._now.turn_detection is not None and self._now.turn_detection.create_response:
            self._responses.follow(self._now)

    def _update(self, event: Fields) -> None:
        self._now = updated(self._service, self._now, session_of(event))
        self._hearing.configure(self._now)
        self._outbox.emit("session.updated", session=self._now.as_json())

    def _commit(self, event: Fields) -> None:
        self._hearing.push(self._resampler.flush())
        self._hearing.commit(event.value("event_id"))

    def _clear(self, _: Fields) -> None:
        self._resampler.flush()
        self._hearing.clear()


async def _at_once(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return function(*args, **kwargs)


async def _close(websocket: WebSocket, code: int) -> None:
    """Where the client is still there, and reads."""
    with contextlib.suppress(TimeoutError, RuntimeError, WebSocketDisconnect, ClientDisconnect):
        async with asyncio.timeout(CLOSE_SECONDS):
            await websocket.close(code)
