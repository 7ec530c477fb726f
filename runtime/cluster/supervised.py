"""Supervised: the command in a process of its own -> its exit status, or a sentence where Ray ended the process.

Ray's C++ ends a process whose cluster has gone, in whatever it does: nobody there could say a word.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence

from ...models.errors import RunError
from ...models.interruption import on_signals

_PIPE = "AURICLE_CLUSTER_PIPE"
"""Set in the process: where it tells that it ended by itself."""


def supervised(argv: Sequence[str], body: Callable[[], int]) -> int:
    """The status of body, which the same program with the same words runs. Raises RunError."""
    if pipe := os.environ.pop(_PIPE, None):
        os.set_inheritable(int(pipe), False)
        try:
            return body()
        finally:
            os.write(int(pipe), b"ended")
    read, write = os.pipe()
    command = [sys.executable, "-m", "auricle.runtime.cluster", *argv]
    # a session of its own: Ctrl-C in the terminal arrives once
    environment = os.environ | {_PIPE: str(write)}
    process = subprocess.Popen(command, env=environment, pass_fds=(write,), start_new_session=True)
    os.close(write)
    with on_signals(lambda number, _frame: process.send_signal(number)), open(read, "rb") as told:
        ended = told.read()
        status = process.wait()
    if not ended:
        raise RunError(
            "Ray ended this program, as it does when its cluster goes; what was written is whole: see `ray status`, "
            "then the same command goes on"
        )
    return status
