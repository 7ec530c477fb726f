"""`auricle serve --source`: what this machine hears, captioned for whoever views it."""

from __future__ import annotations

import json
import signal
import sys
import threading
from pathlib import Path

import pytest
from auricle.models.errors import RunError
from auricle.runtime.__main__ import main
from auricle.runtime.engine import Engine
from auricle.runtime.events import DeviceFound, DeviceLost
from auricle.runtime.server.page.local_source import LocalSource
from auricle.runtime.sources.source import Chunk, SourceItem
from live_client import opened, until
from served import serving
from websockets.sync.client import connect

from ..realtime_client import spoken
from ..test_serve_command import command

SAID = "turn on the kitchen dishwasher"


class Script:
    """A device that gives these items once somebody views them, then fails or waits to be closed."""

    realtime = True

    def __init__(self, items: list[SourceItem], error: RunError | None = None) -> None:
        self.items = items
        self.error = error
        self.viewed = threading.Event()
        self.closed = threading.Event()

    def read(self, timeout_s: float) -> list[SourceItem] | None:
        if not self.viewed.wait(timeout_s):
            return None if self.closed.is_set() else []
        if self.items:
            return [self.items.pop(0)]
        if self.error is not None:
            raise self.error
        return None if self.closed.wait(timeout_s) else []

    def close(self) -> None:
        self.closed.set()


def test_what_is_heard_is_captioned_with_its_gaps_until_the_server_stops(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    first = spoken(engine, "command")
    end_s = len(first) / 16_000
    lost = [DeviceLost(end_s, "A microphone"), DeviceFound(end_s + 2, "A microphone", 2.0)]
    script = Script([Chunk(0.0, first), *lost, Chunk(end_s + 2, spoken(engine, "weather", pause_s=0.0))])
    with serving(engine, local=LocalSource.of(engine, script, "asr")) as running:
        with opened(running, "/live/view?session=source") as viewer:
            script.viewed.set()
            events = until(viewer, "final")
            events += until(viewer, "lost")
            while script.items:
                events += until(viewer, "caption")
            running.server.should_exit = True
            events += until(viewer, "ended")
        assert script.closed.is_set()
    assert [event["text"] for event in events if event["type"] == "final"] == [
        SAID,
        "what is the weather in dublin tonight",
    ]
    ended = events[-1]
    assert ended["dropped_s"] == 2.0
    parts = ended["decoded_s"] + ended["skipped_s"] + ended["dropped_s"]
    assert ended["captured_s"] == pytest.approx(parts, abs=0.01)
    assert [record.getMessage() for record in caplog.records if "A microphone" in record.getMessage()]


def test_a_source_that_fails_says_its_last_words_and_the_server_goes_on(engine: Engine) -> None:
    chunk = Chunk(0.0, spoken(engine, "command", pause_s=0.0))
    script = Script([chunk], RunError("the device went up in smoke: buy another"))
    with serving(engine, local=LocalSource.of(engine, script, "asr")) as running:
        with opened(running, "/live/view") as viewer:
            script.viewed.set()
            events = until(viewer, "error")
        assert [event["text"] for event in events if event["type"] == "final"] == [SAID]
        assert "buy another" in events[-1]["error"]["message"]
        with connect(f"ws://127.0.0.1:{running.port}/live") as another:
            another.send(json.dumps({"type": "start", "sample_rate": 16_000}))
            assert json.loads(another.recv(20))["type"] == "started"


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM")
def test_a_recording_from_the_command_line(clip: Path) -> None:
    with command("--source", str(clip), "--source-prompt", "asr") as (process, url):
        with connect(f"{url.replace('http', 'ws').removesuffix('/v1')}/live/view?session=source") as viewer:
            texts = [event["text"] for event in until(viewer, "final") if event["type"] == "final"]
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
    assert texts == [SAID] and process.returncode == 0 and errors == ""
    assert lines[1].endswith("/?overlay&session=source\n")


def test_what_it_refuses(capsys: pytest.CaptureFixture[str], clip: Path) -> None:
    for words, sentence in (
        (["--source", "nowhere.wav"], "nowhere.wav"),
        (["--source", str(clip), "--source-prompt", "slot_filling"], "slot_filling"),
        (["--source", "system", "--source-device", "2"], "--device is for a microphone"),
        (["--source-prompt", "asr"], "add --source"),
    ):
        assert main(["serve", "--port", "0", *words]) == 2
        assert sentence in capsys.readouterr().err
