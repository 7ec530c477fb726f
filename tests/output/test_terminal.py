"""What people and programs see of a live session."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace

import pytest
from auricle.models.dataclass_json import decode
from auricle.runtime import events
from auricle.runtime.events import Caption, Final, Lagging, LiveEvent, SessionEnded, Timings, Word, Work
from auricle.runtime.output.remarks import clock, remark, update_line
from auricle.runtime.output.terminal import JsonLines, PlainLines, Screen, level_bar
from rich.console import Console

WORK = Work(240.0, 100.0, 88, 0, 4, 3, 5, 2)
TIMINGS = Timings({"whisper": 1.0}, 1.0, 1.0, 1.0, 88, 4)
SESSION: list[LiveEvent] = [
    events.SpeechStarted(61.0),
    Caption(61.0, 61.5, "", "turn on", (("Room?", "kit"),), WORK),
    Caption(61.0, 62.0, "turn on", "the lie", (("Room?", "kitchen"),), WORK),
    Lagging(62.0, 1.25),
    Final(61.0, 62.5, "turn on the light", (1,), TIMINGS, "p", "eos", (Word("turn", 61.5),), (("Room?", "kitchen"),)),
    events.AudioDropped(63.0, 0.25),
    events.DeviceLost(64.0, "a microphone"),
    events.DeviceFound(67.0, "a microphone", 3.0),
    SessionEnded(70.0, 1.5, 65.25, 3.25),
]


class Meter:
    level_dbfs = -24.0
    received_s = 62.5


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=100, color_system="standard", legacy_windows=False)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_every_event_is_a_line_of_json_with_its_fields() -> None:
    out = io.StringIO()
    with JsonLines(out) as view:
        for event in SESSION:
            view.show(event)
    rows = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [decode(getattr(events, row.pop("event")), _pairs(row)) for row in rows] == [_pairs_of(e) for e in SESSION]


def _pairs(row: dict[str, object]) -> dict[str, object]:
    """Without what the codec only writes: pairs."""
    return {**row, "also": []} if "also" in row else row


def _pairs_of(event: LiveEvent) -> LiveEvent:
    return replace(event, also=()) if isinstance(event, Caption | Final) else event


def test_plain_lines_are_what_was_said(capsys: pytest.CaptureFixture[str]) -> None:
    """Flushed at once; what was lost goes to standard error."""
    out = Flushed()
    with PlainLines(out) as view:
        for event in SESSION:
            view.show(event)
            assert out.flushed == out.getvalue()
    assert out.getvalue() == "[1:01.0-1:02.5] turn on the light\n    Room? kitchen\n"
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 5 and "0.25 s of sound were lost" in said[1] and "is back, 3.0 s were lost" in said[3]


class Flushed(io.StringIO):
    flushed = ""

    def flush(self) -> None:
        self.flushed = self.getvalue()


def test_a_session_without_losses_says_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    view = PlainLines(io.StringIO())
    view.show(SessionEnded(10.0, 4.0, 6.0, 0.0))
    view.show(SessionEnded(10.0, 4.0, 6.0, 1 / 16_000))
    assert capsys.readouterr().err == ""


def test_the_balance_names_work_that_was_in_vain() -> None:
    assert "lost; 2.0 s of work in pauses, 0.5 s of it in vain" in remark(SessionEnded(9.0, 4.0, 5.0, 0.0, 2.0, 0.5))


def test_the_terminal_shows_stable_and_unstable_text() -> None:
    console = terminal()
    with Screen(console, Meter(), "? tasks, q quits") as screen:
        screen.show(SESSION[0])
        screen.show(SESSION[1])
        before = len(written(console))
        screen.show(SESSION[2])
        drawn = written(console)[before:]
        assert "\x1b[1mturn on\x1b[0m \x1b[2mthe lie\x1b[0m" in drawn and "Room? kitchen" in drawn
        assert "[||||||    ] -24 dB  1:02.5" in drawn and "update 240 ms every 0.5 s, 0.48 x real time" in drawn
        assert "? tasks, q quits" in drawn
        screen.show(SESSION[4])
        assert "[1:01.0-1:02.5] turn on the light\n" in written(console)
        before = len(written(console))
        screen.notice("from the next segment on: audiocaption")
        assert "audiocaption" in written(console)[before:] and "the lie" not in written(console)[before:]
        screen.show(SESSION[-1])
    assert "70.0 s of sound" in written(console)


def test_text_does_not_control_the_terminal() -> None:
    console = terminal()
    with Screen(console, Meter()) as screen:
        screen.show(replace(SESSION[2], stable="[red]a\x1b[2Jb", unstable="\x07\rc"))  # pyright: ignore
        screen.show(replace(SESSION[4], text="[bold]d\x1b]0;title\x07", also=()))  # pyright: ignore
    shown = written(console)
    assert "\x1b[2J" not in shown and "\x07" not in shown and "[red]a[2Jb" in shown and "[bold]d]0;title" in shown


def test_long_text_is_broken_by_the_terminal_alone() -> None:
    """A line that was said can be copied whole."""
    console = terminal()
    with Screen(console, Meter()) as screen:
        screen.show(replace(SESSION[4], text="word " * 60, also=()))  # pyright: ignore
    assert ("word " * 60).strip() + "\n" in written(console)


def test_an_update_is_measured_against_the_one_before() -> None:
    first, second = SESSION[1], SESSION[2]
    assert isinstance(first, Caption) and isinstance(second, Caption)
    later = replace(second, end_s=63.5)
    assert update_line(later, first) == "update 240 ms every 2.0 s, 0.12 x real time"
    assert update_line(replace(first, start_s=90.0, end_s=91.0), second).startswith("update 240 ms every 1.0 s")


@pytest.mark.parametrize(
    ("dbfs", "bar"),
    [
        (-math.inf, "[          ] -60 dB"),
        (-60.0, "[          ] -60 dB"),
        (-30.0, "[|||||     ] -30 dB"),
        (3.0, "[||||||||||]   3 dB"),
    ],
)
def test_level(dbfs: float, bar: str) -> None:
    assert level_bar(dbfs) == bar


def test_remarks_name_a_remedy_or_a_number() -> None:
    assert "--hop-ms" in remark(Lagging(3.0, 1.2)) and "1.2 s" in remark(Lagging(3.0, 1.2))
    assert remark(events.AudioDropped(3.0, 0.0)) == "[0:03.0] some sound was lost"
    assert remark(events.AudioDropped(3.0, 1 / 16_000)) == "[0:03.0] less than 0.01 s of sound was lost"
    assert remark(events.DeviceFound(3.0, "a microphone", 0.01)) == "[0:03.0] a microphone is back"
    assert remark(events.DeviceMuted(13.0, "mic", 10.02)) == (
        "[0:13.0] mic has given nothing but zeros for 10 s: unmute it, or allow access in the system's settings"
    )
    assert remark(SESSION[0]) == ""
    assert clock(3725.04) == "62:05.0"
