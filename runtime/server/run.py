"""The running server: an opened engine and a socket -> requests answered until SIGTERM or Ctrl-C.

SIGTERM ─► no new work (503) ─► open work ends ─► what is left is cancelled ─► connections are closed
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import ssl
from collections.abc import Callable
from types import FrameType

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from ...models.errors import InputError, RunError
from ..engine import Engine
from .app import create_app
from .options import ServerOptions
from .page.broadcasts import Broadcasts
from .page.local_source import LocalSession, LocalSource
from .service import Service
from .wyoming.discovery import reachable_address
from .wyoming.options import WyomingOptions
from .wyoming.server import WyomingServer

MAX_CONNECTIONS = 500
MAX_MESSAGE = 21 * 1024 * 1024  # bytes of a WebSocket's message
DRAIN_SECONDS, CLOSE_SECONDS = 7.0, 2  # for open work, and for what is left of its connections


def bind(options: ServerOptions | WyomingOptions) -> socket.socket:
    """The address, so that nobody else has it while the model opens. Raises InputError, RunError."""
    try:
        family, *_, place = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror:
        raise InputError(f"host {options.host!r} is not known here: give an address of this machine") from None
    try:
        return socket.create_server(place[:2], family=family, backlog=MAX_CONNECTIONS)
    except OSError as error:
        taken = f"{options.host} port {options.port} cannot be listened on ({os.strerror(error.errno or 0)})"
        raise RunError(f"{taken}: choose another port or host") from None


def serve(
    engine: Engine,
    options: ServerOptions,
    listener: socket.socket,
    started: Callable[[str], None],
    wyoming: tuple[WyomingOptions, socket.socket] | None = None,
    local: LocalSource | None = None,
) -> None:
    """Answer until a signal ends it; it must be the main thread. Raises InputError.

    started: told the address; local: heard from the start, for whoever views it.
    """
    service = Service(engine, options)
    if options.admission:
        service.estimate()
    try:
        beside = None if wyoming is None else WyomingServer(service, *wyoming)
        Server(service, listener, started, beside, local).run([listener])
    finally:
        service.close()


class Server(uvicorn.Server):
    """uvicorn, which lets open work end before it closes connections."""

    def __init__(
        self,
        service: Service,
        listener: socket.socket,
        started: Callable[[str], None],
        wyoming: WyomingServer | None = None,
        local: LocalSource | None = None,
    ) -> None:
        """Raises InputError for a certificate that cannot be used, or a prompt that the model has no room for."""
        broadcasts = Broadcasts()
        super().__init__(_config(service, broadcasts))
        self._service = service
        self._wyoming = wyoming
        self._local = None if local is None else LocalSession(service, broadcasts, local)
        self._listener = listener
        self._tell = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        if self._wyoming is not None:
            await self._wyoming.start()
        if self._local is not None:
            self._local.start()
        self._tell(address(self._service.options, self._listener))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then close."""
        self._service.stopping.set()
        if self._wyoming is not None:
            await self._wyoming.stop()
        if self._local is not None:
            self._local.finish()
        await self._service.drain(DRAIN_SECONDS, lambda: self.force_exit)
        if self._wyoming is not None:
            await self._wyoming.close()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains; a second Ctrl-C does not wait."""
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True


def address(options: ServerOptions, listener: socket.socket) -> str:
    """Where clients find it."""
    host = f"[{options.host}]" if ":" in options.host else options.host
    return f"{'https' if options.tls_cert else 'http'}://{host}:{listener.getsockname()[1]}"


def wyoming_address(listener: socket.socket) -> str:
    """What is typed in Home Assistant."""
    host, port = listener.getsockname()[:2]
    return f"host {reachable_address(listener) or host}, port {port}"


def _config(service: Service, broadcasts: Broadcasts) -> uvicorn.Config:
    """Logs of libraries are for errors only: at other levels they write what was sent."""
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    options = service.options
    config = uvicorn.Config(
        create_app(service, broadcasts),
        http=_protocol(options.header_seconds),
        ws=FinalWebSocket,
        ws_max_size=MAX_MESSAGE,
        lifespan="off",
        log_config=None,
        log_level=logging.ERROR,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=CLOSE_SECONDS,
        ssl_certfile=options.tls_cert,
        ssl_keyfile=options.tls_key,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        files = f"{options.tls_cert} and {options.tls_key}"
        raise InputError(f"{files} are no certificate and its key ({error}): give both as PEM") from None
    return config


class FinalWebSocket(WebSocketsSansIOProtocol):
    """A WebSocket whose connection ends soon after its session, whether the client reads what was sent or not."""

    async def run_asgi(self) -> None:
        """See WebSocketsSansIOProtocol."""
        await super().run_asgi()
        self.loop.call_later(CLOSE_SECONDS, self.transport.abort)


def _protocol(header_seconds: float) -> type[H11Protocol]:
    """HTTP/1.1, in which a connection must say within so many seconds what it wants."""

    class TimedProtocol(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            super().connection_made(transport)
            if len(self.connections) > MAX_CONNECTIONS:
                transport.abort()
            self._time_headers()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._time_headers()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        def _time_headers(self) -> None:
            if self.conn.their_state is not h11.IDLE:
                self._stop_timer()
            elif self._timer is None:
                self._timer = self.loop.call_later(header_seconds, self.transport.close)

        def _stop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return TimedProtocol
