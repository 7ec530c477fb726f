"""Wyoming's server: a bound socket and a service -> connections, in the loop that also serves HTTP."""

from __future__ import annotations

import asyncio
import socket

from ....models.errors import InputError
from ..errors import ApiError
from ..service import Service
from .answers import Answerer
from .connection import Connection, Shared
from .discovery import Announcement, announce
from .framing import MAX_LINE
from .info import service_info
from .options import WyomingOptions

MAX_CONNECTIONS = 100


class WyomingServer:
    """Made outside of the loop, used inside of it."""

    def __init__(self, service: Service, options: WyomingOptions, listener: socket.socket) -> None:
        """Raises InputError where this bundle cannot do what is asked."""
        answerer = None if options.answers == "none" else Answerer(service.engine, options)
        try:
            info = service_info(service, options)
        except ApiError as error:
            raise InputError(str(error)) from None
        self._shared = Shared(service, options, info, answerer)
        self._listener = listener
        self._server: asyncio.Server | None = None
        self._announcing: asyncio.Task[Announcement | None] | None = None
        self._open: dict[asyncio.Task[None], Connection] = {}

    async def start(self) -> None:
        """Listen, and say so in the network."""
        self._server = await asyncio.start_server(self._connected, sock=self._listener, limit=MAX_LINE)
        self._announcing = asyncio.create_task(announce(self._listener))  # which takes a second

    async def stop(self) -> None:
        """No new connections; commands end with what was said until now. When the service is stopping."""
        if self._server is not None:
            self._server.close()
        for task, connection in self._open.items():
            if connection.busy:
                connection.finish()
            else:
                task.cancel()

    async def close(self) -> None:
        """End what is left."""
        if self._announcing is not None and (announcement := await self._announcing) is not None:
            await announcement.withdraw()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        connection = Connection(self._shared, reader, writer)
        task = asyncio.get_running_loop().create_task(connection.run())
        self._open[task] = connection
        task.add_done_callback(self._open.pop)
