"""Views: live events -> a terminal for people, lines of text or JSON for programs.

JsonLines    every event, a JSON object in a line
PlainLines   final texts, a line each; anything else goes to standard error
Screen       a terminal: finals scroll up, below them the words that are being spoken and a status line

turn on the light in the kit          stable text, the rest dimmed
[||||||    ] -24 dB  1:02.5  update 240 ms every 0.5 s, 0.48 x real time  ? tasks, q quits
"""

from __future__ import annotations

import contextlib
import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TextIO

from ..events import (
    Caption,
    Final,
    LiveEvent,
    SessionEnded,
)
from .cues import also_lines, plain
from .remarks import LEAST_S, clock, final_lines, remark, update_line
from .transcript import event_line

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.status import Status

LEVELS = 10  # steps of the level meter,
LOWEST_DBFS = -60.0  # the first of which is this loud
REFRESH_HZ = 8


class Meter(Protocol):
    """What moves between two events; Live, or a fake."""

    @property
    def level_dbfs(self) -> float: ...

    @property
    def received_s(self) -> float: ...


class View(Protocol):
    """Where events are shown. A context manager; `notice` may be called from any thread."""

    def show(self, event: LiveEvent) -> None: ...

    def notice(self, text: str) -> None: ...

    def __enter__(self) -> View: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...


class JsonLines:
    """Every event as transcript.event_line writes it, flushed."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def show(self, event: LiveEvent) -> None:
        """See View."""
        print(event_line(event), file=self._out, flush=True)

    def notice(self, text: str) -> None:
        """See View."""
        print(text, file=sys.stderr, flush=True)

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class PlainLines:
    """Finals only, flushed; what went wrong on standard error."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def show(self, event: LiveEvent) -> None:
        """See View."""
        for line in final_lines(event) if isinstance(event, Final) else ():
            print(line, file=self._out, flush=True)
        if (text := remark(event)) and not (isinstance(event, SessionEnded) and event.dropped_s < LEAST_S):
            self.notice(text)

    def notice(self, text: str) -> None:
        """See View."""
        print(text, file=sys.stderr, flush=True)

    def __enter__(self) -> PlainLines:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class Screen:
    """A terminal. Nothing in a model's text controls it."""

    def __init__(self, console: Console, meter: Meter, hint: str = "") -> None:
        from rich.live import Live

        self._console = console
        self._meter = meter
        self._hint = hint
        self._lock = threading.Lock()  # the picture is drawn by rich's thread
        self._caption: Caption | None = None
        self._update = ""  # what the last update took
        self._live = Live(get_renderable=self._picture, console=console, refresh_per_second=REFRESH_HZ, transient=True)

    def show(self, event: LiveEvent) -> None:
        """See View."""
        with self._lock:
            if isinstance(event, Caption):
                self._update = update_line(event, self._caption)
                self._caption = event
            elif isinstance(event, Final):
                self._caption = None
        if isinstance(event, Final):
            self._print(final_lines(event))
        if text := remark(event):
            self._print([text], style="yellow")
        self._live.refresh()

    def notice(self, text: str) -> None:
        """See View."""
        self._print(text.splitlines(), style="cyan")

    def __enter__(self) -> Screen:
        self._live.start(refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # a terminal that is gone
            self._live.stop()

    def _print(self, lines: list[str], style: str = "") -> None:
        from rich.text import Text

        for line in lines:
            self._console.print(Text(line, style=style), soft_wrap=True)

    def _picture(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        with self._lock:
            caption, update = self._caption, self._update
        lines: list[Text] = []
        if caption is not None:
            stable = plain(caption.stable)
            unstable = plain(caption.unstable)
            gap = " " if stable and unstable else ""
            lines.append(Text.assemble((stable, "bold"), gap, (unstable, "dim")))
            lines += [Text(line, style="dim") for line in also_lines(caption.also)]
        meter = f"{level_bar(self._meter.level_dbfs)}  {clock(self._meter.received_s)}"
        status = "  ".join(part for part in (meter, update, self._hint) if part)
        return Group(*lines, Text(status, style="cyan", no_wrap=True, overflow="ellipsis"))


def level_bar(dbfs: float) -> str:
    """A meter from -60 dB to full scale."""
    dbfs = max(dbfs, LOWEST_DBFS)
    n = min(LEVELS, round((dbfs - LOWEST_DBFS) / -LOWEST_DBFS * LEVELS))
    return f"[{'|' * n:<{LEVELS}}] {dbfs:3.0f} dB"


class Spinner:
    """On a terminal's standard error, nothing elsewhere. A context manager; a terminal that is gone is no error."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def start(self) -> None:
        """Show it; twice is fine."""
        with contextlib.suppress(OSError):
            self._status.start()

    def stop(self) -> None:
        """Take it away; twice is fine."""
        with contextlib.suppress(OSError):
            self._status.stop()

    def update(self, text: str) -> None:
        """Another text."""
        with contextlib.suppress(OSError):
            self._status.update(text)

    def __enter__(self) -> Spinner:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def waiting(text: str) -> Spinner:
    """A spinner, not shown yet."""
    from rich.console import Console

    return Spinner(Console(stderr=True).status(text))
