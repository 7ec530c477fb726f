"""Scheduler: streams that ask for turns in; who waits most urgently gets the next lane of the engine that is free.

    finals  ─►  the update whose caption is oldest  ─►  segments of files

A lane is the engine itself, or another session on its weights: turns on different lanes run side by side. A stream's
own thread asks for a turn and holds it while it uses the lane. Its keywords and its LoRA scale are loaded when the turn
begins and kept when it ends, so that no stream's words reach another.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from functools import partial

from ..models.errors import RunError
from .engine import Engine
from .stream_load import Load

POLL_SECONDS = 0.02


class Priority(IntEnum):
    """Who goes first; within one, who has waited longest."""

    FINAL = 0
    """A segment is complete, and somebody waits for its text."""
    UPDATE = 1
    """Interim text of a segment that is still spoken."""
    BATCH = 2
    """A segment of a file."""


class Cancelled(RunError):
    """The stream was cancelled, or the scheduler closed: what it waited for or decoded is not wanted any more."""


@dataclass
class Request:
    """One stream's wish for a turn."""

    priority: Priority
    waiting_since: float
    asked: float
    """time.monotonic()."""


Order = Callable[[Request], tuple[int, float]]
"""Of those who wait the least is the next."""


def most_urgent(request: Request) -> tuple[int, float]:
    """By priority, then by who has waited longest."""
    return request.priority, request.waiting_since


def first_come(request: Request) -> tuple[int, float]:
    """In the order of asking, whatever for: what a lock would give, for comparison."""
    return 0, request.asked


class Scheduler:
    """Turns on one engine, which nobody uses otherwise meanwhile. Any thread.

    observe: told after every turn its priority, how long it was waited for and how long it was held, in seconds;
    order: who is next; n_lanes: turns at a time. Raises RunError when memory for so many is too small.
    """

    def __init__(
        self,
        engine: Engine,
        observe: Callable[[Priority, float, float], None] | None = None,
        order: Order = most_urgent,
        n_lanes: int = 1,
    ) -> None:
        self.engine = engine
        self.load = Load(n_lanes)
        """What live streams take."""
        self._lora_scale = engine.llm.lora_scale
        self._observe = observe
        self._order = order
        self._changed = threading.Condition()
        self._waiting: list[Request] = []
        self._lanes = engine.lanes(n_lanes)
        self._free = list(self._lanes)
        self.closed = False
        """No turn begins any more."""

    @property
    def n_lanes(self) -> int:
        """Turns that there may be at a time."""
        return len(self._lanes)

    @property
    def n_busy(self) -> int:
        """Turns that are under way."""
        return len(self._lanes) - len(self._free)

    def stream(self) -> EngineStream:
        """Someone who asks for turns, with no keywords and the LoRA scale that the engine had at the beginning."""
        return EngineStream(self, self._lora_scale)

    def waiting(self) -> Counter[Priority]:
        """How many wait, by priority."""
        with self._changed:
            return Counter(request.priority for request in self._waiting)

    def close(self) -> None:
        """Cancel every stream: who waits is told at once, who decodes at its next pass. Twice is fine."""
        self.closed = True
        self.wake()

    def wake(self) -> None:
        """Let everyone who waits look again."""
        with self._changed:
            self._changed.notify_all()

    @contextmanager
    def turn(
        self,
        priority: Priority,
        waiting_since: float,
        check: Callable[[], None],
        promote: Callable[[], bool] | None,
        before: Engine | None,
    ) -> Generator[Engine]:
        """A lane, for as long as the block runs; see EngineStream.turn. check: raises when it is not wanted.

        before: the lane of the last turn, which may hold something of use.
        """
        asked = time.monotonic()
        request = Request(priority, waiting_since, asked)
        lane = self._wait(request, check, promote, before)
        started = time.monotonic()
        try:
            yield lane
        finally:
            with self._changed:
                self._free.append(lane)
                self._changed.notify_all()
            if self._observe is not None:
                self._observe(request.priority, started - asked, time.monotonic() - started)

    def _wait(
        self,
        request: Request,
        check: Callable[[], None],
        promote: Callable[[], bool] | None,
        before: Engine | None,
    ) -> Engine:
        with self._changed:
            self._waiting.append(request)
        try:
            while True:
                with self._changed:
                    check()
                    if self._free and request is min(self._waiting, key=self._order):
                        lane = before if before in self._free else self._free[-1]
                        self._free.remove(lane)
                        return lane
                    self._changed.wait(None if promote is None else POLL_SECONDS)
                if promote is not None and promote():
                    request.priority = Priority.FINAL
                    promote = None
        finally:
            with self._changed:
                self._waiting.remove(request)
                self._changed.notify_all()


class EngineStream:
    """One who asks for turns, one at a time. `cancel` may be called from any thread; Scheduler.stream makes them."""

    def __init__(self, scheduler: Scheduler, lora_scale: float) -> None:
        self.keywords: tuple[str, ...] = ()
        """The engine's keywords in this stream's turns; what a turn changes there is kept here."""
        self.lora_scale = lora_scale
        """The same of the LoRA's scale."""
        self.cancelled = False
        self._scheduler = scheduler
        self._asking = threading.Lock()
        self.lane: Engine | None = None
        """Of the newest turn, which may hold something of use to the next."""

    @property
    def load(self) -> Load:
        """Of all live streams on this engine."""
        return self._scheduler.load

    @contextmanager
    def turn(
        self, priority: Priority, waiting_since: float | None = None, promote: Callable[[], bool] | None = None
    ) -> Generator[Engine]:
        """Wait for a lane of the engine and have it alone while the block runs.

        waiting_since: time.monotonic() of what the listener saw last, now when None. promote: asked again and again
        meanwhile, whether this has become a final. Raises Cancelled, here and at any pass of the language model;
        InputError for keywords or a LoRA scale that the bundle cannot use.
        """
        if not self._asking.acquire(blocking=False):
            raise AssertionError("a stream asked for a second turn")
        try:
            since = time.monotonic() if waiting_since is None else waiting_since
            with self._scheduler.turn(priority, since, self.check, promote, self.lane) as engine:
                self.lane = engine
                self._load(engine)
                try:
                    yield engine
                finally:
                    self._keep(engine)
        finally:
            self._asking.release()

    def cancel(self) -> None:
        """Nobody wants what this stream does: a turn that is waited for is withdrawn, a decode ends at its next pass.

        Twice is fine.
        """
        self.cancelled = True
        self._scheduler.wake()

    def check(self) -> None:
        """Raises Cancelled where the stream was cancelled or the scheduler closed."""
        if self.cancelled:
            raise Cancelled("the client has gone: nobody waits for the answer")
        if self._scheduler.closed:
            raise Cancelled("the server stops: ask again when it is back")

    def _load(self, engine: Engine) -> None:
        if engine.keywords != self.keywords:
            engine.keywords = self.keywords
        if engine.llm.lora_scale != self.lora_scale:
            engine.llm.set_lora_scale(self.lora_scale)
        engine.llm.before_pass = partial(self._before_pass, engine)

    def _before_pass(self, engine: Engine) -> None:
        self.check()
        engine.llm.share_cores(self._scheduler.n_busy)

    def _keep(self, engine: Engine) -> None:
        engine.llm.before_pass = None
        engine.llm.share_cores(1)
        self.keywords = engine.keywords
        self.lora_scale = engine.llm.lora_scale
