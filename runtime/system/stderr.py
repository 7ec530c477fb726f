"""Stderr of native libraries: silenced, or captured -> lines of text."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Generator
from typing import IO

_ONE_AT_A_TIME = threading.RLock()  # two that overlap could leave stderr closed for good


@contextlib.contextmanager
def silenced_stderr() -> Generator[None, None, None]:
    """Nothing reaches stderr meanwhile, native libraries' messages included; of the whole process."""
    with open(os.devnull, "wb") as nowhere, _stderr_to(nowhere.fileno()):
        yield


@contextlib.contextmanager
def captured_stderr() -> Generator[list[str]]:
    """The same, and what would have reached it is in the list afterwards, line by line."""
    lines: list[str] = []
    with _scratch() as file:
        with _stderr_to(file.fileno()):
            yield lines
        file.seek(0)
        lines += file.read().decode("utf-8", "replace").splitlines()


def _scratch() -> IO[bytes]:
    """Nothing is kept where no file can be made."""
    try:
        return tempfile.TemporaryFile()
    except OSError:
        return open(os.devnull, "w+b")


@contextlib.contextmanager
def _stderr_to(descriptor: int) -> Generator[None, None, None]:
    with _ONE_AT_A_TIME:
        try:
            kept = os.dup(2)
        except OSError:  # started without a stderr
            yield
            return
        try:
            os.dup2(descriptor, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
