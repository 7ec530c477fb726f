"""Wyoming's own client: describe, commands, sounds in every form, an early answer, answers and intents."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from auricle.models.audio import SAMPLE_RATE
from auricle.runtime.__main__ import main
from auricle.runtime.engine import Engine
from auricle.runtime.scheduler import EngineStream
from auricle.runtime.server.wyoming.options import WyomingOptions
from served import Served, serving
from wyoming.asr import Transcript
from wyoming.audio import AudioStart, AudioStop
from wyoming.event import Event
from wyoming.info import Describe, Info
from wyoming.intent import Intent, Recognize
from wyoming.ping import Ping

from . import wyoming_client as wy

COMMAND = "turn on the kitchen dishwasher"


@pytest.fixture(scope="module")
def plain(engine: Engine) -> Iterator[Served]:
    with serving(engine, wyoming=WyomingOptions(0)) as running:
        yield running


@pytest.fixture(scope="module")
def answering(engine: Engine) -> Iterator[Served]:
    with serving(engine, wyoming=WyomingOptions(0, vad=True, answers="handle")) as running:
        yield running


@pytest.fixture(scope="module")
def acting(engine: Engine) -> Iterator[Served]:
    names = ("kettle", "dishwasher", "lamp")
    with serving(engine, wyoming=WyomingOptions(0, answers="intent", names=names)) as running:
        yield running


@pytest.fixture(scope="module")
def sound(clip: Path) -> bytes:
    return wy.pcm(clip)


def told(port: int, *events: Event) -> list[Event]:
    async def main() -> list[Event]:
        async with wy.client(port) as client:
            await wy.send(client, events)
            return await wy.answer(client)

    return wy.run(main())


def heard(port: int, chunks: list[Event], **transcribe: Any) -> list[Event]:
    async def main() -> list[Event]:
        async with wy.client(port) as client:
            return await wy.command(client, chunks, **transcribe)

    return wy.run(main())


def described(port: int) -> Info:
    async def main() -> Info:
        async with wy.client(port) as client:
            await client.write_event(Describe().event())
            event = await client.read_event()
            assert event is not None
            return Info.from_event(event)

    return wy.run(main())


def test_it_says_what_it_is(plain: Served, answering: Served, acting: Served) -> None:
    info = described(plain.wyoming_port)
    [program] = info.asr
    assert (program.name, program.installed, program.supports_transcript_streaming) == ("auricle", True, True)
    assert program.requires_external_vad and not info.handle and not info.intent
    [model] = program.models
    assert model.name == "auricle-demo" and model.languages == ["de", "en", "zh"]
    info = described(answering.wyoming_port)
    assert not info.asr[0].requires_external_vad and info.handle[0].supports_handled_streaming and not info.intent
    info = described(acting.wyoming_port)
    assert [each.name for each in info.intent] == ["auricle-intent"] and not info.handle


def test_a_command_comes_as_it_is_spoken_and_whole(plain: Served, sound: bytes) -> None:
    events = heard(plain.wyoming_port, wy.chunks(sound), language="en-GB")
    kinds = [event.type for event in events]
    assert kinds[0] == "transcript-start" and kinds[-2:] == ["transcript", "transcript-stop"]
    assert set(kinds[1:-2]) == {"transcript-chunk"}
    assert "".join(event.data["text"] for event in events[1:-2]) == wy.transcript(events) == COMMAND
    assert events[-2].data["language"] == "en"


@pytest.mark.parametrize("size", [333, 5, 1 << 19])
def test_a_chunk_may_end_inside_a_sample(plain: Served, sound: bytes, size: int) -> None:
    assert wy.transcript(heard(plain.wyoming_port, wy.chunks(sound, size))) == COMMAND


@pytest.mark.parametrize("width", [1, 3, 4])
def test_a_chunk_says_what_its_samples_are(plain: Served, sound: bytes, width: int) -> None:
    """48 kHz, of two channels one silent, samples torn."""
    samples = np.repeat(np.frombuffer(sound, "<i2").astype(np.int64), 3)
    stereo = np.stack([samples, np.zeros_like(samples)], axis=1)
    scaled = (stereo >> 8) + 128 if width == 1 else stereo << 8 * (width - 2)
    data = scaled.astype("<i8").reshape(-1, 1).view(np.uint8)[:, :width].tobytes()
    chunks = wy.chunks(data, 50_001, 3 * SAMPLE_RATE, width, 2)
    assert wy.transcript(heard(plain.wyoming_port, chunks)) == COMMAND


def test_silence_is_no_words_and_no_error(plain: Served) -> None:
    events = heard(plain.wyoming_port, wy.chunks(bytes(2 * SAMPLE_RATE)))
    assert [event.type for event in events] == ["transcript-start", "transcript", "transcript-stop"]
    assert wy.transcript(events) == "" == wy.transcript(heard(plain.wyoming_port, []))


def test_a_pause_does_not_tear_a_command_that_the_client_ends(
    plain: Served, sound: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    finals: list[float] = []
    monkeypatch.setattr(plain.service.metrics, "answered", finals.append)
    pause = bytes(SAMPLE_RATE * 2)  # a second
    assert wy.transcript(heard(plain.wyoming_port, wy.chunks(sound + pause + sound))).count("kitchen") == 2
    assert len(finals) == 1


def test_nothing_is_left_of_the_command_before(plain: Served, sound: bytes, engine: Engine) -> None:
    async def main() -> list[str]:
        async with wy.client(plain.wyoming_port) as client:
            first = await wy.command(client, wy.chunks(sound + b"\0"), transcript_names=["zorb"], language="zh")
            await wy.send(client, [AudioStart(SAMPLE_RATE, 2, 1).event(), *wy.chunks(sound[: len(sound) // 2])])
            await wy.send(client, [AudioStart(SAMPLE_RATE, 2, 1).event(), *wy.chunks(sound)])  # begins anew
            second = await wy.end(client)
            return [first[0].data["language"], second[0].data["language"], wy.transcript(second)]

    assert wy.run(main()) == ["zh", "en", COMMAND]


def test_one_command_may_follow_the_other_at_once(plain: Served) -> None:
    async def main() -> list[str]:
        async with wy.client(plain.wyoming_port) as client:
            return [wy.transcript(await wy.command(client, wy.chunks(bytes(64)))) for _ in range(20)]

    assert set(wy.run(main())) == {""}


def test_names_are_listened_for(acting: Served, sound: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    streams: list[EngineStream] = []
    new_stream = acting.service.stream

    def stream() -> EngineStream:
        streams.append(new_stream())
        return streams[-1]

    monkeypatch.setattr(acting.service, "stream", stream)
    names = {"transcript_terms": ["fan"], "transcript_names": ["Ann's lamp", "bad | name", "kettle"]}
    assert wy.transcript(heard(acting.wyoming_port, wy.chunks(sound), **names))
    assert streams[0].keywords == ("Ann's lamp", "kettle", "fan", "dishwasher", "lamp")


def test_two_clients_at_once_are_told_what_each_is_told_alone(plain: Served, engine: Engine) -> None:
    sounds = [wy.chunks(wy.pcm(engine.bundle.path(f"clips/{name}.wav"))) for name in ("command", "weather", "shopping")]
    alone = [wy.transcript(heard(plain.wyoming_port, each)) for each in sounds]

    async def one(chunks: list[Event]) -> str:
        async with wy.client(plain.wyoming_port) as client:
            await wy.begin(client)
            for chunk in chunks:
                await client.write_event(chunk)
                await asyncio.sleep(0)
            return wy.transcript(await wy.end(client))

    async def main() -> list[str]:
        return list(await asyncio.gather(*map(one, sounds)))

    assert wy.run(main()) == alone


def test_our_own_voice_detection_answers_early_and_reads_on(answering: Served, sound: bytes) -> None:
    """An older Home Assistant reads nothing before it has sent everything, and must not find the connection closed."""
    pause = bytes(SAMPLE_RATE * 3)

    async def main() -> tuple[list[Event], list[Event], list[Event]]:
        async with wy.client(answering.wyoming_port) as client:
            await wy.begin(client, vad_sensitivity="aggressive")
            await wy.send(client, wy.chunks(sound + pause))
            early = await wy.answer(client)
            await wy.send(client, wy.chunks(sound * 2))
            await wy.send(client, [AudioStop().event(), Ping(text="still there").event()])
            after = [event for event in [await client.read_event()] if event]
            return early, after, await wy.command(client, wy.chunks(sound))

    early, after, second = wy.run(main())
    assert wy.transcript(early) == COMMAND == wy.transcript(second)
    assert [(event.type, event.data) for event in after] == [("pong", {"text": "still there"})]


def test_what_was_spoken_is_answered_from_its_sound(answering: Served, sound: bytes) -> None:
    assert wy.transcript(heard(answering.wyoming_port, wy.chunks(sound))) == COMMAND
    context = {"conversation_id": "1", "device_id": None, "satellite_id": None}
    asked = Transcript(text=COMMAND, language="en", context=context).event()
    events = told(answering.wyoming_port, asked)
    kinds = [event.type for event in events]
    assert (kinds[0], kinds[-2:]) == ("handled-start", ["handled", "handled-stop"])
    pieces = [event.data["text"] for event in events if event.type == "handled-chunk"]
    assert "".join(pieces) == events[-2].data["text"] == "turning on the kitchen dishwasher"
    [again] = told(answering.wyoming_port, asked)  # its sound is forgotten, and this model knows nothing else
    assert again.type == "not-handled" and again.data["text"]
    [intent] = told(answering.wyoming_port, Recognize(text=COMMAND).event())
    assert intent.type == "not-recognized"


def test_what_was_spoken_becomes_an_intent(acting: Served, engine: Engine, sound: bytes) -> None:
    assert wy.transcript(heard(acting.wyoming_port, wy.chunks(sound))) == COMMAND
    [event] = told(acting.wyoming_port, Transcript(text=f" {COMMAND} ").event())
    intent = Intent.from_event(event)
    assert (intent.name, [(each["name"], each["value"]) for each in event.data["entities"]]) == (
        "HassTurnOn",
        [("name", "dishwasher")],
    )
    weather = wy.pcm(engine.bundle.path("clips/weather.wav"))
    said = wy.transcript(heard(acting.wyoming_port, wy.chunks(weather)))
    [event] = told(acting.wyoming_port, Transcript(text=said).event())
    assert event.type == "not-recognized"


def test_without_answers_nothing_is_handled(plain: Served) -> None:
    [event] = told(plain.wyoming_port, Transcript(text="sing a song").event())
    assert event.type == "not-handled"


def test_the_command_serves_both_and_ends_when_told(sound: bytes) -> None:
    command = [sys.executable, "-m", "auricle.runtime", "serve", "--port", "0", "--wyoming", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as job:
        try:
            assert job.stdout is not None and "/v1" in job.stdout.readline()
            line = job.stdout.readline()
            assert line.startswith("Home Assistant is served at host 127.0.0.1, port "), line
            assert "in a browser: http://127.0.0.1:" in job.stdout.readline()
            assert wy.transcript(heard(int(line.rpartition(" ")[2]), wy.chunks(sound))) == COMMAND
            job.terminate()
            assert job.wait(15) in (0, 128 + signal.SIGTERM) and not job.stdout.read()
        finally:
            job.kill()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--wyoming-vad"], "add --wyoming PORT"),
        (["--wyoming", "0", "--wyoming-host", "0.0.0.0"], "--wyoming-no-key"),
        (["--wyoming", "0", "--wyoming-answers", "intent"], "--wyoming-names"),
    ],
)
def test_the_command_refuses_what_makes_no_sense(
    words: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *words]) == 2
    assert problem in capsys.readouterr().err
