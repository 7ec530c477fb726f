"""Jobs: an iterator that blocks, in a thread of its own -> an asynchronous one; a client that goes away cancels it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from ..scheduler import EngineStream
from .service import Service

T = TypeVar("T")


async def in_thread(service: Service, stream: EngineStream, work: Callable[[], Iterator[T]]) -> AsyncGenerator[T]:
    """What the iterator gives, as it comes. The thread waits for no reader; leaving cancels the stream."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[tuple[T] | Exception | None] = asyncio.Queue()

    def put(item: tuple[T] | Exception | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody reads
            loop.call_soon_threadsafe(arrived.put_nowait, item)

    def run() -> None:
        try:
            for item in work():
                put((item,))
            put(None)
        except Exception as error:
            put(error)

    service.threads.submit(run)
    try:
        while (item := await arrived.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item[0]
    finally:
        stream.cancel()


async def all_in_thread(
    request: Request, service: Service, stream: EngineStream, work: Callable[[], Iterator[T]]
) -> list[T]:
    """Everything that the iterator gives. Raises ClientDisconnect when nobody waits any more."""

    async def collect() -> list[T]:
        async with aclosing(in_thread(service, stream, work)) as items:
            return [item async for item in items]

    return await while_connected(request, collect())


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """The result of what is worked on. Raises ClientDisconnect when the client goes away first."""
    job = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({job, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if not job.done():
            raise ClientDisconnect
        return job.result()
    finally:
        for task in (job, watcher):
            task.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class StreamedAnswer(StreamingResponse):
    """Server-sent events; when they end, or the client goes away, so does the stream behind them."""

    def __init__(self, events: AsyncIterator[bytes], stream: EngineStream) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"cache-control": "no-cache"})
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See StreamingResponse."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._stream.cancel()
