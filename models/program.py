"""Program: a command's body in, its exit status out. What standard streams do wrong is a sentence, or nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable


def run_program(name: str, body: Callable[[], int]) -> int:
    """The body's status, when all it printed is written; 0 when its reader has gone, 1 when there is no room for it.

    Output that was closed before the start leads nowhere. Other exceptions pass, argparse's SystemExit among them.
    """
    _open_closed_streams()
    try:
        try:
            return body()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _lead_nowhere()
        return 0
    except OSError as error:
        if error.filename is not None:  # of a file, not of a stream
            raise
        _lead_nowhere()
        print(
            f"{name}: the output cannot be written ({error.strerror}): free some space, or write it elsewhere",
            file=sys.stderr,
        )
        return 1


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
