"""Wyoming clients that vanish, send what is no event or too much of it, and a server that fails, is full or stops."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from auricle.models.errors import InputError
from auricle.runtime.engine import Engine
from auricle.runtime.scheduler import Priority
from auricle.runtime.server.options import ServerOptions
from auricle.runtime.server.wyoming import connection
from auricle.runtime.server.wyoming.discovery import instance_name, reachable_address
from auricle.runtime.server.wyoming.options import WyomingOptions
from served import Served, serving
from wyoming.asr import Transcript
from wyoming.audio import AudioStop
from wyoming.event import Event
from wyoming.info import Describe
from wyoming.ping import Ping

from . import wyoming_client as wy

COMMAND = "turn on the kitchen dishwasher"
LIMITS = ServerOptions(port=0, max_sessions=2, max_seconds=20, header_seconds=0.3, body_seconds=0.3)


@pytest.fixture(scope="module")
def served(engine: Engine) -> Iterator[Served]:
    with serving(engine, LIMITS, WyomingOptions(0, answers="handle")) as running:
        yield running


@pytest.fixture(scope="module")
def sound(clip: Path) -> bytes:
    return wy.pcm(clip)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def sessions(running: Served) -> float:
    text = running.service.metrics.text().decode()
    return sum(float(line.split()[1]) for line in text.splitlines() if line.startswith("auricle_sessions{"))


async def spoken(running: Served, sound: bytes) -> None:
    async with wy.client(running.wyoming_port) as client:
        assert wy.transcript(await wy.command(client, wy.chunks(sound))) == COMMAND


def line(kind: Any, **head: Any) -> bytes:
    return json.dumps({"type": kind, **head}).encode() + b"\n"


def chunk(payload_length: int = 0, **data: Any) -> bytes:
    form = {"rate": 16000, "width": 2, "channels": 1, **data}
    return line("audio-chunk", data=form, payload_length=payload_length)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"\n",
        b"\x16\x03\x01\x02\x00\x01\n",
        b"[" * 60_000 + b"\n",
        b'"describe"\n',
        line(7),
        line("describe", data=[]),
        line("describe", data=[1]),
        line("describe", data_length=2) + b"[]",
        line("describe", data_length=2) + b"{,",
        b"x" * 100_000,
        line("x" * 70_000),
        line("audio-chunk", payload_length=1 << 40),
        line("audio-chunk", payload_length=-1),
        line("audio-chunk", payload_length=True),
        line("audio-chunk", payload_length=1.5),
        line("describe", data_length=1 << 30),
        line("audio-chunk"),
        chunk(rate=0),
        chunk(rate=1e9),
        chunk(rate="16000"),
        chunk(width=5),
        chunk(channels=0),
        chunk(channels=None),
        line("audio-start", data={"rate": 16000, "width": 2}),
        line("transcribe", data={"language": "xx"}),
        line("transcribe", data={"language": ["en"]}),
        line("transcribe", data={"name": "another-model"}),
        line("transcribe", data={"vad_sensitivity": "wild"}),
        line("transcribe", data={"transcript_names": "lamp"}),
        line("transcribe", data={"transcript_terms": [1]}),
        line("transcript"),
        line("transcript", data={"text": "a" * 5000}),
        line("ping", data={"text": 1}),
        line("select-program", data={"name": "another"}),
    ],
    ids=range(35),
)
def test_what_cannot_be_followed_is_an_error_and_the_end(served: Served, data: bytes) -> None:
    events = [event for event in wy.run(wy.told(served.wyoming_port, data)) if event.type != "transcript-start"]
    assert [event.type for event in events] == ["error"], events
    assert events[0].data["text"] and events[0].data["code"] not in (None, "server_error")


def test_what_is_not_known_is_passed_over(served: Served) -> None:
    async def main() -> list[Event | None]:
        async with wy.client(served.wyoming_port) as client:
            await wy.send(client, [Event("played", {"a": 1}, b"abc"), Event("run-pipeline"), Describe().event()])
            return [await client.read_event()]

    [event] = wy.run(main())
    assert event is not None and event.type == "info"


@pytest.mark.parametrize("data", [b"", b'{"type"', chunk(1000) + b"123", line("describe", data_length=9)])
def test_who_is_slow_is_told_so(served: Served, data: bytes) -> None:
    [event] = wy.run(wy.told(served.wyoming_port, data))
    assert (event.type, event.data["code"]) == ("error", "timeout")


def test_who_says_nothing_in_the_middle_is_told_so(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "IDLE_SECONDS", 0.2)
    events = wy.run(wy.told(served.wyoming_port, chunk()))
    assert [event.type for event in events] == ["transcript-start", "error"]
    assert events[1].data["code"] == "timeout"
    until(lambda: sessions(served) == 0)


def test_who_waits_for_an_answer_may_say_nothing(served: Served, sound: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "IDLE_SECONDS", 0.1)

    async def main() -> list[Event]:
        async with wy.client(served.wyoming_port) as client:
            with served.service.stream().turn(Priority.FINAL):
                await wy.begin(client)
                await wy.send(client, [*wy.chunks(sound), AudioStop().event()])
                await asyncio.sleep(0.5)
            return await wy.answer(client)

    assert wy.transcript(wy.run(main())) == COMMAND


def test_a_command_is_not_endless(served: Served) -> None:
    minute = [Event("audio-chunk", {"rate": 16000, "width": 2, "channels": 1}, bytes(320_000))] * 3

    async def main() -> list[Event]:
        async with wy.client(served.wyoming_port) as client:
            await wy.begin(client)
            await wy.send(client, minute)
            return await wy.answer(client)

    [*_, event] = wy.run(main())
    assert (event.type, event.data["code"]) == ("error", "too_long")
    until(lambda: sessions(served) == 0)


@pytest.mark.parametrize("where", ["sound", "chunk", "answer", "sentence"])
def test_a_client_that_vanishes_is_forgotten(
    served: Served, sound: bytes, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    data = {
        "sound": chunk(len(sound)) + sound,
        "chunk": chunk(len(sound)) + sound + chunk(1000) + b"123",
        "answer": chunk(len(sound)) + sound + line("audio-stop"),
        "sentence": line("transcript", data={"text": COMMAND}),
    }
    wy.run(spoken(served, sound))

    async def main() -> None:
        async with wy.raw(served.wyoming_port) as (_, writer):
            writer.write(data[where])
            await asyncio.to_thread(until, lambda: served.service.scheduler.waiting().total() == 1)
            writer.transport.abort()

    with served.service.stream().turn(Priority.FINAL):
        wy.run(main())
        until(lambda: not served.service.scheduler.waiting())
        until(lambda: sessions(served) == 0)
    assert not caplog.records


def test_one_session_more_than_allowed_is_refused(served: Served) -> None:
    async def main() -> list[Event]:
        async with wy.client(served.wyoming_port) as first, wy.client(served.wyoming_port) as second:
            for client in (first, second):
                await wy.begin(client)
                assert (await client.read_event()) is not None
            return await wy.told(served.wyoming_port, chunk())

    [event] = wy.run(main())
    assert (event.type, event.data["code"]) == ("error", "rate_limit_exceeded")
    until(lambda: sessions(served) == 0)


def test_two_commands_at_once_are_refused(served: Served, sound: bytes) -> None:
    async def main() -> list[Event]:
        async with wy.client(served.wyoming_port) as client:
            with served.service.stream().turn(Priority.FINAL):
                await wy.begin(client)
                await wy.send(client, [*wy.chunks(sound), AudioStop().event()])
                await wy.begin(client)
                return await wy.answer(client)

    [*_, event] = wy.run(main())
    assert event.type == "error" and "one thing at a time" in event.data["text"]


def test_a_failure_inside_is_told_and_closes_and_no_word_of_it_is_logged(
    served: Served, sound: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ValueError(COMMAND)

    monkeypatch.setattr(served.service.engine, "encode", fail)
    caplog.set_level(logging.DEBUG)

    async def main() -> tuple[list[Event], Event | None]:
        async with wy.client(served.wyoming_port) as client:
            return await wy.command(client, wy.chunks(sound)), await client.read_event()

    [*_, event], after = wy.run(main())
    assert event.type == "error" and COMMAND not in event.data["text"] and after is None
    assert COMMAND not in caplog.text and "ValueError" in caplog.text


def test_nothing_that_was_said_is_logged(
    served: Served, sound: bytes, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)

    async def main() -> None:
        await spoken(served, sound)
        async with wy.client(served.wyoming_port) as client:
            await client.write_event(Transcript(text=COMMAND).event())
            assert (await wy.answer(client))[-2].data["text"] == "turning on the kitchen dishwasher"

    wy.run(main())
    assert "dishwasher" not in caplog.text + "".join(capfd.readouterr())


def test_a_server_that_stops_says_what_it_has_heard(engine: Engine, sound: bytes) -> None:
    with serving(engine, wyoming=WyomingOptions(0)) as running:

        async def main() -> tuple[list[Event], list[Event | None]]:
            async with wy.client(running.wyoming_port) as idle, wy.client(running.wyoming_port) as client:
                await wy.begin(client)
                await wy.send(client, [*wy.chunks(sound), Ping().event()])
                while (event := await client.read_event()) is not None and event.type != "pong":
                    pass
                running.server.should_exit = True
                events = await wy.answer(client)
                return events, [await client.read_event(), await idle.read_event()]

        events, after = wy.run(main())
    assert wy.transcript(events) == COMMAND and after == [None, None]


def test_only_an_address_that_leads_here_is_told() -> None:
    class Listener:
        def __init__(self, family: int, address: str) -> None:
            self.family = family
            self._address = address

        def getsockname(self) -> tuple[str, int]:
            return self._address, 10300

    def told(address: str) -> str | None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener: Any = Listener(family, address)
        return reachable_address(listener)

    assert [told(each) for each in ("127.0.0.1", "::1", "169.254.1.2", "fe80::1")] == [None] * 4
    assert told("192.168.1.5") == "192.168.1.5"
    for each in ("0.0.0.0", "::"):
        assert told(each) not in ("0.0.0.0", "::", "127.0.0.1", "::1")
    assert instance_name("My_Host.local", 10300) == "auricle-my-host-10300" == instance_name("my-host", 10300)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"port": 0, "host": "0.0.0.0"}, "no keys"),
        ({"port": 70_000}, "port 70000"),
        ({"port": 0, "answers": "intent"}, "names"),
        ({"port": 0, "prompt": "asr"}, "nothing is asked"),
        ({"port": 0, "names": ("a|b",)}, "belongs to the list"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        WyomingOptions(**options)
