"""What this computer plays: through a real PulseAudio, followed from output to output, and what is said without one."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from auricle.models.audio import SAMPLE_RATE
from auricle.models.errors import RunError
from auricle.runtime.audio.decode import read_audio
from auricle.runtime.events import AudioDropped, DeviceFound, DeviceLost
from auricle.runtime.sources import system_sound
from auricle.runtime.sources.portaudio import InputDevice
from auricle.runtime.sources.source import Chunk, SourceItem
from auricle.runtime.sources.system_sound import PulseMonitor, SystemSound, choose_loopback
from virtual_microphone import VirtualMicrophone, lag, missing

real = pytest.mark.skipif(missing() is not None, reason=str(missing()))


def plays(folder: Path, monkeypatch: pytest.MonkeyPatch, **programs: str) -> None:
    """These programs, written in sh, are all there are."""
    for name, script in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


INFO = 'if [ "$1" = info ]; then echo "Server Name: s"; echo "Default Sink: {}"; else echo "0 air.monitor module"; fi'


@pytest.mark.skipif(sys.platform == "win32", reason="programs are written in sh")
def test_what_is_missing_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plays(tmp_path, monkeypatch)
    with pytest.raises(RunError, match=r"pactl is not installed.*: apt-get install pulseaudio-utils$"):
        PulseMonitor().find(None)
    plays(tmp_path, monkeypatch, pactl="echo 'Connection failure: Connection refused' >&2; exit 1")
    with pytest.raises(
        RunError, match=r"answers \(Connection failure, Connection refused\): start one with `systemctl"
    ):
        PulseMonitor().find(None)
    plays(tmp_path, monkeypatch, pactl=INFO.format(""))
    with pytest.raises(RunError, match="the sound server has no output"):
        PulseMonitor().find(None)
    plays(tmp_path, monkeypatch, pactl=INFO.format("hdmi"))
    with pytest.raises(RunError, match="output hdmi has no monitor"):
        PulseMonitor().find(None)
    plays(tmp_path, monkeypatch, pactl=INFO.format("air"))
    assert PulseMonitor().find(None).name == "air"
    with pytest.raises(RunError, match="parec is not installed"):
        PulseMonitor().open(PulseMonitor().find(None), lambda *_: None)
    monkeypatch.setattr(system_sound, "PATIENCE_S", 0.2)
    plays(tmp_path, monkeypatch, pactl="exec /bin/sleep 60")
    with pytest.raises(RunError, match="has not answered"):
        PulseMonitor().find(None)


def device(number: int, name: str) -> InputDevice:
    return InputDevice(number, name, "Windows WASAPI", 2, 48_000, default=False)


@pytest.mark.parametrize(
    ("names", "output", "number"),
    [
        (["Mic", "Headset [Loopback]", "Speakers (Realtek) [Loopback]"], "Speakers (Realtek)", 2),
        (["Mic", "Headset [Loopback]", "Speakers (Realtek) [Loopback]"], "", 1),
        (["Mic", "BlackHole 2ch"], "", 1),
    ],
)
def test_which_device_gives_back_what_is_played(names: list[str], output: str, number: int) -> None:
    """Windows and macOS, by names that others have reported: not tried on either."""
    assert choose_loopback([device(i, name) for i, name in enumerate(names)], output).number == number


@pytest.mark.parametrize(("platform", "remedy"), [("darwin", "install BlackHole"), ("win32", "turn on Stereo Mix")])
def test_no_device_gives_it_back(monkeypatch: pytest.MonkeyPatch, platform: str, remedy: str) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    with pytest.raises(RunError, match=f"no recording device gives back what this computer plays: {remedy}"):
        choose_loopback([device(0, "Mic")], "")


@pytest.fixture
def air(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[VirtualMicrophone]:
    """A sound server whose only output is played into nothing."""
    virtual = VirtualMicrophone(tmp_path)
    for name, value in virtual.environment.items():
        monkeypatch.setenv(name, value)
    yield virtual
    virtual.unplug()


def listen(source: SystemSound, until: Callable[[list[SourceItem]], bool]) -> list[SourceItem]:
    """Read until this is true of what came."""
    items: list[SourceItem] = []
    deadline = time.monotonic() + 60
    while not until(items):
        assert time.monotonic() < deadline, [item for item in items if not isinstance(item, Chunk)]
        items += source.read(0.1) or []
    return items


def loud(items: list[SourceItem]) -> bool:
    return any(np.abs(item.waveform).max() > 0.1 for item in items if isinstance(item, Chunk))


def has(kind: type[SourceItem]) -> Callable[[list[SourceItem]], bool]:
    return lambda items: any(isinstance(item, kind) for item in items)


@real
def test_what_is_played_is_heard(air: VirtualMicrophone, golden: Path) -> None:
    clip = read_audio(golden / "jfk.wav")
    source = SystemSound()
    with air.play(golden / "jfk.wav") as player:
        items = listen(source, lambda _: player.poll() is not None)
    items += listen(source, lambda items: len(items) > 20)
    source.close()
    while (rest := source.read(0)) is not None:
        items += rest
    assert not any(isinstance(item, AudioDropped | DeviceLost) for item in items)
    sound = np.concatenate([item.waveform for item in items if isinstance(item, Chunk)])
    places = [lag(sound, clip[at : at + SAMPLE_RATE]) for at in range(0, len(clip) - SAMPLE_RATE, SAMPLE_RATE)]
    delays = [where - i * SAMPLE_RATE for i, (where, fit) in enumerate(places) if fit > 0.9]
    assert len(delays) > 5 and max(delays) - min(delays) < SAMPLE_RATE / 2, places


@real
def test_the_default_output_is_followed(air: VirtualMicrophone, golden: Path) -> None:
    air.pactl("load-module", "module-null-sink", "sink_name=hall")
    air.pactl("set-default-sink", "air")
    source = SystemSound()
    assert source.device.name == "air"
    air.pactl("set-default-sink", "hall")
    items = listen(source, has(DeviceFound))
    with air.play(golden / "jfk.wav") as player:
        quiet = listen(source, lambda items: sum(len(i.waveform) for i in items if isinstance(i, Chunk)) > SAMPLE_RATE)
        player.kill()
    with air.play(golden / "jfk.wav", "hall") as player:
        assert not loud(quiet) and loud(listen(source, loud))
        player.kill()
    air.unplug()
    items += listen(source, has(DeviceLost))
    air.plug()
    items += listen(source, has(DeviceFound))
    source.close()
    told = [item for item in items if isinstance(item, DeviceLost | DeviceFound)]
    assert [item.name for item in told] == ["air", "hall", "hall", "air"]
