"""A recording of the terminal: commands of README, run on the demo's clips in a pseudo-terminal -> docs/terminal.svg.

    .venv/bin/python scripts/terminal-picture.py [--out docs/terminal.svg]

command ─► pseudo-terminal ─► bytes, each with its time ─► Screen (rows of styled text) ─► one SVG, animated with CSS

What is drawn is what the programs wrote, at the pace they wrote it. Where an SVG is shown without animation, it is the
last command before its end: words that are stable, words that are not yet. POSIX only.
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import fcntl
import os
import pty
import re
import struct
import sys
import termios
import time
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

CLIPS = "models/demo/clips"
COMMANDS = (
    f"auricle ask {CLIPS}/speech-over-dog.wav audiocaption",
    f"auricle listen {CLIPS}/reminder.wav --pace realtime --also slot_filling:task",
)
COLUMNS, ROWS = 96, 12
CHARACTER, LINE, BASELINE, MARGIN = 8.43, 20, 15, 16  # pixels
FONTS = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
FRAME_S = 0.03  # what is shown for less is not seen
READING_S = 1.0  # a pause after each command's output,
LAST_S = 5.0  # and after the last one's, before the recording starts again
BACKGROUND, FOREGROUND = "#16181d", "#d7dae0"
STYLES = {
    "p": "fill:#7fbf7f",  # the prompt
    "b": "font-weight:bold",
    "d": "fill:#7d828c",  # dim
    "c": "fill:#5fb3b3",  # cyan
    "y": "fill:#d9b45b",  # yellow
}
OF_SGR = {"1": "b", "2": "d", "33": "y", "36": "c"}
ESCAPE = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|[\r\n]|[^\x1b\r\n]+")

Row = tuple[tuple[str, str], ...]
"""(text, style) from left to right; the style is a key of STYLES or empty."""
Picture = tuple[Row, ...]


@dataclass(frozen=True)
class Span:
    """What stands in a row for a while."""

    row: int
    content: Row
    since: float  # s
    until: float  # s


@dataclass
class Screen:
    """What a terminal shows: the few control sequences that rich writes, and no scrolling."""

    rows: list[list[tuple[str, str]]] = field(default_factory=lambda: [[] for _ in range(ROWS)])
    row: int = 0
    column: int = 0
    style: str = ""

    def write(self, text: str) -> None:
        """Text with its control sequences, in whole. Raises ValueError for a sequence that is not known here."""
        for found in ESCAPE.finditer(text):
            if found[0] == "\r":
                self.column = 0
            elif found[0] == "\n":
                self.row += 1
            elif found[2]:
                self._control(found[1], found[2])
            else:
                self._put(found[0])

    def picture(self) -> Picture:
        """The rows as they are now."""
        return tuple(tuple(row) for row in self.rows)

    def _control(self, numbers: str, name: str) -> None:
        if name == "m":
            styles = [OF_SGR.get(number, "") for number in numbers.split(";")]
            self.style = next((style for style in styles if style), "")
        elif name == "A":
            self.row -= int(numbers or 1)
        elif name == "K":
            self.rows[self.row] = []
        elif name not in "hl":  # h and l: the cursor is shown or hidden
            raise ValueError(f"the screen does not know the sequence ESC[{numbers}{name}: teach it to Screen")

    def _put(self, text: str) -> None:
        if self.column == 0:
            self.rows[self.row] = []
        self.rows[self.row].append((text, self.style))
        self.column += len(text)


def record(command: str) -> list[tuple[float, str]]:
    """A command's output in a pseudo-terminal: (seconds since its start, text). Raises RuntimeError when it fails."""
    program, *words = command.split()
    started = time.monotonic()
    process, terminal = pty.fork()
    if process == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        os.environ["TERM"] = "xterm-256color"
        os.environ.pop("NO_COLOR", None)
        os.execv(Path(sys.executable).with_name(program), [program, *words])
    pieces: list[tuple[float, bytes]] = []
    with contextlib.suppress(OSError):  # Linux's way to say that nobody writes any more
        while data := os.read(terminal, 65536):
            pieces.append((time.monotonic() - started, data))
    os.close(terminal)
    if status := os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]):
        raise RuntimeError(f"{command} ended with {status}: run it by itself and see why")
    decoder = codecs.getincrementaldecoder("utf-8")()
    return [(at, decoder.decode(data)) for at, data in pieces]


def play() -> tuple[list[tuple[float, Picture]], float]:
    """Runs COMMANDS one after the other: (pictures, each with its first second), the end in seconds."""
    screen = Screen()
    pictures: list[tuple[float, Picture]] = []
    now = 0.0
    for command in COMMANDS:
        screen.rows[screen.row] = [("$ ", "p"), (command, "")]
        screen.row += 1
        pictures.append((now, screen.picture()))
        for at, text in record(command):
            screen.write(text)
            pictures.append((now + at, screen.picture()))
        now = pictures[-1][0] + READING_S
        screen.row += 1
        screen.column = 0
    end = now - READING_S + LAST_S
    until = [*(at for at, _ in pictures[1:]), end]
    return [shown for shown, next_at in zip(pictures, until, strict=True) if next_at - shown[0] > FRAME_S], end


def last_live(pictures: list[tuple[float, Picture]]) -> float:
    """When the last picture begins that has stable words with unstable ones behind them, in seconds."""
    live = [at for at, rows in pictures if any({style for _, style in row} >= {"b", "d"} for row in rows)]
    return live[-1] if live else pictures[-1][0]


def spans_of(pictures: list[tuple[float, Picture]], end: float) -> list[Span]:
    """Everything that ever stands in a row."""
    spans: list[Span] = []
    for row in range(ROWS):
        since = 0.0
        content: Row = ()
        for at, picture in [*pictures, (end, ((),) * ROWS)]:
            if picture[row] != content:
                spans.append(Span(row, content, since, at))
                since = at
                content = picture[row]
    return [span for span in spans if any(text.strip() for text, _ in span.content)]


def svg(spans: list[Span], end: float, still: float) -> str:
    """The recording. Every span is one text element, hidden and shown by keyframes of its own."""
    width = round(COLUMNS * CHARACTER + 2 * MARGIN)
    height = (1 + max(span.row for span in spans)) * LINE + 2 * MARGIN
    moving = "".join(_keyframes(number, span, end) for number, span in enumerate(spans))
    texts = "".join(_text(number, span, still) for number, span in enumerate(spans))
    styles = "".join(f".{name}{{{rule}}}" for name, rule in STYLES.items())
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">
<title>A terminal: {escape(" and ".join(COMMANDS))}</title>
<style>
text{{fill:{FOREGROUND};font:14px {FONTS};white-space:pre}}
{styles}
@media (prefers-reduced-motion:no-preference){{
text{{animation:{end:.2f}s step-end infinite}}
{moving}}}
</style>
<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>
<g transform="translate({MARGIN})" xml:space="preserve">
{texts}</g>
</svg>
"""


def _keyframes(number: int, span: Span, end: float) -> str:
    steps = f"{span.since / end:.2%}{{visibility:visible}}"
    if span.since > 0:
        steps = f"0%{{visibility:hidden}}{steps}"
    if span.until < end:
        steps += f"{span.until / end:.2%}{{visibility:hidden}}"
    return f"@keyframes k{number}{{{steps}}}#t{number}{{animation-name:k{number}}}\n"


def _text(number: int, span: Span, still: float) -> str:
    hidden = "" if span.since <= still < span.until else ' visibility="hidden"'
    y = MARGIN + span.row * LINE + BASELINE
    pieces = (
        f'<tspan class="{style}">{escape(text)}</tspan>' if style else escape(text) for text, style in span.content
    )
    return f'<text id="t{number}" y="{y}"{hidden}>{"".join(pieces)}</text>\n'


def main() -> None:
    parser = argparse.ArgumentParser(description="Record README's commands as docs/terminal.svg.")
    parser.add_argument("--out", type=Path, default=Path("docs/terminal.svg"))
    parser.add_argument("--still", type=float, metavar="S", help="what is shown without animation; default: live words")
    arguments = parser.parse_args()
    pictures, end = play()
    still = last_live(pictures) if arguments.still is None else arguments.still
    drawn = svg(spans_of(pictures, end), end, still)
    arguments.out.write_text(drawn, encoding="utf-8")
    print(f"{arguments.out}: {len(drawn) / 1000:.1f} kB, {end:.1f} s, still at {still:.1f} s")


if __name__ == "__main__":
    main()
