"""Exclusive use: a lock that refuses a second thread at once, where waiting would hide that two work on one state."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from ...models.errors import RunError

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound="HasExclusive")
BUSY = "the engine is at work in another thread: use it from one at a time, in turns, or open one for each thread"


class Exclusive:
    """A context manager, reentrant in its thread. Raises RunError where another thread is inside."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise RunError(BUSY)

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def each(self, items: Iterator[R]) -> Iterator[R]:
        """The same items, each made inside; between two of them others may work."""
        while True:
            with self:
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item


class HasExclusive(Protocol):
    """Something whose state one thread at a time may use."""

    exclusive: Exclusive


def exclusively(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """A method that works inside its object's `exclusive`."""

    @functools.wraps(method)
    def inside(self: S, /, *arguments: P.args, **named: P.kwargs) -> R:
        with self.exclusive:
            return method(self, *arguments, **named)

    return inside
