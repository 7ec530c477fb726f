"""Heap: memory that the C library keeps for later -> given back to the system."""

from __future__ import annotations

import contextlib
import ctypes


def trim_heap() -> None:
    """Give back what was freed, where glibc keeps a heap for each thread; elsewhere nothing happens.

    Threads that take turns at large arrays leave holes in all of these heaps: without this a server grows for hours.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # macOS and musl, Windows
        ctypes.CDLL(None).malloc_trim(0)
