"""Keyboard: single keys from a terminal while the program goes on -> calls; where a terminal gives none, none."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from typing import TextIO

from ....models.errors import InputError
from ...live.captions import Live, LiveOptions
from ...output.terminal import View

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
        self._file = stream.fileno()
        self._press = press
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


MENU_KEYS = "123456789abcdefgijklmnoprstuvwxyz"  # h and q mean something else


class Menu:
    """Keys that ask something else from the next segment on; the first is what was asked for at the start."""

    def __init__(self, live: Live, view: View, options: LiveOptions) -> None:
        self._live = live
        self._view = view
        self._also = options.also
        named = [name for name, prompt in live.tasks.items() if "{}" not in prompt and name != options.prompt]
        self.tasks = dict(zip(MENU_KEYS, [options.prompt, *named], strict=False))

    def press(self, key: str) -> None:
        """One key; unknown ones do nothing."""
        if key in "qQ\x04":
            self._live.stop()
        elif key in "?hH":
            self._view.notice(
                "\n".join(f"{key}  {task}" for key, task in self.tasks.items()) + "\n+ -  LoRA scale\nq  quit"
            )
        elif key in "+-":
            self._rescale(1 if key == "+" else -1)
        elif key in self.tasks:
            self._live.ask(self.tasks[key], self._also)
            self._view.notice(f"from the next segment on: {self.tasks[key]}")

    def _rescale(self, direction: int) -> None:
        """The LoRA's scale up or down by a tenth of the trained one."""
        step = self._live.trained_scale / 10
        try:
            self._live.set_lora_scale(round(self._live.lora_scale / step + direction) * step)
            self._view.notice(f"from the next segment on: LoRA scale {self._live.lora_scale:.3g}")
        except InputError as error:
            self._view.notice(str(error))
