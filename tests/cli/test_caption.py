"""`auricle caption` of several clips: where they are written is checked first, and nothing decoded is lost."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from auricle.runtime.__main__ import main
from auricle.runtime.cli import caption as caption_module
from auricle.runtime.engine import Engine
from auricle.runtime.events import AnswerEvent, Final, SegmentStarted, Timings

TEXT = "turn on the light"


@pytest.fixture(autouse=True)
def answers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every clip is answered alike; the names of those that were."""
    heard: list[str] = []

    def stream(_engine: Engine, clip: Path, *_: object) -> Iterator[AnswerEvent]:
        heard.append(clip.name)
        yield SegmentStarted(0.0, 1.0, alone=True)
        yield Final(0.0, 1.0, TEXT, (5,), Timings({}, 1.0, 1.0, 1.0, 88, 1))

    monkeypatch.setattr(caption_module, "stream_in_batches", stream)
    return heard


def caption(*words: object) -> int:
    return main(["caption", *map(str, words)])


@pytest.fixture
def nothing_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_options: object) -> None:
        raise AssertionError("a model was opened for nothing")

    monkeypatch.setattr(caption_module, "open_engine", refuse)


def targets_that_cannot_be(tmp_path: Path) -> dict[str, tuple[list[Path], Path, str]]:
    """Clips, --out and a part of the sentence that refuses them."""
    (tmp_path / "file").touch()
    (tmp_path / "taken" / "b.txt").mkdir(parents=True)
    (tmp_path / "half" / "b.partial.txt").mkdir(parents=True)
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "c.txt").write_bytes(b"sound")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "d.txt").symlink_to(tmp_path / "clips" / "c.txt")
    a, b, c = Path("a.wav"), Path("b.wav"), tmp_path / "clips" / "c.txt"
    return {
        "a file where the directory should be": ([a], tmp_path / "file", "cannot be written"),
        "below a file": ([a], tmp_path / "file" / "below", "cannot be written"),
        "a directory in the target's place": ([a, b], tmp_path / "taken", "b.txt is a directory"),
        "a directory in the partial file's place": ([a, b], tmp_path / "half", "b.partial.txt is a directory"),
        "the clip itself": ([a, c], tmp_path / "clips", "c.txt is one of the clips"),
        "another clip": ([Path("c.wav"), c], tmp_path / "x" / ".." / "clips", "both be written to c.txt"),
        "a link to another clip": ([Path("d.wav"), c], tmp_path / "links", "d.txt is one of the clips"),
        "two of one name": ([a, Path("x/a.flac")], tmp_path / "new", "both be written to a.txt"),
        "half of one, all of another": ([a, Path("a.partial.wav")], tmp_path / "new", "both be written to a.partial"),
        "a name that is too long": ([a, Path("x" * 251 + ".wav")], tmp_path / "new", "cannot be written (File name"),
    }


@pytest.mark.usefixtures("nothing_opens")
@pytest.mark.parametrize("case", range(10))
def test_what_cannot_be_written_is_refused_before_anything_is_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], case: int
) -> None:
    clips, out, sentence = list(targets_that_cannot_be(tmp_path).values())[case]
    before = sorted(tmp_path.rglob("*"))
    assert caption(*clips, "--out", out) == 2
    shown = capsys.readouterr()
    assert sentence in shown.err and shown.err.count("\n") == 1 and shown.out == ""
    assert [path for path in sorted(tmp_path.rglob("*")) if path.name not in ("new", "x")] == before


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.usefixtures("nothing_opens")
def test_a_directory_that_is_not_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tmp_path.chmod(0o500)
    assert caption("a.wav", "--out", tmp_path) == 2
    assert "cannot be written (Permission denied)" in capsys.readouterr().err


@pytest.mark.parametrize("length", [235, 243])
def test_a_long_name_is_written(tmp_path: Path, length: int) -> None:
    """As long as its partial file's name is possible: 255 bytes."""
    name = "x" * length
    assert caption(f"{name}.wav", "--out", tmp_path) == 0
    assert os.listdir(tmp_path) == [f"{name}.txt"]


def test_a_directory_that_goes_away_costs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], answers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    fsync = os.fsync

    def vanish(file: int) -> None:
        fsync(file)
        for path in out.iterdir():
            path.unlink()
        out.rmdir()

    monkeypatch.setattr(os, "fsync", vanish)
    assert caption("a.wav", "b.wav", "--out", out) == 1
    shown = capsys.readouterr()
    assert shown.out == f"{TEXT}\n{TEXT}\n" and answers == ["a.wav", "b.wav"]
    assert "a.txt cannot be written (No such file or directory)" in shown.err and "Traceback" not in shown.err
    assert "what was decoded of b.wav is on standard output" in shown.err


def test_a_full_disk_costs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, calls = os.fsync, list[int]()

    def full_once(file: int) -> None:
        calls.append(file)
        if len(calls) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(file)

    monkeypatch.setattr(os, "fsync", full_once)
    assert caption("a.wav", "b.wav", "--out", tmp_path) == 1
    assert capsys.readouterr().out == f"{TEXT}\n{tmp_path / 'b.txt'}\n"
    assert os.listdir(tmp_path) == ["b.txt"]


def test_without_a_reader_of_the_names_the_files_are_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object, **__: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    with monkeypatch.context() as patch:
        patch.setattr("builtins.print", gone)
        assert caption("a.wav", "b.wav", "--out", tmp_path) == 0
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "b.txt"]


def test_what_was_decoded_before_a_fault_of_ours_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stream(*_: object) -> Iterator[AnswerEvent]:
        yield SegmentStarted(0.0, 1.0, alone=True)
        yield Final(0.0, 1.0, TEXT, (5,), Timings({}, 1.0, 1.0, 1.0, 88, 1))
        raise ZeroDivisionError

    monkeypatch.setattr(caption_module, "stream_in_batches", stream)
    with pytest.raises(ZeroDivisionError):
        caption("a.wav", "--out", tmp_path)
    assert (tmp_path / "a.partial.txt").read_text() == f"{TEXT}\n"
