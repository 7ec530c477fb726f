"""Microphones without hardware: what is lost is reported in its place, and a device that comes back is heard again."""

from __future__ import annotations

import sys
import threading
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from auricle.models.audio import SAMPLE_RATE
from auricle.models.errors import InputError, RunError
from auricle.runtime.events import AudioDropped, DeviceFound, DeviceLost
from auricle.runtime.sources import microphone as module
from auricle.runtime.sources.microphone import Microphone, MicrophoneOptions
from auricle.runtime.sources.portaudio import InputDevice, PortAudio, choose_device, list_devices
from auricle.runtime.sources.ring_buffer import Ring
from auricle.runtime.sources.source import Chunk, SourceItem
from fake_microphone import BLOCK, FakeHost, FakeStream, SteppedMicrophone


def read_all(microphone: Microphone) -> list[SourceItem]:
    items: list[SourceItem] = []
    while new := microphone.read(0):
        items += new
    return items


def n_samples(items: list[SourceItem]) -> int:
    return sum(len(item.waveform) for item in items if isinstance(item, Chunk))


def reports(items: list[SourceItem]) -> list[SourceItem]:
    return [item for item in items if not isinstance(item, Chunk)]


def test_the_ring_gives_back_what_was_put_in() -> None:
    ring = Ring(1000)
    n = read = 0
    for size in np.random.default_rng(0).integers(1, 400, 200):
        frames = np.arange(n, n + size, dtype=np.float32)
        if ring.write(np.stack([frames - 1, frames + 1], axis=1)):
            n += size
        if size % 2:
            take = (n - read) * 2 // 3
            np.testing.assert_array_equal(ring.read(take), np.arange(read, read + take))
            read += take
    assert n > 5000
    assert not ring.write(np.zeros((1001, 1), np.float32))


def test_what_is_said_while_a_model_loads_is_kept() -> None:
    host = FakeHost(48_000)
    microphone = SteppedMicrophone(host)
    host.stall(20)
    items = read_all(microphone)
    host.deliver(480)
    microphone.close()
    items += read_all(microphone)
    assert items[0].start_s == 0 and reports(items) == []
    assert n_samples(items) == round(host.now / 3)
    assert microphone.read(0) is None and host.streams[0].closed


def test_a_reader_that_stalls_learns_what_it_missed() -> None:
    host = FakeHost()
    microphone = SteppedMicrophone(host, ring_s=3)
    host.stall(4.5)
    assert n_samples(read_all(microphone)) == 3 * SAMPLE_RATE
    host.deliver(BLOCK)
    gap, chunk = read_all(microphone)
    assert gap == AudioDropped(3.0, 1.5)
    assert isinstance(chunk, Chunk) and chunk.start_s == 4.5


def test_what_the_ring_lost_last_is_reported_at_the_end() -> None:
    host = FakeHost()
    microphone = SteppedMicrophone(host, ring_s=3)
    host.stall(4.5)
    microphone.close()
    assert reports(read_all(microphone)) == [AudioDropped(3.0, 1.5)]


def test_an_overrun_of_the_device_is_a_gap_of_what_its_clock_says() -> None:
    host = FakeHost()
    microphone = SteppedMicrophone(host)
    host.deliver(1600, overflow=True)  # before the first sample there was nothing to lose
    host.lose(0.1)
    host.deliver(1600, overflow=True)
    host.deliver(1600, overflow=True)  # the device does not know how much
    host.lose(0.1)
    host.deliver(1600)  # too little to be told from a late callback
    host.lose(0.5)
    host.deliver(1600)  # PortAudio said nothing, its clock did
    items = read_all(microphone)
    assert reports(items) == [
        AudioDropped(0.1, 0.1),
        AudioDropped(0.3, 0.0),
        AudioDropped(0.5, 0.5),
    ]
    assert n_samples(items) == 5 * 1600


def test_a_clock_that_is_set_is_no_gap() -> None:
    """The device's time is the system's on some hosts: a jump that our own clock does not see is none."""
    host = FakeHost()
    microphone = SteppedMicrophone(host)
    host.deliver(1600)
    frames = np.zeros((1600, 2), np.float32)
    host.now += 1600
    host.streams[0].on_frames(frames, 9_000_000.0, 9_000_000.1, False)
    host.now += 1600
    host.streams[0].on_frames(frames, 9_000_000.1, 9_000_000.2, False)
    assert reports(read_all(microphone)) == []


def test_a_late_program_is_no_gap() -> None:
    host = FakeHost()
    microphone = SteppedMicrophone(host)
    host.deliver(1600)
    frames = np.zeros((1600, 2), np.float32)
    host.now += 3 * SAMPLE_RATE  # this thread slept; the device did not lose anything
    host.streams[0].on_frames(frames, 1000.1, 1000.2, False)
    assert reports(read_all(microphone)) == []


def test_unplugged_and_back() -> None:
    host = FakeHost(48_000)
    microphone = SteppedMicrophone(host)
    host.deliver(4800)
    microphone.lose()
    microphone.lose()
    host.plugged = False
    microphone.find_again()
    lost = read_all(microphone)
    assert reports(lost) == [DeviceLost(0.1, "fake")] and n_samples(lost) == 1600
    host.plugged = True
    host.device = InputDevice(3, "fake", "tests", 1, 44_100, default=True)  # it may come back as another one
    host.now = 44_100 * 5
    microphone.find_again()
    host.deliver(4410)
    microphone.close()
    found, *items = read_all(microphone)
    assert isinstance(found, DeviceFound)
    assert (found.start_s, found.seconds_lost) == (pytest.approx(5.0, abs=1e-3), pytest.approx(4.9, abs=1e-3))
    assert n_samples(items) == 1600 and host.n_scans == 2
    assert isinstance(items[0], Chunk) and items[0].start_s == found.start_s


def test_a_stream_that_was_given_up_is_not_heard() -> None:
    host = FakeHost()
    microphone = SteppedMicrophone(host)
    microphone.lose()
    microphone.find_again()
    host.streams[0].on_frames(np.ones((160, 2), np.float32), 1000.0, 1000.1, False)
    host.deliver(160)
    assert n_samples(read_all(microphone)) == 160


class LiveHost(FakeHost):
    """Plays by the wall clock until it is unplugged, or frozen: then it looks alive and gives nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = False
        self.opened_s: list[float] = []

    def open(self, device: InputDevice, on_frames: Any) -> FakeStream:
        self.opened_s.append(time.monotonic())
        self.frozen = False
        stream = super().open(device, on_frames)
        threading.Thread(target=self._play, args=[stream], daemon=True).start()
        return stream

    def clock(self) -> float:
        return time.monotonic()

    def _play(self, stream: FakeStream) -> None:
        while stream.alive() and self.plugged:
            if not self.frozen:
                now = time.monotonic()
                stream.on_frames(np.zeros((160, 2), np.float32), now - 0.01, now, False)
            time.sleep(0.01)
        stream.playing = False


def wait_for(microphone: Microphone, kind: type[Any]) -> Any:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for item in microphone.read(0.05) or []:
            if isinstance(item, kind):
                return item
    raise AssertionError(f"no {kind.__name__}")


@pytest.mark.parametrize("how", ["unplugged", "frozen"])
def test_the_device_is_looked_after(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(module, "CHECK_S", 0.02)
    host = LiveHost()
    options = MicrophoneOptions(silent_s=0.5, retry_s=(0.05, 0.2))
    microphone = Microphone("fake", options, host, host.clock)
    wait_for(microphone, Chunk)
    host.plugged, host.frozen = how != "unplugged", True
    assert wait_for(microphone, DeviceLost).name == "fake"
    host.plugged = True
    found = wait_for(microphone, DeviceFound)
    assert 0 < found.seconds_lost < 20
    wait_for(microphone, Chunk)
    microphone.close()
    assert all(stream.closed for stream in host.streams)


def test_looking_for_a_device_backs_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECK_S", 0.001)
    host = FakeHost()
    waits: list[float] = []

    class Patient(Microphone):
        def _watch(self) -> None:
            pass

    microphone = Patient(None, MicrophoneOptions(), host, host.clock)

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        return len(waits) > 100

    host.plugged = False
    host.streams[0].playing = False
    monkeypatch.setattr(microphone._closed, "wait", wait)
    Microphone._watch(microphone)
    assert [wait for wait in waits if wait > 0.001][:7] == [0.5, 1, 2, 4, 8, 10, 10]


def test_closing_from_another_thread_ends_a_read() -> None:
    host = FakeHost()
    microphone = Microphone(None, None, host, host.clock)
    host.deliver(800)
    threading.Timer(0.1, microphone.close).start()
    start = time.monotonic()
    items = microphone.read(60)
    assert items and n_samples(items) == 800
    assert microphone.read(60) is None and microphone.read(60) is None
    microphone.close()
    assert time.monotonic() - start < 20
    assert host.streams[0].closed and not microphone._watcher.is_alive()


def device(number: int, name: str, host: str = "ALSA", default: bool = False) -> InputDevice:
    return InputDevice(number, name, host, 2, 48_000, default)


DEVICES = [
    device(0, "HDA Intel PCH: ALC257 Analog (hw:0,0)"),
    device(2, "USB Audio Device: - (hw:1,0)"),
    device(3, "USB"),
    device(5, "default", default=True),
    device(7, "Headset", "MME"),
    device(8, "Headset", "ALSA"),
]


@pytest.mark.parametrize(
    ("wanted", "number"),
    [(None, 5), (2, 2), ("2", 2), ("alc257", 0), ("usb audio", 2), ("usb", 3), ("Headset, MME", 7), ("headset", 8)],
)
def test_devices_by_number_and_name(wanted: int | str | None, number: int) -> None:
    assert choose_device(DEVICES, wanted).number == number


def test_devices_that_cannot_be_chosen() -> None:
    with pytest.raises(InputError, match=r"microphone 'nothing' is not there: choose one of 0 HDA Intel.*; 8 Headset"):
        choose_device(DEVICES, "nothing")
    with pytest.raises(InputError, match="microphone 1 is not there"):
        choose_device(DEVICES, 1)
    with pytest.raises(InputError, match=r"'hw:' is not one but 2: choose one by its number: 0 HDA.*; 2 USB"):
        choose_device(DEVICES, "hw:")
    with pytest.raises(RunError, match="there is no microphone: plug one in"):
        choose_device([], None)
    assert choose_device(DEVICES[:2], None).number == 0


class PortAudioError(Exception):
    pass


def fake_sounddevice(**changed: Any) -> SimpleNamespace:
    """As much of sounddevice as is used: a machine with one output and one microphone of 8 channels."""
    devices = [
        {"index": 0, "name": "Speaker", "hostapi": 0, "max_input_channels": 0, "default_samplerate": 48_000.0},
        {"index": 1, "name": "Array", "hostapi": 0, "max_input_channels": 8, "default_samplerate": 96_000.0},
    ]

    def query(device: None = None, kind: str | None = None) -> Any:
        return devices if kind is None else devices[1]

    given: dict[str, Any] = {
        "PortAudioError": PortAudioError,
        "query_hostapis": lambda: [{"name": "ALSA"}],
        "query_devices": query,
    }
    return SimpleNamespace(**given | changed)


def test_the_system_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice())
    assert list_devices() == [InputDevice(1, "Array", "ALSA", 8, 96_000, default=True)]


def test_opening_takes_the_devices_rate_and_at_most_two_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: dict[str, Any] = {}

    class Stream:
        active = True

        def __init__(self, **given: Any) -> None:
            opened.update(given)

        def start(self) -> None:
            moment = SimpleNamespace(inputBufferAdcTime=0.0, currentTime=7.0)
            opened["callback"](np.zeros((48, 2), np.float32), 48, moment, SimpleNamespace(input_overflow=1))

        def close(self) -> None:
            raise PortAudioError("the device is gone")

    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice(InputStream=Stream))
    items: list[Any] = []
    host = PortAudio()
    stream = host.open(host.find("array"), lambda *given: items.append(given))
    assert (opened["device"], opened["samplerate"], opened["channels"]) == (1, 96_000, 2)
    assert items[0][1:] == (7.0, 7.0, True) and stream.alive()
    stream.close()


def refuse(*_: Any, **__: Any) -> None:
    raise PortAudioError("Device unavailable", -9985)


def test_a_device_that_cannot_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice(InputStream=refuse))
    with pytest.raises(RunError, match=r"microphone Array, ALSA cannot be opened \(Device unavailable\): close what"):
        Microphone()
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice(query_hostapis=refuse))
    with pytest.raises(RunError, match=r"PortAudio cannot list devices \(Device unavailable\)"):
        list_devices()
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(RunError, match="sounddevice is not installed"):
        Microphone()
