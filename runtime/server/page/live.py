"""GET /live: 16-bit PCM from a microphone -> captions, final texts and what was lost, as JSON.

start ─► PCM, PCM, dropped, PCM, commit, PCM ... stop ─► the last words, ended
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import ExitStack, aclosing
from dataclasses import fields
from typing import Any

import numpy as np
from starlette.websockets import WebSocket

from ....models.errors import AuricleError
from ...audio.resample import Resampler
from ...events import SessionEnded
from ..errors import ApiError, api_error, invalid, log_failure
from ..live_session import LiveSession, StretchEnded
from ..openai.json_fields import Fields, read_json
from ..outbox import Outbox
from ..service import Service, service_of
from ..websocket_session import accept, run_session
from .broadcasts import Broadcast, Broadcasts, broadcasts_of
from .protocol import PROTOCOL, LiveStart, event_json, ledger_json, read_start

MAX_BYTES = 1 << 20
"""Of one message of sound: 32 s at 16 kHz."""
MAX_TEXT = 1 << 18
"""Characters of any other."""
MAX_DROPPED_SECONDS = 3600.0
"""In one message."""


async def live(websocket: WebSocket) -> None:
    """One session."""
    await accept(websocket, PROTOCOL)
    with ExitStack() as stack:
        await LiveConnection(service_of(websocket), broadcasts_of(websocket), stack).run(websocket)


class LiveConnection:
    """One client's."""

    def __init__(self, service: Service, broadcasts: Broadcasts, stack: ExitStack) -> None:
        """stack: closed when the connection is."""
        self._service = service
        self._broadcasts = broadcasts
        self._stack = stack
        self._broadcast: Broadcast | None = None
        self._outbox = Outbox()
        self._resampler = Resampler()
        self._rate = 0
        self._live: LiveSession | None = None
        self._begun = asyncio.Event()
        self._stopped = False
        self._n_commits = 0
        self._handlers: dict[str, Callable[[Fields], None]] = {
            "start": self._start,
            "dropped": self._dropped,
            "commit": lambda _: self._commit(),
            "stop": lambda _: self._finish(),
        }

    async def run(self, websocket: WebSocket) -> None:
        """Until the client stops or goes, or the server stops."""
        await run_session(websocket, self._service, self._outbox, self._hear(), self._receive(websocket), self._finish)

    # what the client sends

    async def _receive(self, websocket: WebSocket) -> None:
        while (message := await websocket.receive())["type"] == "websocket.receive":
            try:
                if (data := message.get("bytes")) is not None:
                    self._push(data)
                else:
                    self._handle(message["text"])
            except (ApiError, AuricleError) as error:
                self._error(error)

    def _handle(self, text: str) -> None:
        if len(text) > MAX_TEXT:
            raise invalid(f"a message has {len(text)} characters, and at most {MAX_TEXT} are taken")
        message = read_json(text.encode("utf-8", "replace"))
        kind = message.text("type")
        if (handler := self._handlers.get(kind)) is None:
            raise invalid(f"'{kind}' is not one of {', '.join(self._handlers)}", "type")
        handler(message)

    def _start(self, message: Fields) -> None:
        if self._begun.is_set():
            raise invalid("the session has begun: connect again for another", "type")
        start: LiveStart = read_start(self._service.engine, message)
        self._rate = start.sample_rate
        self._live = LiveSession(self._service, start.setup)
        if start.name:
            self._broadcast = self._stack.enter_context(self._broadcasts.open(start.name))
        self._begun.set()
        prompt = start.setup.options.prompt
        self._tell({"type": "started", "model": self._service.model.name, "prompt": prompt, "session": start.name})

    def _push(self, data: bytes) -> None:
        session = self._session()
        if len(data) % 2 or len(data) > MAX_BYTES:
            raise invalid(f"a message of {len(data)} bytes: send whole 16-bit samples, at most {MAX_BYTES} bytes")
        samples = np.frombuffer(data, "<i2").astype(np.float32) / np.float32(2**15)
        session.push(self._resampler.push(samples, self._rate))

    def _dropped(self, message: Fields) -> None:
        seconds = message.number("seconds", 0.0, 0.0, MAX_DROPPED_SECONDS)
        self._flushed().lose(seconds)

    def _commit(self) -> None:
        session = self._flushed()
        if not self._stopped:
            self._n_commits += 1
            session.cut()

    def _finish(self) -> None:
        self._stopped = True
        self._begun.set()
        if self._live is not None:
            self._flushed().finish()

    def _session(self) -> LiveSession:
        if self._live is None:
            raise invalid("nothing has begun: send a start with a sample_rate first", "type")
        return self._live

    def _flushed(self) -> LiveSession:
        """The session, with all that came so far."""
        session = self._session()
        session.push(self._resampler.flush())
        return session

    # what it is told

    async def _hear(self) -> None:
        await self._begun.wait()
        if (session := self._live) is None:
            return
        ledgers: list[SessionEnded] = []
        try:
            async with aclosing(session.events()) as events:
                async for event in events:
                    if isinstance(event, StretchEnded):
                        ledgers.append(event.ledger)
                        if len(ledgers) <= self._n_commits:
                            self._tell(ledger_json("committed", event.ledger))
                    elif (told := event_json(event)) is not None:
                        self._tell(told)
        except AuricleError as error:
            log_failure(error)
            self._error(error)
            raise
        self._tell(ledger_json("ended", _sum(ledgers)))

    def _error(self, error: Exception) -> None:
        self._outbox.put(json.dumps({"type": "error", **api_error(error).body}, ensure_ascii=False))

    def _tell(self, event: dict[str, Any]) -> None:
        message = json.dumps(event, ensure_ascii=False)
        self._outbox.put(message)
        if self._broadcast is not None:
            self._broadcasts.tell(self._broadcast, message)


def _sum(ledgers: list[SessionEnded]) -> SessionEnded:
    return SessionEnded(*(sum(getattr(each, field.name) for each in ledgers) for field in fields(SessionEnded)))
