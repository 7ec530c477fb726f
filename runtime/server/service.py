"""Service: an opened engine and its scheduler, shared by every protocol; sessions are counted and ended here.

guard ─► session ─► protocol ─► a stream of the scheduler, in a thread ─► turns on the engine
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from starlette.requests import HTTPConnection

from ...models.errors import AuricleError
from ..engine import Engine
from ..live.estimate import estimate_costs
from ..scheduler import EngineStream, Scheduler
from ..stream_load import LIMIT
from ..system.heap import TRIM_SECONDS, trim_heap
from .errors import ApiError
from .metrics import Metrics
from .options import ServerOptions

POLL_SECONDS = 0.05
THREADS = (
    3  # of a session at most: one that hears, one that answers, one that has not yet noticed that it was cancelled
)


@dataclass(frozen=True)
class ServedModel:
    """How clients see the bundle."""

    name: str
    created: int
    """Seconds since 1970."""


class Service:
    """What the protocols share. Made and closed outside of the event loop, used inside of it."""

    def __init__(self, engine: Engine, options: ServerOptions) -> None:
        self.engine = engine
        self.options = options
        self.metrics = Metrics()
        self.scheduler = Scheduler(engine, self.metrics.turn, n_lanes=options.lanes or engine.usual_lanes)
        self.metrics.watch(self.scheduler, lambda: self.scheduler.load.of(self._n_live))
        manifest = engine.bundle.manifest
        self.model = ServedModel(manifest.name, int(datetime.fromisoformat(manifest.created).timestamp()))
        self.threads = ThreadPoolExecutor(THREADS * options.max_sessions, "auricle-session")
        self.stopping = asyncio.Event()
        """No new work; sessions that are open finish what was said and end."""
        self._folder = tempfile.TemporaryDirectory(prefix="auricle-serve-")
        self._n_sessions = 0
        self._n_live = 0
        self._next_trim = 0.0

    @property
    def uploads(self) -> str:
        """A folder for files of clients, which is empty again when the service is closed."""
        return self._folder.name

    def stream(self) -> EngineStream:
        """A client's turns on the engine."""
        return self.scheduler.stream()

    def estimate(self) -> None:
        """Find out, beside the rest, what live streams take, so that even those are counted who come first."""

        def work() -> None:
            with contextlib.suppress(AuricleError):  # the first client is told
                estimate_costs(self.engine, self.scheduler)

        self.threads.submit(work)

    @contextmanager
    def session(self, protocol: str, live: bool = False) -> Generator[None]:
        """Something that is worked on for a client. Raises ApiError when there are too many, or the server stops.

        live: sound that is answered while it comes; refused where the machine has no time for one more.
        """
        if self.stopping.is_set():
            raise ApiError(503, "The server is stopping: ask again later.")
        if self._n_sessions >= self.options.max_sessions:
            most = self.options.max_sessions
            raise ApiError(429, f"{most} sessions are open, which is the most here.", "rate_limit_exceeded")
        if live and self.options.admission and not self.scheduler.load.admits(self._n_live):
            load = self.scheduler.load.of(self._n_live + 1)
            told = f"One live stream beside {self._n_live} would be a load of {load:.2f}, and {LIMIT} is the most here."
            raise ApiError(429, told, "rate_limit_exceeded")
        self._n_sessions += 1
        self._n_live += live
        self.metrics.sessions.labels(protocol).inc()
        try:
            yield
        finally:
            self._n_sessions -= 1
            self._n_live -= live
            self.metrics.sessions.labels(protocol).dec()
            self._trim()

    def _trim(self) -> None:
        """In a thread, for it takes some milliseconds."""
        now = time.monotonic()
        if now >= self._next_trim or not self._n_sessions:
            self._next_trim = now + TRIM_SECONDS
            with contextlib.suppress(RuntimeError):  # the service is closed
                self.threads.submit(trim_heap)

    async def drain(self, seconds: float, hurried: Callable[[], bool] = lambda: False) -> None:
        """Take no new work, wait for what is open, and end what is left after so many seconds, or when hurried."""
        self.stopping.set()
        deadline = time.monotonic() + seconds
        while self._n_sessions and time.monotonic() < deadline and not hurried():
            await asyncio.sleep(POLL_SECONDS)
        self.scheduler.close()

    def close(self) -> None:
        """End all work and forget the clients' files; the engine stays open. Twice is fine."""
        self.scheduler.close()
        self.threads.shutdown()
        self._folder.cleanup()


def service_of(connection: HTTPConnection) -> Service:
    """The service that a request or a WebSocket belongs to."""
    service = connection.app.state.service
    assert isinstance(service, Service)
    return service
