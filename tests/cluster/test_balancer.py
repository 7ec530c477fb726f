"""The balancer of docs/scale.md, nginx as it is there, in front of two servers, one of which is told to end."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2 as httpx
import pytest
from auricle.models.bundle import shipped_bundle
from auricle.runtime.audio.decode import read_audio
from live_client import say, started, tell, until
from websockets.exceptions import ConnectionClosed

pytestmark = pytest.mark.cluster
DOCUMENT = Path(__file__).parents[2] / "docs/scale.md"
CLIP = shipped_bundle() / "clips/command.wav"
SAID = "turn on the kitchen dishwasher"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


@contextmanager
def served(*words: str) -> Generator[tuple[subprocess.Popen[str], int]]:
    """The process and its port."""
    command = [sys.executable, "-m", "auricle.runtime", "serve", "--port", "0", "--no-admission", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline().split(":")[-1].split("/")[0])
        finally:
            process.kill()


@contextmanager
def balanced(folder: Path, ports: list[int]) -> Generator[Any]:
    """nginx before servers of this machine, by the document's configuration; it has the port."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed: bash scripts/cluster.sh")
    found = re.search(r"^```nginx\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert found is not None
    port = free_port()
    text = re.sub(r"^ *ssl_.*\n", "", found[1], flags=re.MULTILINE)
    for number, own in enumerate(ports, 1):
        text = text.replace(f"10.0.0.{number}:8642", f"127.0.0.1:{own}")
    text = text.replace("listen 443 ssl", f"listen 127.0.0.1:{port}")
    assert "443" not in text and "10.0.0" not in text
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""
    head = f"{user} daemon off; pid {folder}/pid; error_log {folder}/errors; events {{}}"
    (folder / "conf").write_text(f"{head} http {{ access_log off; {temporary}\n{text} }}", encoding="utf-8")
    with subprocess.Popen([program, "-p", str(folder), "-e", f"{folder}/errors", "-c", f"{folder}/conf"]) as process:
        try:
            wait_for(port, process)
            yield SimpleNamespace(port=port)
        finally:
            process.terminate()


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(100):
        assert process.poll() is None
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.1)
    raise AssertionError("nginx does not listen")


def n_sessions(port: int) -> float:
    """Open at a server now."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    return sum(map(float, re.findall(r"^auricle_sessions\S* (\S+)", text, re.MULTILINE)))


def wait_for_sessions(port: int, n: int) -> None:
    """Until so many are open at a server."""
    deadline = time.monotonic() + 20
    while n_sessions(port) != n:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_server_that_is_taken_out_ends_its_sentences_and_the_client_goes_on_at_the_other(tmp_path: Path) -> None:
    waveform = read_audio(CLIP)
    with ExitStack() as stack:
        servers = [stack.enter_context(served("--max-sessions", "1")) for _ in range(2)]
        ports = [port for _, port in servers]
        balancer = stack.enter_context(balanced(tmp_path, ports))
        with started(SimpleNamespace(port=ports[0])):  # type: ignore[arg-type]
            second = stack.enter_context(started(balancer))
            assert [n_sessions(port) for port in ports] == [1, 1]  # the first, which is full, was asked before
        wait_for_sessions(ports[0], 0)
        first = stack.enter_context(started(balancer))
        assert [n_sessions(port) for port in ports] == [1, 1]
        for connection in (first, second):
            say(connection, waveform)
            until(connection, "speech")
        process, _ = servers[0]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        with pytest.raises(ConnectionClosed) as closed:
            events = until(first, "ended")
            assert [event["text"] for event in events if event["type"] == "final"] == [SAID]
            first.recv(20)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1012
        tell(second, "stop")  # nobody told it anything
        assert [event["text"] for event in until(second, "ended") if event["type"] == "final"] == [SAID]
        for _ in range(4):  # each is asked of either, one of which is not there
            wait_for_sessions(ports[1], 0)
            again = started(balancer)
            say(again, waveform)
            tell(again, "stop")
            assert [event["text"] for event in until(again, "ended") if event["type"] == "final"] == [SAID]
            again.close()
        wait_for_sessions(ports[1], 0)
        answer = httpx.post(
            f"http://127.0.0.1:{balancer.port}/v1/audio/transcriptions",
            files={"file": CLIP.read_bytes()},
            data={"model": "whisper-1"},
            timeout=30,
        )
        assert answer.json()["text"].strip() == SAID
