"""GET /v1/realtime: a client's events -> sound that is heard, a conversation, answers.

receive ─► handlers ─► outbox ─► deliver
              ▲
live session ─┘
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from starlette.websockets import WebSocket

from .....models.audio import Waveform
from .....models.errors import AuricleError
from ....audio.resample import Resampler
from ...errors import ApiError, api_error, invalid, missing
from ...service import Service, service_of
from ...websocket_session import accept, run_session
from ..json_fields import Fields, read_json
from .configuration import SessionConfiguration, first_configuration, session_of, updated
from .hearing import Hearing
from .items import Items
from .outbox import EventOutbox, new_id
from .responses import Responses

PROTOCOL = "realtime"
"""The subprotocol."""
CAPTIONS = "auricle.captions"
"""?auricle=auricle.captions: unstable text too."""
APPEND = "input_audio_buffer.append"
LARGE = 1 << 18
"""Characters of a message that is decoded beside the event loop."""
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
    await accept(websocket, PROTOCOL)
    captions = CAPTIONS in websocket.query_params.getlist("auricle")
    await RealtimeSession(service, configuration, captions).run(websocket)


class RealtimeSession:
    """One client's."""

    def __init__(self, service: Service, configuration: SessionConfiguration, captions: bool) -> None:
        self._service = service
        self._now = configuration
        self._outbox = EventOutbox()
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
        try:
            await run_session(
                websocket, self._service, self._outbox, self._work(), self._receive(websocket), self._hearing.finish
            )
        finally:
            if (answering := self._responses.task) is not None:
                answering.cancel()
                await asyncio.gather(answering, return_exceptions=True)

    async def _work(self) -> None:
        await self._hearing.run()
        while (answering := self._responses.task) is not None and not answering.done():
            await asyncio.wait([answering])

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
