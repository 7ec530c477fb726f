"""Broadcasts: what a live session is told -> everybody who views it, by its name or because it is the newest.

Who is told never waits for a viewer: one that does not read fills its outbox and is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket

from ..outbox import Outbox
from ..service import Service, service_of
from ..websocket_session import accept, run_session
from .protocol import PROTOCOL

POLL_SECONDS = 0.05


@dataclass(eq=False)
class Broadcast:
    """One session that can be viewed."""

    name: str
    newest: str = ""
    """What a viewer who comes now is told first."""


@dataclass(eq=False)
class _Viewer:
    name: str | None
    outbox: Outbox = field(default_factory=Outbox)


class Broadcasts:
    """All sessions that can be viewed, and their viewers."""

    def __init__(self) -> None:
        self._open: list[Broadcast] = []
        self._viewers: list[_Viewer] = []

    @property
    def over(self) -> bool:
        """No session is open."""
        return not self._open

    @contextmanager
    def open(self, name: str) -> Generator[Broadcast]:
        """A session that can be viewed until the block ends; an older one of this name cannot be meanwhile."""
        broadcast = Broadcast(name)
        self._open.append(broadcast)
        try:
            yield broadcast
        finally:
            self._open.remove(broadcast)

    @contextmanager
    def viewing(self, name: str | None) -> Generator[Outbox]:
        """What the newest session of this name is told, or of any name, and the next one when it ends."""
        viewer = _Viewer(name)
        self._viewers.append(viewer)
        if (now := self._viewed(name)) is not None and now.newest:
            viewer.outbox.put(now.newest)
        try:
            yield viewer.outbox
        finally:
            self._viewers.remove(viewer)

    def tell(self, broadcast: Broadcast, message: str) -> None:
        """Pass on what a session was told."""
        broadcast.newest = message
        for viewer in self._viewers:
            if self._viewed(viewer.name) is broadcast:
                viewer.outbox.put(message)

    def _viewed(self, name: str | None) -> Broadcast | None:
        return next((each for each in reversed(self._open) if name in (None, each.name)), None)


def broadcasts_of(connection: HTTPConnection) -> Broadcasts:
    """The application's."""
    broadcasts = connection.app.state.broadcasts
    assert isinstance(broadcasts, Broadcasts)
    return broadcasts


async def view(websocket: WebSocket) -> None:
    """GET /live/view: the events of a session that somebody else feeds, and of those that follow it."""
    service = service_of(websocket)
    broadcasts = broadcasts_of(websocket)
    await accept(websocket, PROTOCOL)
    with broadcasts.viewing(websocket.query_params.get("session") or None) as outbox:
        working = _until_over(service, broadcasts)
        await run_session(websocket, service, outbox, working, _until_gone(websocket), lambda: None)


async def _until_over(service: Service, broadcasts: Broadcasts) -> None:
    """When the server stops the last words are still to come."""
    await service.stopping.wait()
    while not broadcasts.over:
        await asyncio.sleep(POLL_SECONDS)


async def _until_gone(websocket: WebSocket) -> None:
    while (await websocket.receive())["type"] == "websocket.receive":
        pass
