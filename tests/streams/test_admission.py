"""Admission: a live stream for which the machine has no time is refused at once, everything else goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx2 as httpx
import pytest
from auricle.runtime.__main__ import main
from auricle.runtime.cli import commands
from auricle.runtime.cli.serve import ServeCommand
from auricle.runtime.engine import Engine
from auricle.runtime.server.options import ServerOptions
from auricle.runtime.server.service import Service
from auricle.runtime.server.wyoming.options import WyomingOptions
from served import Served, serving
from server import wyoming_client as wy
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from wyoming.event import Event

from .live_sessions import until

COMMAND = "turn on the kitchen dishwasher"


@pytest.fixture(scope="module")
def served(engine: Engine) -> Iterator[Served]:
    """A machine that has time for one stream, and is asked by Home Assistant too."""
    with serving(engine, wyoming=WyomingOptions(0), admission=True) as running:
        load = running.service.scheduler.load
        for _ in range(40):  # what a clip really takes changes little
            load.update.add(60.0, 2.0)
            load.add_final(60.0, 4.0)
        yield running


@pytest.fixture
def full(served: Served) -> Served:
    """The same, when the streams of earlier tests have ended."""
    until(lambda: load_of(served) == 0.0)
    return served


def address(served: Served) -> str:
    return f"ws://127.0.0.1:{served.port}/v1/realtime?intent=transcription"


def load_of(served: Served) -> float:
    lines = httpx.get(f"{served.url}/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("auricle_load ")))


def test_the_stream_that_does_not_fit_is_refused_in_the_form_of_the_protocol(full: Served) -> None:
    with connect(address(full)) as first:
        assert json.loads(first.recv(10))["type"] == "session.created"
        assert load_of(full) == pytest.approx(full.service.scheduler.load.of(1))
        with pytest.raises(InvalidStatus) as refused:
            connect(address(full))
        answer = refused.value.response
        assert answer.status_code == 429 and answer.headers["retry-after"] == "1"
        error = json.loads(answer.body or b"")["error"]
        assert (error["type"], error["code"]) == ("invalid_request_error", "rate_limit_exceeded")
        assert "0.8" in error["message"]
    until(lambda: load_of(full) == 0.0)
    with connect(address(full)) as again:
        assert json.loads(again.recv(10))["type"] == "session.created"


def test_a_command_that_does_not_fit_is_refused_by_wyoming_s_error(full: Served, engine: Engine) -> None:
    sound = wy.chunks(wy.pcm(engine.bundle.path("clips/command.wav")))

    async def ask() -> list[Event]:
        async with wy.client(full.wyoming_port) as client:
            return await wy.command(client, sound)

    with full.service.session("realtime", live=True):
        refused = wy.run(ask())
    assert [event.type for event in refused if event.type in wy.LAST] == ["error"]
    assert next(event for event in refused if event.type == "error").data["code"] == "rate_limit_exceeded"
    until(lambda: load_of(full) == 0.0)
    assert wy.transcript(wy.run(ask())) == COMMAND


def test_files_are_transcribed_on_a_full_machine(full: Served, engine: Engine) -> None:
    until(lambda: load_of(full) == 0.0)
    with full.service.session("realtime", live=True):
        files = {"file": engine.bundle.path("clips/command.wav").read_bytes()}
        answer = httpx.post(f"{full.url}/v1/audio/transcriptions", files=files, data={"model": "whisper-1"}, timeout=60)
    assert answer.json()["text"] == COMMAND


def test_without_admission_nobody_is_refused(engine: Engine) -> None:
    service = Service(engine, ServerOptions(port=0, admission=False))
    service.scheduler.load.update.add(60.0, 2.0)
    service.scheduler.load.add_final(60.0, 4.0)
    with service.session("realtime", live=True), service.session("realtime", live=True):
        assert service.scheduler.load.of(2) > 1
    service.close()


def test_what_a_stream_takes_is_known_before_anybody_speaks(engine: Engine) -> None:
    service = Service(engine, ServerOptions(port=0))
    service.estimate()
    until(lambda: service.scheduler.load.final.value is not None)
    assert service.scheduler.load.of(1) > 0
    service.close()


@pytest.mark.parametrize(("words", "admission"), [([], True), (["--no-admission"], False)])
def test_the_command_says_whether(words: list[str], admission: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[ServeCommand] = []

    def serve(command: ServeCommand) -> int:
        given.append(command)
        return 0

    monkeypatch.setattr(commands, "serve", serve)
    assert main(["serve", *words]) == 0
    assert given[0].server.admission is admission
