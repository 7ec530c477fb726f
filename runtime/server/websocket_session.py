"""WebSocket session: what a client sends, what is worked on and what it is told, until one of them ends.

    receiving ─► working ─► outbox ─► the client

One task each: who receives never waits for the model, nor for a client that does not read.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..scheduler import Cancelled
from .outbox import Outbox
from .service import Service

LAST_WORDS_SECONDS = 6.0
"""For what is open when the server stops; less than it waits for."""
DELIVERY_SECONDS = 1.0
CLOSE_SECONDS = 1.0
NORMAL, INTERNAL_ERROR, RESTARTING = 1000, 1011, 1012


async def accept(websocket: WebSocket, protocol: str) -> None:
    """With this subprotocol where some are offered; never with the one that carries the key."""
    await websocket.accept(protocol if protocol in websocket.scope.get("subprotocols", ()) else None)


async def run_session(
    websocket: WebSocket,
    service: Service,
    outbox: Outbox,
    working: Coroutine[Any, Any, None],
    receiving: Coroutine[Any, Any, None],
    finish: Callable[[], object],
) -> None:
    """Until the client goes, the work is done, or the server stops: then finish() is called and the last words sent.

    Raises what the tasks raise, but for a client that is gone and work that was cancelled.
    """
    code = INTERNAL_ERROR
    sending = asyncio.create_task(outbox.deliver(websocket.send_text))
    work = asyncio.create_task(working)
    coming = asyncio.create_task(receiving)
    ending = [asyncio.create_task(event.wait()) for event in (outbox.full, service.stopping)]
    tasks: list[asyncio.Task[Any]] = [sending, work, coming, *ending]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if service.stopping.is_set():
            code = RESTARTING
            coming.cancel()
            finish()
            await asyncio.wait([work], timeout=LAST_WORDS_SECONDS)
        elif work.done() and work.exception() is None:
            code = NORMAL
        if code == RESTARTING or work.done():
            outbox.end()
            patience = DELIVERY_SECONDS if code == RESTARTING else service.options.send_seconds
            await asyncio.wait([sending], timeout=patience)
        for task in (sending, work, coming):
            if task.done() and not task.cancelled():
                with contextlib.suppress(WebSocketDisconnect, ClientDisconnect, Cancelled):
                    task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await _close(websocket, code)


async def _close(websocket: WebSocket, code: int) -> None:
    """Where the client is still there, and reads."""
    with contextlib.suppress(TimeoutError, RuntimeError, WebSocketDisconnect, ClientDisconnect):
        async with asyncio.timeout(CLOSE_SECONDS):
            await websocket.close(code)
