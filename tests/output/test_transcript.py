"""Files of live sessions, read back by FFmpeg's parsers and by json: whole at every moment, killed or not."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import pytest
from auricle.models.errors import InputError, RunError
from auricle.runtime.events import (
    AudioDropped,
    DeviceFound,
    DeviceLost,
    DeviceMuted,
    Final,
    Lagging,
    LiveEvent,
    SessionEnded,
    SpeechStarted,
    Timings,
    Word,
)
from auricle.runtime.output.subtitles import FORMATS
from auricle.runtime.output.transcript import Transcript

TIMINGS = Timings({"whisper": 1.0}, 1.0, 1.0, 1.0, 88, 4)
ENDED = SessionEnded(9.0, 4.0, 4.5, 0.5, speculated_s=1.5, wasted_s=0.25)
LONG = "put the milk and the bread and the apples and then also the cheese and the butter on the list for tomorrow"


def final(start_s: float, end_s: float, text: str, also: tuple[tuple[str, str], ...] = ()) -> Final:
    each = text.split()
    words = tuple(Word(word, start_s + (end_s - start_s) * (i + 1) / len(each)) for i, word in enumerate(each))
    return Final(start_s, end_s, text, (1, 2), TIMINGS, "What?", "eos", words, also)


SESSION: list[LiveEvent] = [
    SpeechStarted(0.5),
    final(0.5, 2.0, "turn on the <i>light</i> --> & more"),
    AudioDropped(2.5, 0.5),
    Lagging(3.0, 1.2),
    final(3.0, 4.0, "  "),
    DeviceLost(5.0, "a microphone"),
    DeviceFound(7.0, "a microphone", 2.0),
    final(8.0, 20.0, LONG, (("Which room?", "kitchen"),)),
    ENDED,
]


def parsed(path: Path) -> list[tuple[float, float, str]]:
    """Start and end in seconds and the text of each cue, by FFmpeg."""
    with av.open(str(path)) as file:
        packets = [packet for packet in file.demux() if packet.size]
    spans = [(packet.pts or 0, packet.duration or 0, bytes(packet).decode()) for packet in packets]
    return [(start_ms / 1000, (start_ms + ms) / 1000, text) for start_ms, ms, text in spans]


def write(path: Path, events: list[LiveEvent]) -> Path:
    with Transcript(path) as transcript:
        for event in events:
            transcript.add(event)
    return path


@pytest.mark.parametrize("format", ["srt", "vtt"])
def test_cues_are_read_back_by_another_parser(tmp_path: Path, format: str) -> None:
    cues = parsed(write(tmp_path / f"a.{format}", SESSION))
    first = {
        "srt": "turn on the <i>light</i> -> & more",
        "vtt": "turn on the &lt;i&gt;light&lt;/i&gt; --&gt; &amp; more",
    }
    assert cues[0] == (0.5, 2.0, first[format])
    assert " ".join(text for *_, text in cues[1:]).split() == LONG.split()
    assert all(len(text.split("\n")) <= 2 and 1 <= end - start <= 7 for start, end, text in cues)
    assert all(8.0 <= start < end <= 20.0 for start, end, _ in cues[1:]) and len(cues) > 2


def test_subrip_is_numbered_through(tmp_path: Path) -> None:
    blocks = write(tmp_path / "a.srt", SESSION).read_text().removesuffix("\n").split("\n\n")
    assert [block.split("\n")[0] for block in blocks] == [str(i + 1) for i in range(len(blocks))]


def test_text_has_a_line_for_each_answer(tmp_path: Path) -> None:
    lines = write(tmp_path / "a.txt", SESSION).read_text().splitlines()
    assert lines == ["turn on the <i>light</i> --> & more", LONG, "    Which room? kitchen"]


def test_json_lines_have_gaps_and_the_balance(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in write(tmp_path / "a.jsonl", SESSION).read_text().splitlines()]
    names = ["Final", "AudioDropped", "Final", "DeviceLost", "DeviceFound", "Final", "SessionEnded"]
    assert [row["event"] for row in rows] == names
    assert rows[-1] == {
        "event": "SessionEnded",
        "captured_s": 9.0,
        "decoded_s": 4.0,
        "skipped_s": 4.5,
        "dropped_s": 0.5,
        "speculated_s": 1.5,
        "wasted_s": 0.25,
    }
    assert rows[0]["words"][0] == {"text": "turn", "heard_s": pytest.approx(0.5 + 1.5 / 7)}
    assert rows[-2]["also"] == [["Which room?", "kitchen"]] and rows[-2]["timings"]["n_new_tokens"] == 4


@pytest.mark.parametrize("format", FORMATS)
def test_an_entry_is_there_as_soon_as_it_is_said(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"a.{format}"
    with Transcript(path) as transcript:
        for event in SESSION:
            before = path.read_bytes()
            transcript.add(event)
            assert path.read_bytes().startswith(before)
            assert ("milk" in path.read_text()) == (event in SESSION[7:])


def test_a_session_in_which_nothing_is_said(tmp_path: Path) -> None:
    assert write(tmp_path / "a.vtt", [ENDED]).read_text() == "WEBVTT\n" and parsed(tmp_path / "a.vtt") == []
    assert write(tmp_path / "a.srt", [ENDED]).read_text() == ""
    write(tmp_path / "a.vtt", [SESSION[1]])  # then the next session may have the file
    assert len(parsed(tmp_path / "a.vtt")) == 1


@pytest.mark.parametrize("format", FORMATS)
def test_an_older_transcript_is_left_alone(tmp_path: Path, format: str) -> None:
    path = write(tmp_path / f"a.{format}", SESSION)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"holds something already: choose another name, or remove it"):
        Transcript(path)
    assert path.read_bytes() == before


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "folder.srt").mkdir()
    for target in (tmp_path / "no" / "a.srt", tmp_path / "folder.srt"):
        with pytest.raises(InputError, match=r"cannot be written .* choose another place"):
            Transcript(target)
    for name in ("a", "a.mp3", "srt"):
        with pytest.raises(InputError, match=r"\.txt, \.srt, \.vtt, \.jsonl"):
            Transcript(tmp_path / name)
    assert os.listdir(tmp_path) == ["folder.srt"]


def test_a_session_that_never_began_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "old.srt").touch()
    for name in ("a.vtt", "old.srt"):
        with pytest.raises(RuntimeError), Transcript(tmp_path / name):
            raise RuntimeError
    assert os.listdir(tmp_path) == ["old.srt"]
    with pytest.raises(RuntimeError), Transcript(tmp_path / "b.vtt") as transcript:
        transcript.add(SESSION[1])
        raise RuntimeError
    assert len(parsed(tmp_path / "b.vtt")) == 1


@pytest.mark.parametrize("format", FORMATS)
def test_a_full_disk_keeps_what_was_said(tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"a.{format}"
    write_some = os.write
    room = 10

    def full(file: int, data: bytes) -> int:
        """Takes ten bytes more, then none."""
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        room -= (n := write_some(file, data[:room]))
        return n

    with Transcript(path) as transcript:
        transcript.add(SESSION[1])
        before = path.read_bytes()
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(RunError, match=r"takes no more \(No space left on device\)") as caught:
            transcript.add(SESSION[7])
        monkeypatch.undo()
    assert path.read_bytes() == before and b"turn on" in before and "\n" not in str(caught.value)


ENDLESS = """
import sys
from auricle.runtime.events import Final, Timings, Word
from auricle.runtime.output.transcript import Transcript
files = [Transcript(f"{sys.argv[1]}/a.{format}") for format in ("txt", "srt", "vtt", "jsonl")]
timings = Timings({"whisper": 1.0}, 1.0, 1.0, 1.0, 88, 4)
for i in range(10**9):
    words = tuple(Word(f"{i}.{n}", 4.0 * i + 0.1 * n) for n in range(40))
    said = Final(4.0 * i, 4.0 * (i + 1), " ".join(word.text for word in words), (), timings, words=words)
    for file in files:
        file.add(said)
    if i == 0:
        print("ready", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_moment_the_files_are_whole(tmp_path: Path, seed: int) -> None:
    with subprocess.Popen([sys.executable, "-c", ENDLESS, str(tmp_path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == b"ready\n"
        time.sleep(random.Random(seed).uniform(0.05, 0.4))
        writer.send_signal(signal.SIGKILL)
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    lines = (tmp_path / "a.txt").read_text().splitlines()
    cues = {
        format: " ".join(text for *_, text in parsed(tmp_path / f"a.{format}")).split() for format in ("srt", "vtt")
    }
    assert rows and all(row["text"].split() == [f"{i}.{n}" for n in range(40)] for i, row in enumerate(rows))
    for each in (" ".join(lines).split(), *cues.values()):
        assert len(each) % 40 == 0 and len(rows) <= len(each) // 40 <= len(rows) + 1
        assert each == [f"{i}.{n}" for i in range(len(each) // 40) for n in range(40)]


def test_a_muted_microphone_is_kept(tmp_path: Path) -> None:
    muted = DeviceMuted(17.0, "a microphone", 10.0)
    for suffix in FORMATS:
        with Transcript(tmp_path / f"a.{suffix}") as transcript:
            transcript.add(muted)
    assert json.loads((tmp_path / "a.jsonl").read_text()) == {"event": "DeviceMuted", **vars(muted)}
    assert (tmp_path / "a.txt").read_text() == (tmp_path / "a.srt").read_text() == ""
