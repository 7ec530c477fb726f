"""Outbox: messages for a client -> a bounded queue, and from there to the client.

Whoever tells something never waits. A client that does not read fills the queue and is gone; one that reads a little,
and takes longer over a message than the guard allows, is gone too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

MAX_WAITING = 1000


class Outbox:
    """What a client is told, in order."""

    def __init__(self) -> None:
        self.full = asyncio.Event()
        """The client does not read: something could not be told any more."""
        self._messages: asyncio.Queue[str | None] = asyncio.Queue(MAX_WAITING)

    def put(self, message: str) -> None:
        """The next message."""
        self._put(message)

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
