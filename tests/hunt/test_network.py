"""The guard against the network: what no test may do is refused and told, here and in programs that tests start."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from auricle.models.bundle import shipped_bundle

OUTSIDE = "192.0.2.1"  # nobody's, for documents (RFC 5737)
CONNECT = f"import socket; socket.create_connection(({OUTSIDE!r}, 80), timeout=1)"


@pytest.fixture
def told(connects: Path) -> Path:
    """What was told, which this test has asked for: taken away before the guard looks."""
    return connects


def taken(told: Path) -> str:
    text = told.read_text(encoding="utf-8")
    told.write_text("", encoding="utf-8")
    return text


def test_a_connection_is_refused_and_told(told: Path) -> None:
    with socket.socket() as opened, pytest.raises(OSError, match="tests use no network"):
        opened.connect((OUTSIDE, 80))
    assert OUTSIDE in taken(told)
    with pytest.raises(OSError, match="tests use no network"):
        socket.getaddrinfo("example.com", 443)
    assert "example.com" in taken(told)


def test_programs_that_tests_start_are_watched(told: Path) -> None:
    run = subprocess.run([sys.executable, "-c", CONNECT], capture_output=True, text=True)
    assert run.returncode == 1 and "tests use no network" in run.stderr
    assert OUTSIDE in taken(told)


def test_a_server_of_the_test_s_own_is_allowed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()


def test_no_library_reports_to_its_makers(tmp_path: Path) -> None:
    """onnxruntime's builds keep a device's id and events to be sent in the user's cache, unless told not to."""
    apart = {name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "CI")}
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "auricle", "ask", str(shipped_bundle() / "clips" / "command.wav"), "asr"]
    run = subprocess.run(command, env=apart | home, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "turn on the kitchen dishwasher"
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
