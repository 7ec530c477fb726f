"""Standard streams that are full, gone or closed: a sentence or nothing, and a status, from all four programs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = {
    "runtime": ["auricle.runtime", "tasks"],
    "cluster": ["auricle.runtime.cluster", "--help"],
    "export": ["auricle.export", "--help"],
    "bench": ["auricle.bench", "--help"],
}
FULL = Path("/dev/full")


def command(program: str) -> list[str]:
    return [sys.executable, "-m", *COMMANDS[program]]


def environment() -> dict[str, str]:
    """Output is buffered, as it is unless somebody asks otherwise."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


@pytest.mark.parametrize("program", COMMANDS)
def test_a_reader_that_has_gone_is_no_error(program: str) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as pipe:
        done = subprocess.run(command(program), stdout=pipe, stderr=subprocess.PIPE, env=environment(), check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not FULL.exists(), reason="/dev/full is Linux's")
@pytest.mark.parametrize("program", COMMANDS)
def test_a_full_disk_is_a_sentence(program: str) -> None:
    with FULL.open("wb") as full:
        done = subprocess.run(command(program), stdout=full, stderr=subprocess.PIPE, env=environment(), check=False)
    said = done.stderr.decode()
    assert done.returncode == 1
    assert said.count("\n") == 1 and "cannot be written (No space left on device)" in said


@pytest.mark.parametrize("program", COMMANDS)
@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-"])
def test_closed_streams_are_no_error(program: str, closed: str, tmp_path: Path) -> None:
    line = f'exec "$@" {closed}'
    done = subprocess.run(
        ["sh", "-c", line, "sh", *command(program)], capture_output=True, env=environment(), check=False
    )
    assert done.returncode == 0 and b"Traceback" not in done.stderr
