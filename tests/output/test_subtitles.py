"""Captions that other programs read back: strict parsers of SubRip and WebVTT, and hostile text."""

from __future__ import annotations

import errno
import html
import json
import os
import re
import threading
from pathlib import Path

import pytest
from auricle.models.errors import InputError, RunError
from auricle.runtime.output.cues import columns, cues, plain, wrap
from auricle.runtime.output.subtitles import FORMATS, TimedText, format_captions, write_captions
from hypothesis import given, settings
from hypothesis import strategies as st

Row = tuple[float, float, list[str]]
CLOCK = r"(\d{2,}):([0-5]\d):([0-5]\d)[.,](\d{3})"
HOSTILE = [
    "a\n\n2\n00:00:00,000 --> 00:00:01,000\nb",
    "NOTE\n\nSTYLE\r\n\r\nWEBVTT",
    "a --> b <i>x</i> <00:01.000> & &amp; &lt;",
    "\u2028line\u2029para\x85next\x00nul\x1bescape\ufeffbom",
    "--" + "-" * 60 + ">" * 60,
    "\ud800 lone",
    "7",
]


def seconds(clock: str, point: str) -> float:
    match = re.fullmatch(CLOCK, clock)
    assert match and point in clock, clock
    hours, minutes, secs, ms = map(int, match.groups())
    return hours * 3600 + minutes * 60 + secs + ms / 1000


def parse(content: str, point: str) -> list[Row]:
    """Blocks between blank lines, each a time line and at least one line of text; nothing else passes."""
    rows: list[Row] = []
    for block in re.split(r"\n\n", content.removesuffix("\n")) if content else []:
        times, *lines = block.split("\n")
        start, end = times.split(" --> ")
        assert lines and all(lines), block
        assert not any("-->" in line for line in lines), block
        rows.append((seconds(start, point), seconds(end, point), lines))
    return rows


def parse_srt(content: str) -> list[Row]:
    blocks = content.removesuffix("\n").split("\n\n") if content else []
    numbers = [block.split("\n", 1)[0] for block in blocks]
    assert numbers == [str(i) for i in range(1, len(blocks) + 1)]
    return parse("\n\n".join(block.split("\n", 1)[1] for block in blocks), ",")


def parse_vtt(content: str) -> list[Row]:
    head, _, rest = content.partition("\n\n")
    assert head.rstrip("\n") == "WEBVTT"
    rows = parse(rest, ".")
    for _, _, lines in rows:
        for line in lines:
            assert "<" not in line and not re.search(r"&(?!amp;|lt;|gt;)", line)
    return [(start, end, [html.unescape(line) for line in lines]) for start, end, lines in rows]


def words(rows: list[Row]) -> str:
    return " ".join(line for row in rows for line in row[2])


text = st.text(max_size=300) | st.lists(st.sampled_from([*HOSTILE, "word", "longer words here", "你好世界"])).map(
    " ".join
)
spans = st.tuples(st.floats(0, 400_000), st.floats(0, 100)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@settings(max_examples=200, deadline=None)
@given(rows=st.lists(st.tuples(spans, text), max_size=4))
def test_any_text_is_read_back(rows: list[tuple[tuple[float, float], str]]) -> None:
    captions = [TimedText(*span, content) for span, content in rows]
    for parser, format in ((parse_srt, "srt"), (parse_vtt, "vtt")):
        content = format_captions(captions, format)
        content.encode("utf-8")
        assert "\r" not in content and "\0" not in content
        parsed = parser(content)
        assert all(len(lines) <= 2 and start < end for start, end, lines in parsed)
        assert all(columns(line) <= 42 for _, _, lines in parsed for line in lines)
        shown, read_back = "".join(plain(c.text) for c in captions), words(parsed)
        if format == "srt":
            shown, read_back = (content.replace("-", "") for content in (shown, read_back))
        assert read_back.replace(" ", "") == shown.replace(" ", "")
    read = [json.loads(line) for line in format_captions(captions, "jsonl").splitlines()]
    assert [row["text"] for row in read] == [caption.text for caption in captions]
    assert len(format_captions(captions, "txt").splitlines()) == sum(bool(plain(c.text)) for c in captions)


@pytest.mark.parametrize("content", HOSTILE)
def test_hostile_text_stays_in_its_cue(content: str) -> None:
    captions = [TimedText(0, 2, "before"), TimedText(2, 4, content), TimedText(4, 6, "after")]
    for parser, format in ((parse_srt, "srt"), (parse_vtt, "vtt")):
        rows = parser(format_captions(captions, format))
        assert rows[0] == (0.0, 2.0, ["before"]) and rows[-1] == (4.0, 6.0, ["after"])
        assert all(2 <= start < end <= 4 for start, end, _ in rows[1:-1])


def test_the_files_as_written() -> None:
    rows = [TimedText(0, 1.5, "turn on the lights", "asr", "a.wav"), TimedText(3599.9996, 3661.0625, "a < b & c --> d")]
    assert format_captions(rows, "txt") == "turn on the lights\na < b & c --> d\n"
    assert format_captions(rows, "srt") == (
        "1\n00:00:00,000 --> 00:00:01,500\nturn on the lights\n\n2\n01:00:00,000 --> 01:01:01,062\na < b & c -> d\n"
    )
    assert format_captions(rows, "vtt") == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nturn on the lights\n\n"
        "01:00:00.000 --> 01:01:01.062\na &lt; b &amp; c --&gt; d\n"
    )
    first = format_captions(rows, "jsonl").splitlines()[0]
    assert json.loads(first) == {
        "start_s": 0,
        "end_s": 1.5,
        "text": "turn on the lights",
        "prompt": "asr",
        "audio": "a.wav",
        "finish_reason": "eos",
        "avg_logprob": None,
    }


def test_nothing_said() -> None:
    silent = [TimedText(0, 1, "  \n ")]
    assert [format_captions([], f) for f in FORMATS] == ["", "", "WEBVTT\n", ""]
    assert [format_captions(silent, f) for f in FORMATS[:3]] == ["", "", "WEBVTT\n"]
    assert json.loads(format_captions(silent, "jsonl"))["text"] == "  \n "


def test_a_long_answer_shares_its_time() -> None:
    answer = "the quick brown fox jumps over the lazy dog " * 8
    parts = cues(10, 40, answer)
    assert len(parts) >= 4 and parts[0].start_ms == 10_000 and parts[-1].end_ms == 40_000
    assert [p.end_ms for p in parts[:-1]] == [p.start_ms for p in parts[1:]]
    rates = [sum(map(len, p.lines)) / (p.end_ms - p.start_ms) for p in parts]
    assert max(rates) / min(rates) < 1.05
    assert " ".join(line for p in parts for line in p.lines).split() == answer.split()


def test_a_cue_is_never_without_duration() -> None:
    parts = cues(5, 5, "word " * 100)
    assert len(parts) > 2 and all(p.start_ms < p.end_ms for p in parts)


def test_wrapping() -> None:
    assert wrap("") == []
    assert wrap("a" * 42) == ["a" * 42]
    assert wrap("a" * 43) == ["a" * 42, "a"]
    assert wrap("a b " + "c" * 40) == ["a b", "c" * 40]
    assert wrap("你" * 50) == ["你" * 21, "你" * 21, "你" * 8]
    accents = "e\u0301" * 42
    assert wrap(accents) == [accents]


@pytest.mark.parametrize("times", [(-1, 1), (2, 1), (float("nan"), 1), (0, float("inf"))])
def test_impossible_times(times: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="cannot last"):
        TimedText(*times, "x")


def test_written_whole_and_replaced(tmp_path: Path) -> None:
    target = tmp_path / "a.VTT"
    assert write_captions(target, [TimedText(0, 1, "Grüße")]) == target
    assert parse_vtt(target.read_text("utf-8")) == [(0.0, 1.0, ["Grüße"])]
    write_captions(target, [TimedText(0, 1, "new")], "srt", audio=tmp_path / "a.wav")
    assert parse_srt(target.read_text("utf-8")) == [(0.0, 1.0, ["new"])]
    assert os.listdir(tmp_path) == ["a.VTT"]
    umask = os.umask(0)
    os.umask(umask)
    assert target.stat().st_mode & 0o777 == 0o666 & ~umask


def test_the_audio_is_never_overwritten(tmp_path: Path) -> None:
    audio = tmp_path / "sound.txt"
    audio.write_bytes(b"RIFF")
    (tmp_path / "link.txt").symlink_to(audio)
    for target in (audio, tmp_path / "link.txt", tmp_path / "x" / ".." / "sound.txt"):
        (tmp_path / "x").mkdir(exist_ok=True)
        with pytest.raises(InputError, match="the audio itself"):
            write_captions(target, [], "txt", audio=audio)
    assert audio.read_bytes() == b"RIFF"


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.srt").mkdir()
    for target in (tmp_path / "no" / "a.srt", tmp_path / "file" / "a.srt", tmp_path / "folder.srt"):
        with pytest.raises(InputError, match="cannot be written") as caught:
            write_captions(target, [TimedText(0, 1, "x")])
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="'mp4' is unknown"):
        write_captions(tmp_path / "a.mp4", [])
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.srt"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = write_captions(tmp_path / "a.txt", [TimedText(0, 1, "old")])

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left"):
        write_captions(target, [TimedText(0, 1, "new")])
    assert target.read_text() == "old\n" and os.listdir(tmp_path) == ["a.txt"]


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    target = tmp_path / "a.srt"
    rows = [TimedText(i, i + 1, f"number {i}") for i in range(300)]
    write_captions(target, rows)
    done = threading.Event()

    def rewrite() -> None:
        for _ in range(30):
            write_captions(target, rows)
        done.set()

    writer = threading.Thread(target=rewrite)
    writer.start()
    while not done.is_set():
        assert len(parse_srt(target.read_text())) == 300
    writer.join()
