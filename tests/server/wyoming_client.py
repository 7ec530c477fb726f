"""The wyoming package's own client, in the order in which Home Assistant uses it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from auricle.models.audio import SAMPLE_RATE
from auricle.runtime.audio.decode import read_audio
from wyoming.asr import Transcribe
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.event import Event, async_read_event

T = TypeVar("T")
WAIT = 15.0
CHUNK = 1024  # bytes
LAST = ("transcript-stop", "handled-stop", "not-handled", "intent", "not-recognized", "error")


def run(main: Coroutine[Any, Any, T]) -> T:
    async def limited() -> T:
        async with asyncio.timeout(60):
            return await main

    return asyncio.run(limited())


def client(port: int) -> AsyncTcpClient:
    return AsyncTcpClient("127.0.0.1", port, read_timeout=WAIT)


def pcm(clip: Path) -> bytes:
    """16 kHz, 16 bits, mono."""
    return (np.clip(read_audio(clip), -1, 1) * 32767).astype("<i2").tobytes()


def chunks(sound: bytes, size: int = CHUNK, rate: int = SAMPLE_RATE, width: int = 2, channels: int = 1) -> list[Event]:
    parts = [sound[at : at + size] for at in range(0, len(sound), size)]
    return [AudioChunk(rate, width, channels, part).event() for part in parts]


async def send(to: AsyncTcpClient, events: Iterable[Event]) -> None:
    for event in events:
        await to.write_event(event)


async def begin(to: AsyncTcpClient, **transcribe: Any) -> None:
    await send(to, [Transcribe(**transcribe).event(), AudioStart(SAMPLE_RATE, 2, 1).event()])


async def end(to: AsyncTcpClient) -> list[Event]:
    await to.write_event(AudioStop().event())
    return await answer(to)


async def command(to: AsyncTcpClient, sound: Iterable[Event], **transcribe: Any) -> list[Event]:
    """Everything is sent before anything is read."""
    await begin(to, **transcribe)
    await send(to, sound)
    return await end(to)


async def answer(to: AsyncTcpClient) -> list[Event]:
    """Every event up to the one that ends the answer, or the connection."""
    events: list[Event] = []
    while (event := await to.read_event()) is not None:
        events.append(event)
        if event.type in LAST:
            break
    return events


def transcript(events: Iterable[Event]) -> str:
    return next(event.data["text"] for event in events if event.type == "transcript")


@contextlib.asynccontextmanager
async def raw(port: int) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A client that follows no protocol."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def told(port: int, data: bytes) -> list[Event]:
    """What is answered to these bytes until the server closes."""
    async with raw(port) as (reader, writer), asyncio.timeout(WAIT):
        writer.write(data)
        events: list[Event] = []
        while (event := await async_read_event(reader)) is not None:
            events.append(event)
        return events
