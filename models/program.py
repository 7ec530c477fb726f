"""Program: a command's body in, its exit status out. What standard streams do wrong is a sentence, or nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable

from .interruption import interrupt, on_signals


def run_program(name: str, body: Callable[[], int], stopped: str = "stopped") -> int:
    """The body's status, when all it printed is written; 128 and the signal's number when one interrupted it.

    Output whose reader has gone is no error, one without room is status 1. Output that was closed before the start
    leads nowhere. Other exceptions pass, argparse's SystemExit among them.
    """
    _open_closed_streams()
    status = 0
    try:
        with on_signals(interrupt):
            try:
                status = body()
            except KeyboardInterrupt as interruption:
                status = 128 + getattr(interruption, "number", signal.SIGINT)
                tell(f"{name}: {stopped}")
            finally:
                sys.stdout.flush()
    except BrokenPipeError:
        _lead_nowhere()
    except OSError as error:
        if error.filename is not None:  # of a file, not of a stream
            raise
        _lead_nowhere()
        tell(f"{name}: the output cannot be written ({error.strerror}): free some space, or write it elsewhere")
        status = status or 1
    return status


def tell(text: str) -> None:
    """A line on standard error, if it is still there: no reason to lose what comes after it."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _open_closed_streams() -> None:
    """Python has None for them, and the next file that is opened would get their number.

    Not standard input: who wants to read it says that it is closed.
    """
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:
            setattr(sys, stream, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


def _lead_nowhere() -> None:
    """What is still buffered would fail once more at the interpreter's end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
