"""The real PortAudio, through ALSA and PulseAudio, with no hardware: what is played is what is heard."""

from __future__ import annotations

import time
import wave
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from auricle.models.audio import SAMPLE_RATE, Waveform
from auricle.runtime.audio.decode import read_audio
from auricle.runtime.events import AudioDropped, DeviceFound, DeviceLost, DeviceMuted
from auricle.runtime.live.gate import Opened, SpeechGate
from auricle.runtime.live.silero import SileroVad
from auricle.runtime.sources.microphone import Microphone, MicrophoneOptions
from auricle.runtime.sources.portaudio import PortAudio
from auricle.runtime.sources.source import Chunk, SourceItem
from virtual_microphone import VirtualMicrophone, lag, missing, seen

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))
CLIPS = Path(str(resources.files("auricle.models"))) / "demo" / "clips"
PATIENT = MicrophoneOptions(silent_s=8.0, first_sound_s=20.0)  # a busy machine is no unplugged one


@pytest.fixture(scope="module")
def virtual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualMicrophone]:
    microphone = VirtualMicrophone(tmp_path_factory.mktemp("pulse"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        seen(monkeypatch, microphone)
        yield microphone
    microphone.unplug()
    PortAudio().rescan()


def listen(microphone: Microphone, until: Any) -> list[SourceItem]:
    """Read until a predicate over everything heard is true."""
    items: list[SourceItem] = []
    deadline = time.monotonic() + 40
    while not until(items):
        assert time.monotonic() < deadline, [item for item in items if not isinstance(item, Chunk)]
        items += microphone.read(0.1) or []
    return items


def joined(items: list[SourceItem]) -> Waveform:
    return np.concatenate([np.zeros(0, np.float32), *(item.waveform for item in items if isinstance(item, Chunk))])


@pytest.mark.parametrize(("name", "seconds"), [("jfk", 4.0), ("command", 1.8)])
def test_what_is_played_is_heard(
    virtual: VirtualMicrophone, golden: Path, tmp_path: Path, name: str, seconds: float
) -> None:
    """Each stretch of the recording is found in the microphone's sound, all with one and the same delay."""
    clip = read_audio(golden / "jfk.wav" if name == "jfk" else CLIPS / f"{name}.wav", max_seconds=seconds)
    with wave.open(str(tmp_path / "clip.wav"), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        file.writeframes((clip * 32767).astype("<i2").tobytes())
    microphone = Microphone(virtual.name, PATIENT)
    items = listen(microphone, lambda items: len(joined(items)) > 1600)
    with virtual.play(tmp_path / "clip.wav") as player:
        items += listen(microphone, lambda _: player.poll() is not None)
        assert player.returncode == 0
    n_heard = len(joined(items))
    items += listen(microphone, lambda more: n_heard + len(joined(more)) > (seconds + 1) * SAMPLE_RATE)
    microphone.close()
    assert microphone.device.sample_rate != SAMPLE_RATE, "nothing was resampled"
    assert [item for item in items if isinstance(item, AudioDropped | DeviceLost)] == []
    sound = joined(items)
    loud = [at for at in range(0, len(clip) - 8000, 4000) if np.abs(clip[at : at + 8000]).max() > 0.1]
    delay, _ = lag(sound, clip)
    near = 400
    assert len(loud) >= 4 and delay > near
    for at in loud:
        where, fit = lag(sound[at + delay - near :][: 8000 + 2 * near], clip[at : at + 8000])
        assert abs(where - near) <= 2 and fit > 0.9, (at, where - near, fit)
    assert any(isinstance(event, Opened) for event in SpeechGate(SileroVad()).step(sound))


def test_unplugged_and_plugged_in_again(virtual: VirtualMicrophone) -> None:
    microphone = Microphone(virtual.name, MicrophoneOptions(silent_s=8.0, first_sound_s=20.0, retry_s=(0.1, 0.5)))
    items = listen(microphone, lambda items: len(joined(items)) > 1600)
    virtual.unplug()
    items += listen(microphone, lambda items: any(isinstance(item, DeviceLost) for item in items))
    virtual.plug()
    items += listen(microphone, lambda items: len(items) > 1 and isinstance(items[-1], Chunk))
    microphone.close()
    (found,) = (item for item in items if isinstance(item, DeviceFound))
    assert found.name == virtual.name and found.seconds_lost > 0
    at = 0.0
    for item in items:
        at = item.start_s if isinstance(item, DeviceFound) else at
        assert item.start_s == pytest.approx(at)
        at += len(item.waveform) / SAMPLE_RATE if isinstance(item, Chunk) else 0


def test_the_device_is_free_again_each_time(virtual: VirtualMicrophone) -> None:
    for _ in range(5):
        microphone = Microphone(virtual.name, PATIENT)
        microphone.close()
        while microphone.read(0) is not None:
            pass


def test_muted_suspended_and_unloaded(virtual: VirtualMicrophone, golden: Path) -> None:
    options = MicrophoneOptions(silent_s=4.0, first_sound_s=20.0, retry_s=(0.1, 0.5), muted_s=1.0)
    microphone = Microphone(virtual.name, options)
    with virtual.play(golden / "jfk.wav") as player:
        listen(microphone, lambda items: bool(joined(items).any()))
        virtual.pactl("set-source-mute", "air.monitor", "1")
        items = listen(microphone, lambda items: any(isinstance(item, DeviceMuted) for item in items))
        virtual.pactl("set-source-mute", "air.monitor", "0")
        items += listen(microphone, lambda items: bool(joined(items).any()))
        player.kill()
    virtual.pactl("suspend-sink", "air", "1")
    items += listen(microphone, lambda items: any(isinstance(item, DeviceLost) for item in items))
    virtual.pactl("suspend-sink", "air", "0")
    items += listen(microphone, lambda items: any(isinstance(item, DeviceFound) for item in items))
    virtual.pactl("unload-module", "module-null-sink")
    items += listen(microphone, lambda items: any(isinstance(item, DeviceLost) for item in items))
    virtual.pactl("load-module", "module-null-sink", "sink_name=air")
    items += listen(microphone, lambda items: any(isinstance(item, DeviceFound) for item in items))
    microphone.close()
    told = [type(item) for item in items if not isinstance(item, Chunk)]
    assert told == [DeviceMuted, DeviceLost, DeviceFound, DeviceLost, DeviceFound]
