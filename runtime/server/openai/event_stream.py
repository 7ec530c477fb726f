"""Server-sent events as OpenAI's clients read them: objects -> lines of bytes; what goes wrong half way is one more."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from ..errors import api_error, log_failure


def data(event: dict[str, Any] | str) -> bytes:
    """One event."""
    text = event if isinstance(event, str) else json.dumps(event, ensure_ascii=False)
    return f"data: {text}\n\n".encode()


async def from_first(events: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
    """The same events, the first of which has come: what fails before it is still an error with a status of its own."""
    first = await anext(events)
    return _rest(first, events)


async def _rest(first: bytes, events: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    async with aclosing(events):
        yield first
        try:
            async for event in events:
                yield event
        except Exception as error:
            log_failure(error)
            yield data(api_error(error).body)
