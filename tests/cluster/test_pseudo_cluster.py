"""`auricle-cluster caption` on a real Ray cluster of two nodes on this machine, one of which ends; and on Ray alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

psutil: Any = pytest.importorskip("psutil", reason="psutil is of the tests' own requirements")
from auricle.models.bundle import shipped_bundle
from auricle.runtime.cluster.connection import ALONE, SILENCED

pytestmark = pytest.mark.cluster
N_CLIPS = 200
CRASHES = "crashes.wav"
SECONDS = 300
HOOK = f"""import os, sys
from network_guard import sitecustomize  # keeps watching
def hook(event, words):
    if event == "open" and str(words[0]).endswith("/{CRASHES}"):
        os._exit(9)
sys.addaudithook(hook)
"""
"""In every process of Ray's: a clip with which a worker ends, as one might that hits a fault in a C library."""


@pytest.fixture(scope="session")
def ray() -> Any:
    return pytest.importorskip("ray", reason="Ray is in an environment of its own: make cluster-test")


@pytest.fixture(autouse=True)
def environment(connects: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook/sitecustomize.py").write_text(HOOK, encoding="utf-8")
    helpers = Path(__file__).parents[1] / "helpers"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([f"{tmp_path}/hook", str(helpers), os.environ["PYTHONPATH"]]))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with TemporaryDirectory(prefix="ray-", dir="/tmp") as short:  # a socket's path is 107 characters at most
        monkeypatch.setenv("RAY_TMPDIR", short)
        yield


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Copies of the demo's clips, named NUMBER-CLIP.wav, and one that ends its worker."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    clips = sorted((shipped_bundle() / "clips").glob("*.wav"))
    for number in range(N_CLIPS - 1):
        clip = clips[number % len(clips)]
        os.link(_copied(clip, tmp_path), folder / f"{number:03}-{clip.stem}.wav")
    shutil.copy(clips[0], folder / CRASHES)
    return folder


def _copied(clip: Path, folder: Path) -> Path:
    copy = folder / clip.name
    return copy if copy.exists() else Path(shutil.copy(clip, copy))


def program(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "auricle.runtime.cluster", "caption", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(run: subprocess.Popen[str]) -> tuple[int, dict[str, Any], str]:
    """Status, summary, standard error."""
    out, error = run.communicate(timeout=SECONDS)
    return run.returncode, json.loads(out.splitlines()[-1]) if out else {}, error


def wait_until(run: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert run.poll() is None, finished(run)
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def _await_listener(port: int) -> None:
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 1.0).close()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def n_written(out: Path) -> int:
    """Captions that are there; partial files are tried for a moment before anything starts."""
    return sum(".partial" not in path.name for path in out.glob("*.txt"))


@contextmanager
def two_nodes(monkeypatch: pytest.MonkeyPatch, **of_head: object) -> Generator[Any]:
    from ray.cluster_utils import Cluster  # pyright: ignore[reportMissingImports]

    forks = {"GRPC_ENABLE_FORK_SUPPORT": "0"}  # or every other server that a head forks for a client ends as it begins
    for name, value in (SILENCED | ALONE | forks | {"RAY_AUTH_TOKEN": "0" * 64}).items():
        monkeypatch.setenv(name, value)
    node = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": 100_000_000}
    settled = {"health_check_period_ms": 500, "health_check_failure_threshold": 4}
    head = {**node, "include_dashboard": False, "_system_config": settled, **of_head}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield cluster, cluster.add_node(**node)
    finally:
        cluster.shutdown()


def workers() -> Iterator[Any]:
    for process in psutil.Process().children(recursive=True):
        if process.name().startswith("ray::Worker") or "ray::Worker" in " ".join(process.cmdline()):
            yield process


def test_a_worker_a_node_and_a_clip_that_end_cost_no_other_clip(
    ray: Any, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with two_nodes(monkeypatch) as (cluster, second):
        words = (corpus, "--out", out, "--address", cluster.address, "--cache", tmp_path / "cache", "--threads", 1)
        run = program(*words)
        wait_until(run, lambda: n_written(out) > 30)
        assert len(list(workers())) == 2
        next(workers()).kill()
        wait_until(run, lambda: n_written(out) > 80)
        cluster.remove_node(second, allow_graceful=False)
        status, summary, error = finished(run)
        assert status == 1 and f"{corpus / CRASHES}: its worker ended, 3 times" in error
        assert (summary["files"], summary["written"], summary["left"]) == (N_CLIPS, N_CLIPS - 1, 0)
        assert list(summary["failed"]) == [str(corpus / CRASHES)] and summary["workers_lost"] >= 4
        written = {path: (path.stat().st_mtime_ns, path.read_text(encoding="utf-8")) for path in out.iterdir()}
        assert len(written) == N_CLIPS - 1 and {path.suffix for path in written} == {".txt"}
        texts = {(path.stem.partition("-")[2], text) for path, (_, text) in written.items()}
        assert len(texts) == 10 and ("command", "turn on the kitchen dishwasher\n") in texts
        assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 1
        status, summary, _ = finished(program(*words))
        assert (status, summary["skipped"], summary["written"], len(summary["failed"])) == (1, N_CLIPS - 1, 0, 1)
        assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == {p: t for p, (t, _) in written.items()}


def test_alone_it_listens_on_loopback_and_leaves_nothing(ray: Any, corpus: Path, tmp_path: Path) -> None:
    before = set(Path("/tmp").glob("auricle-ray-*"))
    run = program(f"{corpus}/0*.wav", "--out", tmp_path / "out", "--threads", 1)
    wait_until(run, lambda: n_written(tmp_path / "out") > 0)
    below = psutil.Process(run.pid).children(recursive=True)
    heard = [c.laddr.ip for process in below for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
    assert heard and all(ip.startswith("127.") or ip in ("::1", "::ffff:127.0.0.1") for ip in heard), heard
    status, summary, error = finished(run)
    assert (status, summary["written"], error) == (0, 100, "") and not (tmp_path / "home/.ray").exists()
    assert not os.listdir(os.environ["RAY_TMPDIR"]) and set(Path("/tmp").glob("auricle-ray-*")) == before
    _, alive = psutil.wait_procs(below, timeout=20)
    assert not alive


def test_a_signal_leaves_whole_files_and_the_same_command_goes_on(ray: Any, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = (f"{corpus}/0*.wav", "--out", out, "--threads", 1)
    run = program(*words)
    wait_until(run, lambda: n_written(out) > 9)
    run.send_signal(signal.SIGTERM)
    status, summary, error = finished(run)
    assert status == 128 + signal.SIGTERM and error == "auricle-cluster: stopped: the same command goes on\n"
    assert 9 < summary["written"] == len(list(out.iterdir())) and summary["left"] == 100 - summary["written"]
    status, again, _ = finished(program(*words))
    assert (status, again["written"], again["skipped"]) == (0, summary["left"], summary["written"])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Ray leaves that server's logs open
def test_a_cluster_is_used_from_outside(
    ray: Any, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the head's client server; a worker of it ends thrice with the one clip, and a second run has nothing to do."""
    port = _free_port()
    for clip in sorted(corpus.glob("*.wav"))[:180]:
        clip.unlink()
    words = [corpus, "--out", tmp_path / "out", "--address", f"ray://127.0.0.1:{port}", "--threads", 1]
    words += ["--cache", tmp_path / "cache"]
    with two_nodes(monkeypatch, ray_client_server_port=port):
        _await_listener(port)
        status, summary, error = finished(program(*words))
        assert (status, summary["written"], list(summary["failed"])) == (1, 19, [str(corpus / CRASHES)]), error
        (corpus / CRASHES).unlink()
        status, summary, error = finished(program(*words))
        assert (status, summary["written"], summary["skipped"]) == (0, 0, 19), error


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("outside", [False, True])
def test_a_cluster_that_goes_away_is_a_sentence(
    ray: Any, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outside: bool
) -> None:
    out = tmp_path / "out"
    port = _free_port()
    with two_nodes(monkeypatch, ray_client_server_port=port) as (cluster, _second):
        _await_listener(port)
        address = f"ray://127.0.0.1:{port}" if outside else cluster.address
        run = program(corpus, "--out", out, "--address", address, "--cache", tmp_path / "cache", "--threads", 1)
        wait_until(run, lambda: n_written(out) > 9)
        cluster.shutdown()
        status, _, error = finished(run)
        assert status == 1 and error.splitlines()[-1].startswith("auricle-cluster: Ray"), error
        assert "Traceback" not in error


@pytest.mark.parametrize(
    ("address", "status", "sentence"),
    [
        ("ray://127.0.0.1:9", 1, "no cluster answers at ray://127.0.0.1:9"),
        ("http://127.0.0.1:9", 2, "'http://127.0.0.1:9' is no address of a cluster"),
        ("127.0.0.1:9", 1, "no cluster answers at 127.0.0.1:9"),
        ("nowhere", 2, "'nowhere' is no address of a cluster"),
    ],
)
def test_an_address_without_a_cluster_is_a_sentence(
    ray: Any, corpus: Path, tmp_path: Path, address: str, status: int, sentence: str
) -> None:
    got = finished(program(corpus, "--out", tmp_path / "out", "--address", address))
    assert got[0] == status and sentence in got[2] and got[2].count("\n") == 1 and got[1] == {}
