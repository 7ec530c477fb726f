"""The page in real browsers, with a clip as their microphone; `make browsers` brings them, or says what is missing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from auricle.models.audio import SAMPLE_RATE, Waveform
from auricle.runtime.audio.decode import read_audio
from auricle.runtime.engine import Engine
from auricle.runtime.server.live_session import LiveSession
from auricle.runtime.server.options import ServerOptions
from served import Served, serving, write_wav
from virtual_microphone import VirtualMicrophone, missing

SAID = "turn on the kitchen dishwasher"
PACKAGES = os.environ.get("AURICLE_BROWSERS", "")
CHROMIUM = shutil.which("chromium")
FIREFOX = shutil.which("firefox-esr")
DRIVER = Path(__file__).with_name("browser.mjs")

pytestmark = pytest.mark.skipif(not PACKAGES, reason="run by make browsers")
in_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
in_firefox = pytest.mark.skipif(FIREFOX is None, reason="firefox-esr is not installed")


def drive(scenario: str, url: str, problems: Sequence[str] = (), **given: Any) -> dict[str, Any]:
    """What the browser saw; nothing but this may have gone wrong in it, nor anything foreign been asked for."""
    options = json.dumps({"url": f"{url}/", "chromium": CHROMIUM, "firefox": FIREFOX, **given})
    command = ["node", str(DRIVER), scenario, options]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    seen = json.loads(run.stdout.splitlines()[-1])
    assert seen.pop("violations", []) == []
    assert seen.pop("problems") == [*problems]
    return seen


@pytest.fixture(scope="module")
def microphone(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of silence, the command, and 2 s in which it is complete."""
    silence = np.zeros(SAMPLE_RATE, np.float32)
    clip = read_audio(engine.bundle.path("clips/command.wav"))
    return write_wav(tmp_path_factory.mktemp("mic") / "mic.wav", np.concatenate([silence, clip, silence, silence]))


@pytest.fixture
def arrived(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Waveform]:
    """The sound that came to live sessions since the test began."""
    chunks: list[Waveform] = []
    push = LiveSession.push

    def recorded(session: LiveSession, waveform: Waveform) -> None:
        chunks.append(waveform)
        push(session, waveform)

    monkeypatch.setattr(LiveSession, "push", recorded)
    return lambda: np.concatenate(chunks)


def agreement(heard: Waveform, clip: Waveform) -> list[float]:
    """The correlation of each half second that is no silence with the clip where it fits best, within 50 ms."""
    size = 1 << (len(heard) + len(clip)).bit_length()
    spectrum = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(clip, size))
    lag = int(np.argmax(np.fft.irfft(spectrum, size)))
    lag -= size if lag > size // 2 else 0
    window = SAMPLE_RATE // 2
    found: list[float] = []
    for at in range(0, len(clip) - window, window):
        part = clip[at : at + window]
        if np.sqrt(np.mean(part**2)) < 0.01:
            continue
        starts = range(max(0, at + lag - 800), min(len(heard) - window, at + lag + 800), 2)
        found.append(max(float(np.corrcoef(part, heard[start : start + window])[0, 1]) for start in starts))
    return found


@in_chromium
@pytest.mark.parametrize("device_rate", [False, True])
def test_the_microphones_sound_arrives_and_its_words_are_shown(
    served: Served, microphone: Path, arrived: Callable[[], Waveform], device_rate: bool
) -> None:
    seen = drive("live", served.url, clip=str(microphone), listen_ms=500, device_rate=device_rate)
    assert seen["lines"] == [SAID] and seen["band"] == SAID
    assert (seen["pressed"], seen["hidden"], seen["lost"]) == ("false", "true", "0 s")
    assert seen["delay"].endswith(" s") and seen["level"] < 0
    found = agreement(arrived(), read_audio(microphone))
    assert len(found) >= 3 and min(found) > 0.95


@in_chromium
def test_an_overlay_shows_what_the_page_hears_on_nothing(served: Served, microphone: Path) -> None:
    seen = drive("overlay", served.url, clip=str(microphone))
    assert seen["lines"] == [SAID] and seen["band"] == SAID
    assert seen["background"] == "rgba(0, 0, 0, 0)" * 2


@in_chromium
def test_sound_that_a_slow_connection_does_not_take_is_counted(served: Served, microphone: Path) -> None:
    seen = drive("slow", served.url, clip=str(microphone))
    assert 0.5 < float(seen["lost"].removesuffix(" s")) < 5


@in_chromium
def test_an_insecure_origin_says_why_and_what_to_do(engine: Engine) -> None:
    with serving(engine, ServerOptions(port=0, origins=("http://auricle.test",))) as running:
        seen = drive("insecure", f"http://auricle.test:{running.port}")
        assert not seen["secure"] and seen["shown"] and seen["disabled"]
        for part in (f"auricle.test:{running.port}", f"http://127.0.0.1:{running.port}/", "--tls-cert"):
            assert part in seen["notice"]


@in_chromium
def test_a_file_becomes_text_and_subtitles(served: Served, long_clip: Path) -> None:
    seen = drive("file", served.url, file=str(long_clip))
    assert seen["text"].startswith(SAID)
    assert seen["srt"].startswith("1\n00:00:01,500 --> 00:00:03,000\na < b\n\n2\n01:00:00,000 --> ")
    assert max(map(len, seen["srt"].splitlines())) <= 42 and "01:00:04,000" in seen["srt"]
    assert seen["vtt"] == "WEBVTT\n\n00:00:01.500 --> 00:00:03.000\na &lt; b\n\n"


@in_chromium
def test_several_questions_about_one_sound(served: Served, clip: Path) -> None:
    seen = drive("ask", served.url, file=str(clip), questions=["asr", "Please describe the audio."])
    assert seen["answers"][0] == SAID and len(seen["answers"]) == 2 and seen["answers"][1]


@in_chromium
def test_the_key_is_asked_for_and_leaves_the_address(engine: Engine, microphone: Path) -> None:
    with serving(engine, ServerOptions(port=0, key="s3cret")) as running:
        refused = "Failed to load resource: the server responded with a status of 401 (Unauthorized)"
        seen = drive("key", running.url, [refused] * 2, clip=str(microphone), key="s3cret")
    assert seen["lines"] == [SAID] and "s3cret" not in seen["address"]


@in_chromium
def test_both_colour_schemes_and_a_phone(served: Served) -> None:
    seen = drive("looks", served.url)
    assert seen["after"] == ["file-tab", False]
    assert seen["markup"] == [0, "<b>bold</b>00:00<b>bold</b>"]


@in_firefox
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_firefox_hears_the_words_too(served: Served, microphone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a microphone that PulseAudio plays, again and again, until the browser has understood it once."""
    with tempfile.TemporaryDirectory(prefix="air") as folder, ThreadPoolExecutor(1) as threads:
        air = VirtualMicrophone(Path(folder))
        for name, value in air.environment.items():
            monkeypatch.setenv(name, value)
        try:
            seeing = threads.submit(drive, "firefox", served.url, words=SAID)
            while not seeing.done():
                air.play(microphone).wait()
            seeing.result()
        finally:
            air.unplug()
