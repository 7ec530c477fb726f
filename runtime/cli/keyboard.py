"""Single keys from a terminal, while the program goes on. Where the terminal gives none, there are none."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from typing import TextIO

POLL_SECONDS = 0.1


def keys_work(stream: TextIO | None) -> bool:
    """Whether this is a terminal whose keys are ours: not a pipe, not one that runs something else meanwhile.

    None: what sys.stdin is when the program was started without one.
    """
    if sys.platform == "win32" or stream is None or not stream.isatty():
        return False
    try:
        return os.tcgetpgrp(stream.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return False


class Keys:
    """Calls `press` in a thread of its own for each key; a context manager that gives the terminal back as it was."""

    def __init__(self, stream: TextIO, press: Callable[[str], None]) -> None:
        self._file, self._press = stream.fileno(), press
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._read, name="keys", daemon=True)

    def __enter__(self) -> Keys:
        import termios
        import tty

        self._before = termios.tcgetattr(self._file)
        tty.setcbreak(self._file, termios.TCSANOW)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        import termios

        self._done.set()
        self._thread.join()
        with contextlib.suppress(termios.error):  # a terminal that is gone
            termios.tcsetattr(self._file, termios.TCSANOW, self._before)

    def _read(self) -> None:
        import select

        while not self._done.is_set():
            if not select.select([self._file], [], [], POLL_SECONDS)[0]:
                continue
            try:
                pressed = os.read(self._file, 64)
            except OSError:  # the terminal is gone
                return
            if not pressed:
                return
            if not pressed.startswith(b"\x1b"):  # an arrow or another special key
                for key in pressed.decode("utf-8", "ignore"):
                    self._press(key)
