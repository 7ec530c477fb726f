"""Native libraries that talk to stderr, silenced."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Generator

_ONE_AT_A_TIME = threading.RLock()  # two that overlap could leave stderr closed for good


@contextlib.contextmanager
def quiet_stderr() -> Generator[None, None, None]:
    """Nothing reaches stderr meanwhile, native libraries' messages included; of the whole process."""
    with _ONE_AT_A_TIME:
        try:
            kept = os.dup(2)
        except OSError:  # started without a stderr
            yield
            return
        try:
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), 2)
                yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
