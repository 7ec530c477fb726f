"""The guard, attacked from outside: other hosts and pages, bodies without an end, senders and readers that dawdle."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import av
import httpx2 as httpx
import numpy as np
import pytest
from auricle.runtime.engine import Engine
from auricle.runtime.server.guard import Guard
from auricle.runtime.server.options import ServerOptions
from auricle.runtime.server.service import Service
from hypothesis import given, settings
from hypothesis import strategies as st
from served import Served, serving
from starlette.types import Message, Receive, Scope, Send
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

PATH = "/v1/audio/transcriptions"
FORM = "multipart/form-data; boundary=b"
START = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
PAGE = "https://page.example"


@pytest.fixture(scope="module")
def hasty(engine: Engine) -> Iterator[Served]:
    """A server that waits for nobody, and takes little."""
    options = ServerOptions(
        port=0, header_seconds=0.5, body_seconds=1.0, max_upload=0.5, max_seconds=60, origins=(PAGE,)
    )
    with serving(engine, options) as running:
        yield running


def opened(running: Served) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", running.port))
    connection.settimeout(10)
    return connection


def head(running: Served, *lines: str) -> bytes:
    fixed = (f"POST {PATH} HTTP/1.1", f"Host: 127.0.0.1:{running.port}", f"Content-Type: {FORM}")
    return "\r\n".join([*fixed, *lines, "", ""]).encode()


def everything(connection: socket.socket) -> bytes:
    """Until the server closes the connection."""
    found = b""
    while True:
        try:
            data = connection.recv(65536)
        except ConnectionResetError:
            return found
        if not data:
            return found
        found += data


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example:8642", "localhost.evil.example", "evil.example@127.0.0.1", "10.0.0.1", ""],
)
def test_other_hosts(served: Served, host: str) -> None:
    """A name that was bent to this machine is not this machine's."""
    answer = httpx.get(f"{served.url}/v1/models", headers={"host": host})
    assert answer.status_code in (400, 403)
    if host:
        upgrade = ("GET /v1/realtime HTTP/1.1", f"Host: {host}", "Connection: Upgrade", "Upgrade: websocket")
        keys = ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "", "")
        with closing(opened(served)) as connection:
            connection.sendall("\r\n".join([*upgrade, *keys]).encode())
            assert connection.recv(65536).startswith(b"HTTP/1.1 403")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:99", "[::1]:8642"])
def test_own_hosts(served: Served, host: str) -> None:
    assert httpx.get(f"{served.url}/v1/models", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1", "http://127.0.0.1"])
def test_pages_of_other_addresses(served: Served, origin: str) -> None:
    for path in ("/v1/models", "/health"):
        answer = httpx.get(f"{served.url}{path}", headers={"origin": origin})
        assert answer.status_code == 403
        assert not [name for name in answer.headers if name.startswith("access-control")]
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://127.0.0.1:{served.port}/v1/realtime", additional_headers={"Origin": origin})
    assert refused.value.response.status_code == 403
    assert json.loads(refused.value.response.body or b"{}")["error"]["code"] == "origin_not_allowed"


def test_own_pages_and_allowed_ones(served: Served, hasty: Served) -> None:
    assert httpx.get(f"{served.url}/v1/models", headers={"origin": served.url}).status_code == 200
    allowed = httpx.get(f"{hasty.url}/v1/models", headers={"origin": PAGE})
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, PAGE)
    asked = {"origin": PAGE, "access-control-request-headers": "authorization"}
    preflight = httpx.options(f"{hasty.url}{PATH}", headers=asked)
    assert preflight.headers["access-control-allow-headers"] == "authorization"
    assert httpx.options(f"{hasty.url}{PATH}", headers={"origin": "https://evil.example"}).status_code == 403


def test_the_key_in_a_subprotocol(engine: Engine) -> None:
    with serving(engine, ServerOptions(port=0, key="s3cret")) as running:
        for key, status in (("wrong", 401), ("s3cret", 404)):  # let in, to where nothing is yet
            with pytest.raises(InvalidStatus) as refused:
                connect(
                    f"ws://127.0.0.1:{running.port}/nowhere",
                    subprotocols=["realtime", f"openai-insecure-api-key.{key}"],  # pyright: ignore[reportArgumentType]
                )
            assert refused.value.response.status_code in (status, 403 if status == 404 else status)


def test_a_body_without_an_end(hasty: Served) -> None:
    with closing(opened(hasty)) as connection:
        connection.sendall(head(hasty, "Transfer-Encoding: chunked") + b"%x\r\n%s\r\n" % (len(START), START))
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 100:
                connection.sendall(b"100000\r\n" + bytes(1 << 20) + b"\r\n")
                sent += 1
    assert sent < 100


def test_a_body_that_is_too_large_is_told_so(hasty: Served) -> None:
    for content in (START + bytes(2 << 20), iter([START, *[bytes(1 << 20)] * 2])):
        answer = httpx.post(f"{hasty.url}{PATH}", content=content, headers={"content-type": FORM})
        assert answer.status_code == 413
        assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_length_that_lies(hasty: Served) -> None:
    with closing(opened(hasty)) as connection:
        connection.sendall(head(hasty, "Content-Length: 5000") + b"--b\r\n")
        assert everything(connection).startswith(b"HTTP/1.1 408")
    with closing(opened(hasty)) as connection:
        connection.sendall(head(hasty, "Content-Length: 99999999999999") + b"--b\r\n")
        assert everything(connection).startswith(b"HTTP/1.1 413")
    with closing(opened(hasty)) as connection:
        connection.sendall(head(hasty, "Content-Length: -5") + b"--b\r\n")
        assert everything(connection).startswith(b"HTTP/1.1 400")


def test_a_byte_now_and_then(hasty: Served) -> None:
    """Neither headers nor bodies may take for ever; a request that has come is not cut."""
    for start in (b"", b"POST / HTTP/1.1\r\nHost: ", head(hasty, "Content-Length: 5000") + START):
        with closing(opened(hasty)) as connection:
            connection.sendall(start)
            began = time.monotonic()
            with contextlib.suppress(OSError):
                while time.monotonic() < began + 8:
                    connection.sendall(b"a")
                    time.sleep(0.05)
            assert time.monotonic() < began + 8


def test_the_timer_of_headers_ends_with_them(hasty: Served, clip: Path) -> None:
    with httpx.Client(base_url=hasty.url) as client:
        for _ in range(2):
            files = {"file": clip.read_bytes()}
            assert client.post(PATH, files=files, data={"model": "whisper-1"}).status_code == 200
            time.sleep(0.8)


def test_much_silence_in_a_small_file(hasty: Served, tmp_path: Path) -> None:
    path = tmp_path / "long.opus"
    with av.open(str(path), "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=16_000, layout="mono", options={"b": "6000", "dtx": "1"})
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000 * 10), np.int16), "s16", "mono")
        frame.sample_rate = 16_000
        for _ in range(12):
            frame.pts = None
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert path.stat().st_size < 50_000
    answer = httpx.post(f"{hasty.url}{PATH}", files={"file": path.read_bytes()}, data={"model": "whisper-1"})
    assert answer.status_code == 400
    assert "60 s" in answer.json()["error"]["message"]


def test_nothing_of_what_is_asked_is_logged(
    served: Served, clip: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("what somebody whispered")

    with caplog.at_level(logging.DEBUG):
        ask = {"model": "whisper-1", "prompt": "murmuring"}
        assert httpx.post(f"{served.url}{PATH}", files={"file": clip.read_bytes()}, data=ask).status_code == 200
        monkeypatch.setattr("auricle.runtime.server.openai.transcriptions._response", broken)
        failed = httpx.post(f"{served.url}{PATH}", files={"file": clip.read_bytes()}, data=ask)
        deadline = time.monotonic() + 10
        while "auricle.server" not in {record.name for record in caplog.records} and time.monotonic() < deadline:
            time.sleep(0.01)  # it is written once the client has its answer
    assert failed.status_code == 500
    ours = [record for record in caplog.records if not record.name.startswith("http")]  # the client's own are not
    assert any(record.name == "auricle.server" and "ValueError" in record.getMessage() for record in ours)
    told = "\n".join(f"{record.getMessage()} {record.exc_text}" for record in ours)
    for word in ("dishwasher", "murmuring", "whispered"):
        assert word not in told


def test_a_crowd_that_says_nothing_keeps_nobody_out(hasty: Served) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(closing(opened(hasty))).sendall(b"GET / HT")
        assert httpx.get(f"{hasty.url}/health").status_code == 200


def test_a_reader_that_stops_is_given_up(engine: Engine) -> None:
    """The application's task ends; it does not wait for ever with its session open."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        raise AssertionError("it was sent")

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"host", b"localhost")]}
    with closing(Service(engine, ServerOptions(send_seconds=0.05))) as service:
        asyncio.run(asyncio.wait_for(Guard(app, service, {})(scope, receive, send), 10))
        assert 'auricle_sessions{protocol="other"} 0.0' in service.metrics.text().decode()


@settings(max_examples=30, deadline=None)
@given(sent=st.binary(max_size=200))
def test_whatever_is_sent_the_server_lives(hasty: Served, sent: bytes) -> None:
    with closing(opened(hasty)) as connection, contextlib.suppress(OSError):
        connection.sendall(b"POST " + sent + b"\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        connection.recv(100)
    assert httpx.get(f"{hasty.url}/health").status_code == 200
