"""A microphone with no hardware and no clock but its own: unplugged, stalled and overrun at will."""

from __future__ import annotations

import math

import numpy as np
from auricle.models.audio import SAMPLE_RATE, Waveform
from auricle.models.errors import RunError
from auricle.runtime.sources.microphone import Microphone, MicrophoneOptions
from auricle.runtime.sources.portaudio import FrameCallback, InputDevice
from auricle.runtime.sources.source import Chunk, SourceItem

BLOCK = 4_800
FRAME = 512


class FakeStream:
    """Records until it is unplugged or closed."""

    def __init__(self, on_frames: FrameCallback) -> None:
        self.on_frames = on_frames
        self.playing = True
        self.closed = False

    def alive(self) -> bool:
        return self.playing and not self.closed

    def close(self) -> None:
        self.closed = True


class FakeHost:
    """One device whose sound is a slow sine of the time at which it is heard."""

    def __init__(self, sample_rate: int = SAMPLE_RATE, channels: int = 2) -> None:
        self.device = InputDevice(0, "fake", "tests", channels, sample_rate, default=True)
        self.plugged = True
        self.streams: list[FakeStream] = []
        self.n_scans = 0
        self.now = 0
        """The device's clock, in its samples: what was heard and what was lost."""

    def find(self, wanted: int | str | None) -> InputDevice:
        if not self.plugged:
            raise RunError("there is no microphone")
        return self.device

    def rescan(self) -> None:
        assert all(stream.closed for stream in self.streams)
        self.n_scans += 1

    def open(self, device: InputDevice, on_frames: FrameCallback) -> FakeStream:
        self.streams.append(FakeStream(on_frames))
        return self.streams[-1]

    def clock(self) -> float:
        return self.now / self.device.sample_rate

    def sound(self, seconds: np.ndarray) -> Waveform:
        """What is heard at a time: 3 Hz, half of the seconds loud enough to be speech."""
        loud = np.where(np.floor(seconds) % 2 == 0, 0.4, 0.02)
        return (loud * np.sin(2 * np.pi * 3 * seconds)).astype(np.float32)

    def deliver(self, n: int, overflow: bool = False) -> None:
        """The callback for the next n frames, in which the channels differ and their mean is the sound."""
        rate = self.device.sample_rate
        mono = self.sound((self.now + np.arange(n)) / rate)
        spread = np.linspace(-0.1, 0.1, self.device.channels, dtype=np.float32)
        start, self.now = self.now, self.now + n
        self.streams[-1].on_frames(mono[:, None] + spread, 1000 + start / rate, 1000 + self.now / rate, overflow)

    def lose(self, seconds: float) -> None:
        self.now += round(seconds * self.device.sample_rate)

    def stall(self, seconds: float) -> None:
        """Sound that goes on while nobody reads."""
        for _ in range(math.ceil(seconds * self.device.sample_rate / BLOCK)):
            self.deliver(BLOCK)

    def act(self, action: str, value: float, microphone: SteppedMicrophone) -> None:
        if action == "deliver":
            self.deliver(int(value))
        elif action == "stall":
            self.stall(value)
        elif action in ("overflow", "jump"):
            self.lose(value)
            self.deliver(BLOCK, overflow=action == "overflow")
        elif action.startswith("unplug"):
            if "full" in action:
                self.stall(3.5)
            microphone.lose()
            self.lose(value)
            microphone.find_again()
            self.deliver(BLOCK)

    def check_end(self, n_captured: int, heard: list[tuple[int, Waveform]]) -> None:
        """Every sample lies at its time; each gap may round by a sample, and a filter needs some to settle.

        heard: positions and chunks; an empty one is a gap.
        """
        runs: list[tuple[int, list[Waveform]]] = []
        end = -1
        for start, waveform in heard:
            if start != end or not len(waveform):
                runs.append((start, []))
            runs[-1][1].append(waveform)
            end = start + len(waveform)
        assert abs(n_captured - self.now * SAMPLE_RATE / self.device.sample_rate) <= 2 * len(runs) + 2
        for start, waveforms in runs:
            inner = np.concatenate(waveforms)[200:-200]
            at = (start + 200 + np.arange(len(inner))) / SAMPLE_RATE
            still = np.abs(at - np.round(at)) > 0.05  # not where the loudness jumps
            assert np.abs(inner - self.sound(at))[still].max(initial=0) < 0.02


class SteppedMicrophone(Microphone):
    """Its watching thread does nothing: the test says when the device is lost and looked for."""

    def __init__(self, host: FakeHost, ring_s: float = 60.0) -> None:
        super().__init__(None, MicrophoneOptions(ring_s=ring_s), host, host.clock)

    def _watch(self) -> None:
        pass

    def lose(self) -> None:
        self._shut(final=False)

    def find_again(self) -> None:
        self._reopen()


class Speaker:
    """Somebody who speaks now: every read is a chunk later, whatever the clock says."""

    def __init__(self, audio: Waveform, chunk: int = FRAME, realtime: bool = True) -> None:
        self.realtime = realtime
        self.n_read = 0
        self._audio = audio
        self._chunk = chunk

    def read(self, timeout_s: float) -> list[SourceItem] | None:
        chunk = self._audio[self.n_read : self.n_read + self._chunk]
        at_s = self.n_read / SAMPLE_RATE
        self.n_read += len(chunk)
        return [Chunk(at_s, chunk)] if len(chunk) else None

    def close(self) -> None:
        self.n_read = len(self._audio)


def silence(seconds: float) -> Waveform:
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)
