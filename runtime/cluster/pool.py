"""Pool: Ray's actors -> workers that are started, given clips, and replaced where they or their nodes end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ...models.errors import RunError
from ..bundle import Bundle
from ..cli.caption import CaptionCommand
from .bundle_cache import CachedBundle, Pieces, pieces_of
from .jobs import Captioned, Long, Lost, Task
from .worker import NO_BUNDLE, OPENED, Worker

WAIT_S = 5.0
START_S = 600.0
"""So long no worker at all is awaited: a large bundle is copied, or a cluster grows."""
MAX_STARTS = 3
"""Of workers that end before they opened their bundle, one after the other."""


@dataclass(frozen=True)
class WorkerOptions:
    """How many workers there are, and what Ray sets aside for each."""

    n: int
    cpus: float = 1.0
    gpus: float = 0.0


class RayPool:
    """A jobs.Pool. ray: the module, connected."""

    def __init__(
        self, ray: Any, command: CaptionCommand, bundle: Bundle, cached: CachedBundle | None, options: WorkerOptions
    ) -> None:
        self.n_ended = 0
        """Workers that were lost."""
        self._ray = ray
        self._bundle = bundle
        self._pieces: Pieces | None = None
        placed = {"num_cpus": options.cpus, "num_gpus": options.gpus, "scheduling_strategy": "SPREAD"}
        self._worker = ray.remote(**placed)(Worker)
        self._words = (command, cached, options.n)
        self._opening: dict[Any, Any] = {}  # an answer that is awaited: its actor
        self._busy: dict[Any, tuple[Any, Task]] = {}
        self._idle: list[Any] = []
        self._n_ended_early = 0
        self._problem = ""
        self._since = time.monotonic()
        """When there was a worker last."""
        for _ in range(options.n):
            self._start()

    @property
    def idle(self) -> int:
        """See Pool."""
        return len(self._idle)

    def give(self, task: Task) -> None:
        """See Pool."""
        actor = self._idle.pop()
        self._busy[actor.caption.remote(task)] = (actor, task)

    def wait(self) -> Sequence[Captioned | Long | Lost]:
        """See Pool; nothing after WAIT_S."""
        awaited = [*self._busy, *self._opening]
        if not awaited:
            raise RunError(f"no worker is left: {self._problem}")
        ready: list[Any] = self._ray.wait(awaited, num_returns=1, timeout=WAIT_S)[0]
        if self._busy or self._idle or ready:
            self._since = time.monotonic()
        elif time.monotonic() - self._since > START_S:
            raise RunError(
                f"no worker could be started in {START_S:.0f} s: see `ray status` for nodes and their free cores"
            )
        results: list[Captioned | Long | Lost] = []
        for ref in ready:
            if ref in self._opening:
                self._opened(self._opening.pop(ref), ref)
            else:
                results.append(self._captioned(*self._busy.pop(ref), ref))
        return results

    def _start(self) -> None:
        actor = self._worker.remote(*self._words)
        self._opening[actor.open.remote()] = actor

    def _opened(self, actor: Any, ref: Any) -> None:
        try:
            answer: str = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            self._n_ended_early += 1
            self._ended(actor, f"a worker ended while it opened the bundle ({_sentence(error)})")
            if self._n_ended_early < MAX_STARTS:
                self._start()
            return
        if answer == OPENED:
            self._n_ended_early = 0
            self._idle.append(actor)
        elif answer == NO_BUNDLE:
            self._opening[actor.open.remote(self._sent())] = actor
        else:
            self._ended(actor, answer)

    def _captioned(self, actor: Any, task: Task, ref: Any) -> Captioned | Long | Lost:
        try:
            result: Captioned | Long = self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:  # the worker lives
            self._idle.append(actor)
            return Lost(task, _sentence(error))
        except self._ray.exceptions.RayError as error:
            reason = f"its worker ended ({_sentence(error)})"
            self._ended(actor, reason)
            self._start()
            return Lost(task, "its worker ended")
        self._idle.append(actor)
        return result

    def _ended(self, actor: Any, problem: str) -> None:
        self.n_ended += 1
        self._problem = problem
        with contextlib.suppress(Exception):  # it may be cut off and not dead
            self._ray.kill(actor)

    def _sent(self) -> Pieces:
        """The bundle in Ray's object store, for nodes that have no copy."""
        if self._pieces is None:
            put: Callable[[bytes], Any] = self._ray.put
            self._pieces = pieces_of(self._bundle, put)
        return self._pieces


def _sentence(error: Any) -> str:
    """Of an error that was raised in a worker, or by Ray, its first line."""
    cause = getattr(error, "cause", None)
    told = cause if isinstance(cause, BaseException) else error
    lines = str(told).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(told).__name__
