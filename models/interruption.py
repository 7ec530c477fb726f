"""Interruption: Ctrl-C, SIGTERM and a closed terminal -> Interrupted, at once or when what was computed is saved.

signals_wait ──────────────────────────────────────────────┐
  interruptible(events): next ─► Interrupted, at once      │
  what is done with an event, and after the last: saved    │ ─► Interrupted, afterwards
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

T = TypeVar("T")
PATIENCE_S = 5.0
"""A signal that comes so long after another was put off does not wait: what is saved may hang."""


class Interrupted(KeyboardInterrupt):
    """A signal asked the program to end."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


class _State:
    """Of this process, as signals are."""

    waits = False  # inside signals_wait
    open = False  # but inside the next() of interruptible
    put_off: tuple[int, float] | None = None  # a signal that waits, and since when


def interrupt(number: int, _frame: FrameType | None = None) -> None:
    """The handler: raises Interrupted, unless signals wait here."""
    first = _State.put_off or (number, time.monotonic())
    if _State.waits and not _State.open and time.monotonic() - first[1] < PATIENCE_S:
        _State.put_off = first
        return
    _State.open = False  # the next one must not tear what saves after this
    raise Interrupted(number)


@contextmanager
def on_signals(handler: Callable[[int, FrameType | None], None]) -> Generator[None]:
    """Calls it for each signal, but for those that are ignored, as under nohup; only from the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    for number, old in before.items():
        if old not in (None, signal.SIG_IGN):
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            if old is not None:
                signal.signal(number, old)


@contextmanager
def signals_wait() -> Generator[None]:
    """Signals interrupt inside `interruptible`, and behind this block; nowhere else in it."""
    _State.waits = True
    try:
        yield
        _State.waits = False
        _raise_put_off()
    finally:
        _State.waits = False
        _State.put_off = None


def interruptible(events: Iterable[T]) -> Iterator[T]:
    """The same events; where signals wait, one still ends the wait for the next event."""
    iterator = iter(events)
    while True:
        _State.open = True
        try:
            _raise_put_off()
            event = next(iterator)
        except StopIteration:
            return
        finally:
            _State.open = False
        yield event


def _raise_put_off() -> None:
    if _State.put_off is not None:
        raise Interrupted(_State.put_off[0])
