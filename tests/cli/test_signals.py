"""Signals while something is decoded or saved, sent to the real program: what was decoded is kept, the status tells."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from auricle.models.bundle import shipped_bundle

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
CLIP = shipped_bundle() / "clips" / "shopping.wav"
PROGRAM = """
import os, signal, sys, time
import numpy as np
from auricle.runtime.__main__ import main
from auricle.runtime.audio.split import Segment
from auricle.runtime.engine import Engine
from auricle.runtime.events import Final, Piece, Timings

for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # which whoever runs the tests may ignore
    signal.signal(getattr(signal, name), signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL)

def wait(what, seconds, step=lambda: None):
    print(what, file=sys.stderr, flush=True)
    until = time.monotonic() + seconds
    while time.monotonic() < until:  # as a decoder works: a step at a time
        time.sleep(0.01)
        step()

def segments(*_):
    yield Segment(0.0, np.zeros(20 * 16000, np.float32), silent=False, last=False)
    if sys.argv[1] == "decoding":
        yield Segment(20.0, np.zeros(25 * 16000, np.float32), silent=False, last=True)

def answer(engine, segments, *_):
    if segments[0].start_s == 0:
        yield Final(0.0, 20.0, "all of it", (5, 6), Timings({}, 1.0, 1.0, 1.0, 88, 2))
    else:
        yield Piece("half of this")
        time.sleep(0.2)  # so that it was told
        wait("decoding", float(sys.argv[2]), engine.llm.before_pass or (lambda: None))

Engine.audible_segments = segments
Engine.answer = answer
os.fsync = lambda _: wait("saving", 0.5)
sys.exit(main(sys.argv[3:]))
"""


@contextmanager
def program(
    stage: str, *words: object, seconds: float = 30.0, source: str = PROGRAM
) -> Generator[subprocess.Popen[str]]:
    """The command, when it has come to that stage: decoding lasts so long after half a segment, saving half a s."""
    command = [sys.executable, "-c", source, stage, str(seconds), *map(str, words)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as job:
        try:
            assert job.stderr is not None and job.stderr.readline() == f"{stage}\n"
            yield job
        finally:
            job.kill()


@pytest.mark.parametrize("lanes", ["1", "2"])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_captions_so_far_are_kept(tmp_path: Path, name: str, lanes: str) -> None:
    number = signal.Signals[name]
    with program("decoding", "caption", CLIP, "--format", "jsonl", "--lanes", lanes, "--out", tmp_path) as job:
        job.send_signal(number)
        assert job.stderr is not None and job.stderr.readline() == "saving\n"
        job.send_signal(number)  # impatience must not cost what is being written
        said = job.communicate(timeout=30)[1]
    assert job.returncode == 128 + number
    assert [path.name for path in tmp_path.iterdir()] == ["shopping.partial.jsonl"]
    rows = [json.loads(row) for row in (tmp_path / "shopping.partial.jsonl").read_text().splitlines()]
    assert [(row["text"], row["finish_reason"]) for row in rows] == [("all of it", "eos"), ("half of this", "end")]
    assert "shopping.partial.jsonl" in said and said.endswith("auricle: stopped\n") and "Traceback" not in said


def test_a_finished_clip_is_saved_first(tmp_path: Path) -> None:
    other = tmp_path / "other.wav"
    with program("saving", "caption", CLIP, other, "--out", tmp_path) as job:
        job.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        job.send_signal(signal.SIGINT)
        shown, said = job.communicate(timeout=30)
    assert job.returncode == 128 + signal.SIGTERM and said == "auricle: stopped\n"
    assert (tmp_path / "shopping.txt").read_text() == "all of it\n" and shown == f"{tmp_path / 'shopping.txt'}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["shopping.txt"]  # the next was not begun


def test_an_answer_so_far_is_printed() -> None:
    with program("decoding", "ask", CLIP, "asr", "--json") as job:
        job.send_signal(signal.SIGTERM)
        shown, _ = job.communicate(timeout=30)
    assert job.returncode == 128 + signal.SIGTERM
    answer = json.loads(shown)
    assert answer["complete"] is False and answer["text"] == "all of it\nhalf of this"


def test_a_signal_that_is_ignored_stays_so(tmp_path: Path) -> None:
    """As under nohup."""
    ignoring = PROGRAM.replace("else signal.SIG_DFL", "else signal.SIG_IGN")
    with program("decoding", "caption", CLIP, "--out", tmp_path, seconds=0.5, source=ignoring) as job:
        job.send_signal(signal.SIGHUP)
        assert job.wait(timeout=30) == 0
    assert (tmp_path / "shopping.txt").read_text() == "all of it\nhalf of this\n"
