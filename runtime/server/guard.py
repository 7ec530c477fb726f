"""Guard: every request and WebSocket -> let in, or refused before anything of it is read or accepted.

    Host ─► Origin ─► key ─► is there room? ─► the application, its body counted and timed while it comes

Plain ASGI, for middlewares of HTTP alone do not see WebSockets. A page of another address can send requests here and
open WebSockets: Host shows that its name was bent to this machine, Origin which page it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import secrets
import socket
import time
from collections.abc import Collection
from contextlib import ExitStack
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import ApiError, api_error, log_failure
from .options import ServerOptions, is_address
from .service import Service

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
KEY_PROTOCOL = "openai-insecure-api-key."
"""What a browser's subprotocol begins with that carries the key."""
SLOWEST_BYTES = 16 * 1024  # a second, of a body
LINGER_BODIES, LINGER_SECONDS = 4, 5.0  # how much of a body that is too large is read before its sender is told
OVERHEAD = 1024 * 1024  # bytes of a request beside its sound
LIVE = ("realtime", "live")
"""Protocols whose sound is answered while it comes; who only views captions needs nothing of the engine."""


class Guard:
    """Wraps the application of a service."""

    def __init__(self, app: ASGIApp, service: Service, protocols: dict[str, str], public: Collection[str] = ()) -> None:
        """protocols: by path, what a session there is called in the metrics. public: paths that need no key."""
        self._app = app
        self._service = service
        self._options = service.options
        self._protocols = protocols
        self._public = public
        self._hosts = _own_names(service.options)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        body = _Body(receive, self._options, headers.get("content-length", "")) if scope["type"] == "http" else None
        sender = _Sender(send, self._options.send_seconds, self._shared_with(headers), body)
        try:
            with ExitStack() as stack:
                if scope["type"] == "http" and scope["method"] == "OPTIONS":
                    self._check_page(headers)
                    return await _preflight(headers)(scope, receive, sender)
                self._check(scope, headers)
                if scope["type"] == "websocket" or scope["method"] == "POST":
                    protocol = self._protocols.get(scope["path"], "other")
                    stack.enter_context(self._service.session(protocol, live=protocol in LIVE))
                await self._app(scope, body or receive, sender)
        except ClientDisconnect:
            pass
        except Exception as error:
            log_failure(error, sender.request_id)
            if not sender.started:
                await _refuse(api_error(error), scope, receive, sender)

    def _check(self, scope: Scope, headers: Headers) -> None:
        """Raises ApiError."""
        self._check_page(headers)
        if scope["path"] not in self._public:
            self._check_key(headers)

    def _check_page(self, headers: Headers) -> None:
        host = headers.get("host", "")
        name = _hostname(host)
        if name not in self._hosts and (self._options.loopback or not is_address(name)):
            raise ApiError(
                403, f"The host {name!r} is not served here: use {self._options.host}, or --origin.", "host_not_allowed"
            )
        origin = headers.get("origin")
        own = f"{'https' if self._options.tls_cert else 'http'}://{host}"
        if origin is not None and origin.lower() != own.lower() and origin not in self._options.origins:
            raise ApiError(403, f"Pages of {origin} may not ask here: allow it with --origin.", "origin_not_allowed")

    def _check_key(self, headers: Headers) -> None:
        key = self._options.key
        if key is not None and not hmac.compare_digest(_given_key(headers).encode(), key.encode()):
            raise ApiError(401, "Incorrect API key provided.", "invalid_api_key")

    def _shared_with(self, headers: Headers) -> str | None:
        """The page of another address that may read the answer."""
        origin = headers.get("origin")
        return origin if origin in self._options.origins else None


class _Body:
    """Receives a request's body; counted, because what announces its length may lie or be missing, and timed."""

    def __init__(self, receive: Receive, options: ServerOptions, announced: str) -> None:
        self._receive = receive
        self._limit = options.max_upload_bytes * 4 // 3 + OVERHEAD  # in JSON sound is base64
        self._announced = int(announced) if announced.isdecimal() and len(announced) < 16 else 0
        self._end = time.monotonic() + options.body_seconds
        self._n = 0
        self._complete = False

    async def __call__(self) -> Message:
        if self._complete:
            return await self._receive()
        self._check_size(self._announced)
        try:
            async with asyncio.timeout(self._end + self._n / SLOWEST_BYTES - time.monotonic()):
                message = await self._next()
        except TimeoutError:
            raise ApiError(408, "The request came too slowly: send it again.") from None
        self._check_size(self._n)
        return message

    async def discard(self) -> bool:
        """Read what is left, within bounds, and say whether all of it was.

        A client that is answered while it still sends often does not read the answer.
        """
        seconds = min(LINGER_SECONDS, self._end + self._n / SLOWEST_BYTES - time.monotonic())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._complete and self._n < LINGER_BODIES * self._limit:
                    await self._next()
        return self._complete

    def _check_size(self, n: int) -> None:
        if n > self._limit:
            raise ApiError(413, f"The request is larger than {self._limit / 1024 / 1024:.0f} MB: send less at once.")

    async def _next(self) -> Message:
        message = await self._receive()
        self._n += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        return message


class _Sender:
    """Sends; a client that does not take it in time is gone. Of what it still sends itself nothing more is read."""

    def __init__(self, send: Send, seconds: float, origin: str | None, body: _Body | None) -> None:
        self._send = send
        self._seconds = seconds
        self._origin = origin
        self._body = body
        self.started = False
        self.request_id = f"req_{secrets.token_hex(8)}"
        """Clients show it with an error; the log has it too."""

    async def __call__(self, message: Message) -> None:
        self.started = True
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *await self._more_headers()]}
        try:
            async with asyncio.timeout(self._seconds):
                await self._send(message)
        except TimeoutError:
            raise ClientDisconnect from None

    async def _more_headers(self) -> list[tuple[bytes, bytes]]:
        headers = [(b"x-request-id", self.request_id.encode())]
        if self._origin is not None:
            headers += [(b"access-control-allow-origin", self._origin.encode()), (b"vary", b"origin")]
        if self._body is not None and not await self._body.discard():
            headers.append((b"connection", b"close"))
        return headers


def _own_names(options: ServerOptions) -> frozenset[str]:
    """Hosts that this server answers as."""
    names = {*LOOPBACK_NAMES, *(urlsplit(origin).hostname or "" for origin in options.origins)}
    if not options.loopback:
        own = socket.gethostname().lower()
        names |= {options.host.lower(), own, f"{own}.local"}
    return frozenset(names)


def _hostname(host: str) -> str:
    """Of a Host header, without its port; "" for what is none."""
    try:
        parts = urlsplit(f"//{host}")
        plain = parts.netloc == host and "@" not in host and parts.port != 0
    except ValueError:
        return ""
    return (parts.hostname or "") if plain else ""


def _given_key(headers: Headers) -> str:
    """From the header, or in a browser's WebSocket the subprotocol."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key:
        return key.strip()
    offered = [each.strip() for each in headers.get("sec-websocket-protocol", "").split(",")]
    return next((each.removeprefix(KEY_PROTOCOL) for each in offered if each.startswith(KEY_PROTOCOL)), "")


def _preflight(headers: Headers) -> Response:
    """What a page of an allowed address may send."""
    allowed = {"access-control-allow-methods": "GET, POST", "access-control-max-age": "600"}
    if asked := headers.get("access-control-request-headers"):
        allowed["access-control-allow-headers"] = asked
    return Response(status_code=204, headers=allowed)


async def _refuse(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    """As HTTP, also in the place of a WebSocket's handshake."""
    response = error.response()
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008})
        return
    await response(scope, receive, send)
