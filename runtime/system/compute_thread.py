"""Compute thread: whoever asks, from whichever thread -> calls into OpenMP made in one thread of this process, in turn.

GCC's OpenMP keeps a team for every thread that has computed with it, and counts them all. As soon as there are more
than cores, its barriers sleep at once instead of spinning for some microseconds first: a pass of SmolLM2-135M takes
38 ms then and not 12. A server's sessions are threads; with one thread that computes there is one team.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class ComputeThread:
    """Started with its first call; it ends with the process."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def run(self, call: Callable[[], T]) -> T:
        """What the call returns or raises. A signal's exception waits until it is over."""
        self._start()
        answer: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self._calls.put((call, answer))
        signalled: BaseException | None = None
        while True:
            try:
                result, error = answer.get()
                break
            except BaseException as raised:  # by a signal's handler: what the call works on is still in use
                signalled = signalled or raised
        if failed := signalled or error:
            raise failed
        return result

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, args=(self._calls,), name=self._name, daemon=True)
                self._thread.start()

    def _work(self, calls: SimpleQueue[tuple[Callable[[], Any], SimpleQueue[Any]]]) -> None:
        while True:
            call, answer = calls.get()
            try:
                answer.put((call(), None))
            except BaseException as error:
                answer.put((None, error))
            del call, answer

    def _forget(self) -> None:
        """A process that was forked off has none of its parent's threads."""
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._calls: SimpleQueue[tuple[Callable[[], Any], SimpleQueue[Any]]] = SimpleQueue()


llm_thread = ComputeThread("auricle-llm")
"""Where llama.cpp computes with more than one thread."""
