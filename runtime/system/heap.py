"""Heap: memory that the C library keeps for later -> given back to the system."""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

TRIM_SECONDS = 10.0
"""At least, between two times at which one who goes on working gives memory back."""


_M_ARENA_MAX = -8  # of glibc's malloc.h


def share_heap() -> None:
    """One heap for all threads that are started from now on, where glibc would give each its own.

    Each keeps the holes of whatever large array it freed last: a server's seven took 20 MB in eight hours.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # macOS and musl, Windows
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def trim_heap() -> None:
    """Give back what was freed, where glibc keeps a heap for each thread; elsewhere nothing happens.

    Threads that take turns at large arrays leave holes in all of these heaps: without this a process grows for hours.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # macOS and musl, Windows
        ctypes.CDLL(None).malloc_trim(0)


def heap_trimmed(items: Iterable[T]) -> Iterator[T]:
    """The same items; between two of them memory is given back now and then."""
    due = time.monotonic() + TRIM_SECONDS
    for item in items:
        yield item
        if time.monotonic() >= due:
            trim_heap()
            due = time.monotonic() + TRIM_SECONDS
