"""`auricle-export` killed at any moment, or out of disk: no bundle or a whole one; then again, as if undisturbed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from auricle.models.bundle import MANIFEST, sha256_of
from auricle.runtime.bundle import open_bundle, verify_hashes
from conftest import export_arguments

pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="SIGKILL, tmpfs")
IN_A_ROW = 4  # kills of one export before it is left to end
EXPORT = """
import os, sys
import auricle.export.__main__ as program
import auricle.export.families.registry, auricle.export.pipeline, auricle.models.bundle
print("ready", flush=True)
for line in sys.stdin:  # seconds of imports are spared: each export is a fork
    job = os.fork()
    if not job:
        os.dup2(2, 1)
        os._exit(program.main(line.rstrip("\\n").split("\\t")))
    print(job, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(job, 0)[1]), flush=True)
"""


class Exports:
    """A process that forks an export for each line it is given."""

    def __init__(self, errors: Path) -> None:
        self.errors = errors
        with errors.open("wb") as file:
            self._job = subprocess.Popen(
                [sys.executable, "-c", EXPORT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True
            )
        assert self._line() == "ready"

    def run(self, out: Path, kill_after_s: float | None = None) -> int:
        """An export's exit status; -9: it was killed before its end."""
        assert self._job.stdin is not None
        self._job.stdin.write("\t".join([*export_arguments(out), "--quiet"]) + "\n")
        self._job.stdin.flush()
        number = int(self._line())
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        return int(self._line())

    def close(self) -> None:
        self._job.kill()
        self._job.communicate()

    def _line(self) -> str:
        assert self._job.stdout is not None
        return self._job.stdout.readline().strip()


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Generator[Exports]:
    opened = Exports(tmp_path_factory.mktemp("exports") / "stderr")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def undisturbed(exports: Exports, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], float]:
    """What an export makes that nobody disturbs, and how long it takes."""
    out = tmp_path_factory.mktemp("undisturbed") / "bundle"
    started = time.monotonic()
    assert exports.run(out) == 0
    return contents(out), time.monotonic() - started


def contents(bundle: Path) -> dict[str, Any]:
    """Every file's sha256, and the manifest but for the time of its making."""
    verify_hashes(open_bundle(bundle))
    found: dict[str, Any] = {path.name: sha256_of(path) for path in bundle.iterdir() if path.name != MANIFEST}
    manifest = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
    del manifest["created"]
    return found | {MANIFEST: manifest}


def kill_often(exports: Exports, undisturbed: tuple[dict[str, Any], float], folder: Path, n: int, seed: int) -> int:
    """Kills n exports at random moments; how many were killed before their end."""
    expected, seconds = undisturbed
    rng = random.Random(seed)
    n_killed = 0
    for i in range(n):
        out = folder / "bundle"
        moment = rng.uniform(0, 1.1 * seconds) if i % IN_A_ROW == 0 else rng.uniform(0, 0.6 * seconds)
        status = exports.run(out, moment)
        n_killed += status == -signal.SIGKILL
        assert status in (0, -signal.SIGKILL) or out.exists(), f"kill {i} of seed {seed}: status {status}"
        if not out.exists() and (i + 1) % IN_A_ROW and i + 1 < n:
            continue
        if not out.exists():
            assert exports.run(out) == 0
        assert contents(out) == expected, f"after kill {i} of seed {seed}"
        assert [path.name for path in folder.iterdir()] == ["bundle"]
        for path in [*out.iterdir(), out]:
            path.rmdir() if path.is_dir() else path.unlink()
    return n_killed


def test_killed(exports: Exports, undisturbed: tuple[dict[str, Any], float], tmp_path: Path) -> None:
    assert kill_often(exports, undisturbed, tmp_path, 3, seed=1) > 0


@pytest.mark.hunt
def test_killed_a_hundred_times(exports: Exports, undisturbed: tuple[dict[str, Any], float], tmp_path: Path) -> None:
    n = int(os.environ.get("KILLS", "100"))
    print(f"{kill_often(exports, undisturbed, tmp_path, n, seed=2)} of {n} killed before the end")


@contextlib.contextmanager
def disk(folder: Path, n_bytes: int) -> Generator[None]:
    """A file system of that size, in memory. Skips without the right to mount one."""
    folder.mkdir()
    size = f"size={n_bytes}"
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no right to mount a small disk: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill_often(exports: Exports, undisturbed: tuple[dict[str, Any], float], folder: Path, n: int, seed: int) -> None:
    """Exports to n disks that are too small, then to the same disk when there is room."""
    expected, _ = undisturbed
    total = sum(entry["size"] for entry in expected[MANIFEST]["files"])
    rng = random.Random(seed)
    for i in range(n):
        small = folder / f"disk{i}"
        n_bytes = rng.randrange(1 << 16, total)
        with disk(small, n_bytes):
            before = exports.errors.stat().st_size
            status = exports.run(small / "bundle")
            said = exports.errors.read_bytes()[before:].decode()
            assert status == 2 and "the disk of" in said and said.count("\n") == 1, (n_bytes, status, said)
            assert not (small / "bundle").exists()
            subprocess.run(["mount", "-o", f"remount,size={8 * total}", str(small)], check=True)
            assert exports.run(small / "bundle") == 0
            assert contents(small / "bundle") == expected, n_bytes


def test_disk_full(exports: Exports, undisturbed: tuple[dict[str, Any], float], tmp_path: Path) -> None:
    fill_often(exports, undisturbed, tmp_path, 1, seed=1)


@pytest.mark.hunt
def test_disk_full_twenty_times(exports: Exports, undisturbed: tuple[dict[str, Any], float], tmp_path: Path) -> None:
    fill_often(exports, undisturbed, tmp_path, int(os.environ.get("DISKS", "20")), seed=2)
