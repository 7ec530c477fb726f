"""A microphone, or whatever else this machine hears -> captions that can be viewed, without a client who feeds them.

source ─► a thread that reads it ─► a live session, as a client's ─► a broadcast ─► /live/view
"""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from ....models.errors import AuricleError
from ...engine import Engine
from ...events import AudioDropped, DeviceFound
from ...live.captions import LiveOptions
from ...output.remarks import remark
from ...scheduler import Cancelled
from ...sources.source import Chunk, Source, SourceItem
from ...sources.until_error import UntilError
from ..errors import LOG, ApiError, api_error, log_failure
from ..live_session import LiveSession, LiveSetup, StretchEnded
from ..service import Service
from .broadcasts import Broadcast, Broadcasts
from .protocol import event_json, ledger_json

NAME = "source"
"""Of its session."""
READ_SECONDS = 0.5


@dataclass(frozen=True)
class LocalSource:
    """What is heard, by the clock, and how. The source stays the caller's, to be closed."""

    source: Source
    setup: LiveSetup

    @classmethod
    def of(cls, engine: Engine, source: Source, prompt: str) -> LocalSource:
        """prompt: a task or a prompt. Raises InputError when the model cannot be asked so."""
        setup = LiveSetup(LiveOptions(prompt=engine.prompt.prompt_for(prompt)))
        setup.require_room(engine)
        return cls(source, setup)


class LocalSession:
    """One source's captions, from the server's start to the source's end or the server's."""

    def __init__(self, service: Service, broadcasts: Broadcasts, local: LocalSource) -> None:
        self._service = service
        self._broadcasts = broadcasts
        self._source = UntilError(local.source)
        self._live = LiveSession(service, local.setup)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Hear from here on; in the event loop."""
        self._service.threads.submit(self._read, asyncio.get_running_loop())
        self._task = asyncio.create_task(self._hear())

    def finish(self) -> None:
        """Hear no more; what was heard is still answered. Twice is fine."""
        self._source.close()

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        while (items := self._source.read(READ_SECONDS)) is not None:
            loop.call_soon_threadsafe(self._push, items)
        loop.call_soon_threadsafe(self._live.finish)

    def _push(self, items: list[SourceItem]) -> None:
        for item in items:
            if isinstance(item, Chunk):
                self._live.push(item.waveform)
            else:
                LOG.warning("%s: %s", NAME, remark(item))
                if isinstance(item, AudioDropped | DeviceFound):
                    self._live.lose(item.seconds if isinstance(item, AudioDropped) else item.seconds_lost)

    async def _hear(self) -> None:
        try:
            with self._service.session(NAME, live=True), self._broadcasts.open(NAME) as broadcast:
                await self._caption(broadcast)
        except (ApiError, Cancelled) as error:
            LOG.warning("%s: %s", NAME, error)
        finally:
            self.finish()

    async def _caption(self, broadcast: Broadcast) -> None:
        try:
            async with aclosing(self._live.events()) as events:
                async for event in events:
                    if isinstance(event, StretchEnded):
                        self._tell(broadcast, ledger_json("ended", event.ledger))
                    elif (told := event_json(event)) is not None:
                        self._tell(broadcast, told)
            if self._source.error is not None:
                LOG.warning("%s: %s", NAME, self._source.error)
                raise self._source.error
        except AuricleError as error:
            log_failure(error)
            self._tell(broadcast, {"type": "error", **api_error(error).body})

    def _tell(self, broadcast: Broadcast, event: dict[str, Any]) -> None:
        self._broadcasts.tell(broadcast, json.dumps(event, ensure_ascii=False))
