"""`auricle serve` as a process: its line, its end, and what it refuses before it opens anything."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
import pytest
from auricle.models.errors import InputError, RunError
from auricle.runtime.__main__ import main
from auricle.runtime.engine import Engine
from auricle.runtime.server.options import ServerOptions
from auricle.runtime.server.run import bind
from served import serving


@contextmanager
def command(*words: str) -> Generator[tuple[subprocess.Popen[str], str]]:
    """The process and the address that it prints."""
    arguments = [sys.executable, "-m", "auricle.runtime", "serve", "--port", "0", *words]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().split()[-1]
        finally:
            process.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM")
def test_it_says_where_it_is_and_ends_when_it_is_told_to(tmp_path: Path, clip: Path) -> None:
    (tmp_path / "key").write_text("s3cret\n")
    with command("--key-file", str(tmp_path / "key")) as (process, url):
        assert url.startswith("http://127.0.0.1:") and url.endswith("/v1")
        answer = httpx.post(
            f"{url}/audio/transcriptions",
            files={"file": clip.read_bytes()},
            data={"model": "whisper-1", "response_format": "text"},
            headers={"authorization": "Bearer s3cret"},
        )
        assert answer.text.strip() == "turn on the kitchen dishwasher"
        assert httpx.get(f"{url}/models").status_code == 401
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
        assert (process.returncode, errors) == (0, "")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--host", "0.0.0.0"], "--key-file"),
        (["--key-file", "nowhere"], "cannot be read"),
        (["--key-file", "nowhere", "--no-key"], "not both"),
        (["--max-seconds", "nan"], "--max-seconds"),
        (["--max-upload", "-1"], "max_upload"),
        (["--origin", "everybody"], "origin"),
        (["--tls-cert", "a.pem"], "--tls-key"),
    ],
)
def test_what_it_refuses(capsys: pytest.CaptureFixture[str], words: list[str], sentence: str) -> None:
    assert main(["serve", *words]) == 2
    assert sentence in capsys.readouterr().err


def test_an_address_that_is_taken(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["serve", "--port", str(port)]) == 1
        with pytest.raises(RunError, match="cannot be listened on"):
            bind(ServerOptions(port=port))
    assert f"port {port}" in capsys.readouterr().err

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(InputError, match="not known"):
        bind(ServerOptions(host="no.such.host.invalid", no_key=True))


def test_without_the_extra_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['starlette'] = sys.modules['uvicorn'] = None\n"
    code += "from auricle.runtime.__main__ import main; sys.exit(main(['serve']))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 2
    assert "'.[serve]'" in run.stderr and run.stderr.count("\n") == 1


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_tls(engine: Engine, tmp_path: Path) -> None:
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject, *files]
    subprocess.run(made, check=True, capture_output=True)
    options = ServerOptions(port=0, tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem")
    with serving(engine, options) as running:
        assert running.url.startswith("https://")
        assert httpx.get(f"{running.url}/v1/models", verify=str(tmp_path / "cert.pem")).status_code == 200
    os.truncate(tmp_path / "key.pem", 10)
    with pytest.raises(InputError, match="PEM"), serving(engine, options):
        pass
