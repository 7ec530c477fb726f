"""Framing: a client's bytes -> events, within limits.

    {"type": ..., "data_length": D, "payload_length": P}\n    D bytes of JSON    P bytes

The package's own reader believes every length and waits for ever.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

from wyoming.event import Event

from ..errors import ApiError

MAX_LINE = 64 * 1024
MAX_DATA = 256 * 1024
"""A list of names for a large house."""
MAX_PAYLOAD = 1024 * 1024


class EventReader:
    """Events of one connection, one after the other; its stream was made with limit=MAX_LINE."""

    def __init__(self, stream: asyncio.StreamReader, seconds: float) -> None:
        """seconds: for an event to arrive, once it has begun."""
        self._stream = stream
        self._seconds = seconds
        self._first = b""

    async def begun(self) -> bool:
        """Wait for the next event to begin; False: the client has gone. It may be cancelled and called again."""
        try:
            self._first = self._first or await self._stream.read(1)
        except OSError:  # the connection broke; once it has, every read says so
            return False
        return bool(self._first)

    async def read(self) -> Event | None:
        """The event that has begun; None when the client goes away inside of it. Raises ApiError."""
        first = self._first
        self._first = b""
        try:
            async with asyncio.timeout(self._seconds):
                return await self._event(first)
        except TimeoutError:
            raise ApiError(408, f"An event takes at most {self._seconds:g} s to arrive.", "timeout") from None
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def _event(self, first: bytes) -> Event:
        try:
            line = first if first == b"\n" else first + await self._stream.readuntil(b"\n")
        except asyncio.LimitOverrunError:
            raise bad_event(f"an event's line is longer than {MAX_LINE} bytes") from None
        head = _object(line, "an event's line")
        kind = head.get("type")
        if not isinstance(kind, str):
            raise bad_event("an event has no type")
        n_data = _length(head, "data_length", MAX_DATA)
        n_payload = _length(head, "payload_length", MAX_PAYLOAD)
        data = _mapping(head.get("data", {}), "an event's data")
        if n_data:
            data |= _object(await self._stream.readexactly(n_data), "an event's data")
        return Event(kind, data, await self._stream.readexactly(n_payload) if n_payload else None)


def bad_event(message: str) -> ApiError:
    """What a client is told whose bytes cannot be followed."""
    return ApiError(400, message, "bad_event")


def _object(text: bytes, what: str) -> dict[str, Any]:
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    return _mapping(value, what)


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise bad_event(f"{what} must be a JSON object")
    return cast(dict[str, Any], value)


def _length(head: dict[str, Any], name: str, most: int) -> int:
    value = head.get(name)
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value <= most:
        raise bad_event(f"{name} must be 0 to {most}")
    return value
