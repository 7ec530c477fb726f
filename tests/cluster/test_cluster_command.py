"""`auricle-cluster caption` with a fake cluster: what is refused before it starts, skipped, written, summed up."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import cast

import numpy as np
import pytest
from auricle.models.audio import SAMPLE_RATE
from auricle.models.bundle import shipped_bundle
from auricle.models.errors import InputError, RunError
from auricle.runtime.audio.decode import read_audio
from auricle.runtime.bundle import open_bundle
from auricle.runtime.cluster import caption as caption_module
from auricle.runtime.cluster import connection
from auricle.runtime.cluster.__main__ import main
from auricle.runtime.cluster.caption import CaptionCommand
from auricle.runtime.cluster.jobs import Captioned, Long, Task
from auricle.runtime.cluster.worker import OPENED, Worker, on_nodes
from served import write_wav


class OwnPool:
    """One worker in this process."""

    n_ended = 0

    def __init__(self, _ray: object, command: CaptionCommand, *_: object) -> None:
        self.idle = 1
        self._worker = Worker(command, None, 1)
        assert self._worker.open() == OPENED
        self._results: list[Captioned | Long] = []

    def give(self, task: Task) -> None:
        self.idle -= 1
        self._results.append(self._worker.caption(task))

    def wait(self) -> list[Captioned | Long]:
        self.idle += 1
        results = self._results
        self._results = []
        return results


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No Ray; the addresses that were connected to."""
    addresses: list[str] = []

    @contextmanager
    def connected(address: str, _cpus: float) -> Generator[SimpleNamespace]:
        addresses.append(address)
        yield SimpleNamespace(nodes=lambda: [])

    monkeypatch.setattr(caption_module, "connected", connected)
    monkeypatch.setattr(caption_module, "RayPool", OwnPool)
    return addresses


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("command", "weather"):
        shutil.copy(shipped_bundle() / "clips" / f"{name}.wav", folder)
    (folder / "broken.wav").write_bytes(b"no sound")
    return folder


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict[str, object], str]:
    """Status, summary, what standard error says."""
    status = main(["caption", *map(str, words)])
    shown = capsys.readouterr()
    return status, json.loads(shown.out.splitlines()[-1]) if shown.out else {}, shown.err


def test_captions_are_those_of_auricle_caption_and_a_second_run_does_what_is_left(
    cluster: list[str], clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from auricle.runtime.__main__ import main as auricle

    out = tmp_path / "out"
    status, summary, error = run(capsys, clips, "--out", out, "--format", "srt")
    assert status == 1 and f"{clips}/broken.wav: " in error
    assert (summary["files"], summary["written"], summary["skipped"], summary["left"]) == (3, 2, 0, 0)
    assert list(summary["failed"]) == [f"{clips}/broken.wav"]  # type: ignore[call-overload]
    good = [str(clips / f"{name}.wav") for name in ("command", "weather")]
    assert auricle(["caption", *good, "--format", "srt", "--out", str(tmp_path / "alone")]) == 0
    capsys.readouterr()
    for path in (tmp_path / "alone").iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes() != b""
    (out / "weather.srt").unlink()
    (out / "command.srt").write_text("kept", encoding="utf-8")
    (clips / "broken.wav").unlink()
    status, summary, _ = run(capsys, clips, "--out", out, "--format", "srt")
    assert (status, summary["written"], summary["skipped"]) == (0, 1, 1)
    assert (out / "command.srt").read_text(encoding="utf-8") == "kept"
    assert sorted(path.name for path in out.iterdir()) == ["command.srt", "weather.srt"]
    connections = len(cluster)
    assert run(capsys, clips, "--out", out, "--format", "srt")[1]["skipped"] == 2
    assert len(cluster) == connections  # nothing to do: nothing is connected to
    assert run(capsys, clips, "--out", out, "--format", "srt", "--again")[1]["written"] == 2
    assert (out / "command.srt").read_text(encoding="utf-8") != "kept"


def test_two_inputs_of_one_name_are_refused_before_anything_starts(
    cluster: list[str], clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(clips, clips / "more")
    status, summary, error = run(capsys, clips, "--out", tmp_path / "out")
    assert status == 2 and "two clips would both be written to" in error and error.count("\n") == 1
    assert not cluster and not summary


def test_a_target_that_cannot_be_is_refused(
    cluster: list[str], clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    status, _, error = run(capsys, clips, "--out", tmp_path / "file")
    assert status == 2 and "cannot be written" in error and error.count("\n") == 1 and not cluster


def test_a_clip_that_a_node_does_not_see_is_named(tmp_path: Path) -> None:
    worker = Worker(on_nodes(CaptionCommand(()), open_bundle()), None, 1)
    assert worker.open() == OPENED
    found = worker.caption(Task(tmp_path / "none.wav"))
    assert isinstance(found, Captioned) and "every node sees them" in (found.error or "")


def test_a_worker_that_cannot_open_the_bundle_says_why(tmp_path: Path) -> None:
    command = CaptionCommand(())
    elsewhere = replace(command.options, model=replace(command.options.model, bundle=tmp_path))
    assert "is not an Auricle bundle" in Worker(replace(command, options=elsewhere), None, 1).open()


@pytest.mark.parametrize(
    ("command", "sentence"),
    [(CaptionCommand((), format="srt", by_word=True), "cannot time words"), (CaptionCommand(()), OPENED)],
)
def test_what_no_clip_can_be_asked_is_told_once(command: CaptionCommand, sentence: str) -> None:
    assert sentence in Worker(command, None, 1).open()


@pytest.mark.parametrize("batch", [1, 3])
def test_a_long_clip_in_parts_is_the_same_as_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    """Cut where it is cut anyway: the same segments, times and words; a silent one in the middle is nobody's fault."""
    sound = [read_audio(path) for path in sorted((shipped_bundle() / "clips").glob("*.wav"))[:3]]
    pause = np.zeros(12 * SAMPLE_RATE, np.float32)
    whole = np.concatenate([sound[0], pause, sound[1], pause, sound[2], pause, sound[0]])
    write_wav(tmp_path / "long.wav", whole)
    command = on_nodes(CaptionCommand(()), open_bundle())
    alone, worker = Worker(command, None, 1), Worker(replace(command, batch=batch), None, 2)
    assert alone.open() == OPENED == worker.open()
    monkeypatch.setattr("auricle.runtime.cluster.parts.SHORTEST_S", 10.0)
    task = Task(tmp_path / "long.wav")
    one, long = alone.caption(task), worker.caption(task)
    assert isinstance(one, Captioned) and isinstance(long, Long) and len(long.parts) == 4
    parts = [worker.caption(Task(task.clip, part)) for part in long.parts]
    assert all(isinstance(part, Captioned) for part in parts)
    found = [row for part in parts if isinstance(part, Captioned) for row in part.rows]
    if batch > 1:  # which rounds otherwise
        found = [replace(row, avg_logprob=alike.avg_logprob) for row, alike in zip(found, one.rows, strict=True)]
    assert found == list(one.rows)
    assert len(one.rows) >= 2 and one.audio_s > 40


@pytest.mark.parametrize(
    ("address", "raised", "told"),
    [
        ("ray://head:10001", ConnectionError("gone"), RunError),
        ("ray://head:10001", ValueError("a Ray object whose owner is unknown(c5)"), RunError),
        ("ray://head:10001", BrokenPipeError(), BrokenPipeError),
        ("ray://head:10001", InputError("out is full: write elsewhere"), InputError),
        ("ray://head:10001", ValueError("a fault of ours"), ValueError),
        ("head:6379", ConnectionError("gone"), ConnectionError),
    ],
)
def test_a_client_that_lost_its_cluster_says_so_and_nothing_else_is_taken_for_it(
    address: str, raised: Exception, told: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = SimpleNamespace(RayError=RuntimeError)
    ray = SimpleNamespace(init=lambda **_: None, shutdown=lambda: None, exceptions=nothing)
    monkeypatch.setitem(sys.modules, "ray", cast(ModuleType, ray))
    monkeypatch.setattr(connection, "_require_listener", lambda _: None)
    for name in connection.SILENCED:
        monkeypatch.setenv(name, "")  # and put back
    hook = threading.excepthook
    with pytest.raises(Exception) as failed, connection.connected(address, 1):
        raise raised
    assert type(failed.value) is told and threading.excepthook is hook
    assert (failed.value is raised) is (told is not RunError)
