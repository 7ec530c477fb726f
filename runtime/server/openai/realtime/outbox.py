"""Outbox: server events -> JSON with an id each, in a bounded queue, and from there to the client.

Whoever tells something never waits. A client that does not read fills the queue and is gone; one that reads a little,
and takes longer over a message than the guard allows, is gone too.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from ...errors import ApiError

MAX_WAITING = 1000


def new_id(kind: str) -> str:
    """One that is nobody else's."""
    return f"{kind}_{secrets.token_hex(10)}"


class Outbox:
    """What a client is told, in order."""

    def __init__(self) -> None:
        self.full = asyncio.Event()
        """The client does not read: something could not be told any more."""
        self._messages: asyncio.Queue[str | None] = asyncio.Queue(MAX_WAITING)

    def emit(self, kind: str, **fields: Any) -> None:
        """An event of this type."""
        self._put(json.dumps({"type": kind, "event_id": new_id("event"), **fields}, ensure_ascii=False))

    def error(self, error: ApiError, event_id: object = None) -> None:
        """event_id: of the client's event that is to blame."""
        told = {**error.body["error"], "event_id": event_id if isinstance(event_id, str) else None}
        self.emit("error", error=told)

    def end(self) -> None:
        """Nothing follows."""
        self._put(None)

    async def deliver(self, send: Callable[[str], Awaitable[None]]) -> None:
        """Send everything until the end. Raises what send raises."""
        while (message := await self._messages.get()) is not None:
            await send(message)

    def _put(self, message: str | None) -> None:
        try:
            self._messages.put_nowait(message)
        except asyncio.QueueFull:
            self.full.set()
