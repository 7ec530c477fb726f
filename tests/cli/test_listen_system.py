"""`auricle listen --source system`: what a sound server plays comes out as words; what is refused, and how."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from auricle.models.bundle import shipped_bundle
from auricle.runtime.__main__ import main
from auricle.runtime.cli import doctor
from virtual_microphone import VirtualMicrophone, missing

CLIP = shipped_bundle() / "clips" / "shopping.wav"


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_what_is_played_comes_out_as_words(tmp_path: Path) -> None:
    air = VirtualMicrophone(tmp_path)
    words = ["listen", "--source", "system", "--json"]
    job = subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-m", "auricle", *words],
        env=os.environ | air.environment,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # in a shell's background it is ignored
    )
    late = threading.Timer(120, job.send_signal, [signal.SIGABRT])  # which tells where it stands
    late.start()
    try:
        air.wait_for_listener()
        assert air.play(CLIP).wait() == 0
        assert job.stdout is not None
        final = next(event for event in map(json.loads, job.stdout) if event["event"] == "Final")
        job.send_signal(signal.SIGINT)
        rest = [json.loads(line) for line in job.stdout]
        assert job.wait() == 0
    finally:
        late.cancel()
        job.kill()
        job.communicate()
        air.unplug()
    assert final["text"] == "add ten potatoes to my shopping list"
    balance = rest[-1]
    assert balance["event"] == "SessionEnded"
    assert balance["captured_s"] == pytest.approx(
        balance["decoded_s"] + balance["skipped_s"] + balance["dropped_s"], abs=1e-3
    )
    assert not any(event["event"] in ("DeviceLost", "DeviceMuted") for event in rest)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--source system --device 1", "--device is for a microphone, but sound comes from what this computer plays"),
        ("clip.wav --source system", "--source is for a microphone, but sound comes from a sound file: leave it out"),
    ],
)
def test_what_is_refused(capsys: pytest.CaptureFixture[str], words: str, sentence: str) -> None:
    assert main(["listen", *words.split()]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PulseAudio is for Linux")
def test_without_a_sound_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["listen", "--source", "system"]) == 1
    assert capsys.readouterr().err.endswith(": apt-get install pulseaudio-utils\n")
    found = doctor._system_sound()  # pyright: ignore[reportPrivateUsage]
    assert (found.status, found.remedy) == ("warning", "apt-get install pulseaudio-utils")
    assert found.text == "pactl is not installed, which records what this computer plays"
