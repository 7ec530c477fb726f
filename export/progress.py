"""Progress: steps done of a long work -> a bar for a person who waits."""

from __future__ import annotations

import sys
from collections.abc import Callable

Report = Callable[[str, int, int], None]
"""Told (stage, done, total) as the work goes on."""

WIDTH = 30


class Progress:
    """One line on standard error, rewritten; silent where that is no terminal or not wanted."""

    def __init__(self, enabled: bool = True) -> None:
        self._enabled = enabled and sys.stderr.isatty()
        self._shown = ""

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._enabled and self._shown:
            sys.stderr.write("\r" + " " * len(self._shown) + "\r")

    def report(self, stage: str, done: int, total: int) -> None:
        """`done` of `total` units of `stage`."""
        if not self._enabled:
            return
        share = done / total if total else 1.0
        bar = "#" * round(share * WIDTH)
        line = f"{stage:<28} [{bar:<{WIDTH}}] {share:4.0%}"
        if line != self._shown:
            sys.stderr.write("\r" + line.ljust(len(self._shown)))
            sys.stderr.flush()
            self._shown = line


def no_report(stage: str, done: int, total: int) -> None:
    """Tells nobody."""


def counter(report: Report, stage: str, total: int) -> Callable[[int], None]:
    """Reports 0 now, and the sum of what it is called with each time; nothing when there is nothing to do."""
    done = 0

    def add(n: int) -> None:
        nonlocal done
        done += n
        report(stage, done, total)

    if total:
        add(0)
    return add
