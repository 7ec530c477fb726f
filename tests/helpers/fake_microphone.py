"""A microphone with no hardware and no clock but its own: unplugged, stalled, muted and overrun at will.

And who listens to it, doing the ledger's sums again from the events.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace

import numpy as np
from auricle.models.audio import SAMPLE_RATE, Waveform
from auricle.models.errors import RunError
from auricle.runtime.events import AudioDropped, DeviceFound, DeviceLost, DeviceMuted
from auricle.runtime.live.gate import Closed, FixedGate, Gate, GateOptions, Opened, SpeechGate
from auricle.runtime.live.segmenter import Segmenter
from auricle.runtime.sources.microphone import Microphone, MicrophoneOptions
from auricle.runtime.sources.portaudio import FrameCallback, InputDevice
from auricle.runtime.sources.source import Chunk, Source, SourceItem
from fake_vad import LoudnessVad

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
        """What was heard and what was lost, in samples of the device."""
        self.device_s = 1000.0
        """What its clock shows at its first sample."""
        self.late_s = 0.0
        """How much later than it should this program gets what it hears."""
        self.refusals: list[Exception] = []
        """What the next attempts to open it raise."""
        self.muted: list[tuple[float, float]] = []
        """From when to when nothing but zeros comes."""

    def find(self, wanted: int | str | None) -> InputDevice:
        if not self.plugged:
            raise RunError("there is no microphone")
        return self.device

    def rescan(self) -> None:
        assert all(stream.closed for stream in self.streams)
        self.n_scans += 1

    def open(self, device: InputDevice, on_frames: FrameCallback) -> FakeStream:
        if self.refusals:
            raise self.refusals.pop()
        self.streams.append(FakeStream(on_frames))
        return self.streams[-1]

    def clock(self) -> float:
        return self.now / self.device.sample_rate + self.late_s

    def sound(self, seconds: np.ndarray) -> Waveform:
        """What is heard at a time: 3 Hz, half of the seconds loud enough to be speech."""
        loud = np.where(np.floor(seconds) % 2 == 0, 0.4, 0.02)
        for start_s, end_s in self.muted:
            loud = np.where((start_s <= seconds) & (seconds < end_s), 0.0, loud)
        return (loud * np.sin(2 * np.pi * 3 * seconds)).astype(np.float32)

    def deliver(self, n: int, overflow: bool = False) -> None:
        """The callback for the next n frames, in which the channels differ and their mean is the sound."""
        mono = self.sound((self.now + np.arange(n)) / self.device.sample_rate)
        spread = np.linspace(-0.1, 0.1, self.device.channels, dtype=np.float32)
        self.give(mono[:, None] + spread, overflow)

    def give(self, frames: np.ndarray, overflow: bool = False) -> None:
        """The callback for these frames."""
        rate = self.device.sample_rate
        start_s = self.device_s + self.now / rate
        self.now += len(frames)
        self.streams[-1].on_frames(frames, start_s, self.device_s + self.now / rate, overflow)

    def lose(self, seconds: float) -> None:
        self.now += round(seconds * self.device.sample_rate)

    def stall(self, seconds: float) -> None:
        """Sound that goes on while nobody reads."""
        for _ in range(math.ceil(seconds * self.device.sample_rate / BLOCK)):
            self.deliver(BLOCK)

    def exchange(self, sample_rate: int) -> None:
        """Another one is the system's choice from here on, or the same at another rate."""
        now_s = self.now / self.device.sample_rate
        self.device = replace(self.device, name=f"fake at {sample_rate} Hz", sample_rate=sample_rate)
        self.now = round(now_s * sample_rate)

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
            for edge_s in np.ravel(self.muted):
                still &= np.abs(at - edge_s) > 0.05
            assert np.abs(inner - self.sound(at))[still].max(initial=0) < 0.02


class SteppedMicrophone(Microphone):
    """Its watching thread does nothing: the test says when the device is lost and looked for."""

    def __init__(self, host: FakeHost, ring_s: float = 60.0) -> None:
        super().__init__(None, MicrophoneOptions(ring_s=ring_s), host, host.clock)

    def _watch(self) -> None:
        pass

    def lose(self) -> None:
        self._shut(final=False)

    def find_again(self) -> bool:
        self._reopen()
        return self._stream is not None


GATES = ("speech", "short segments", "fixed")


def make_gate(name: str) -> Gate:
    if name == "fixed":
        return FixedGate(1.5)
    return SpeechGate(LoudnessVad(), GateOptions(max_segment_s=1.0 if name == "short segments" else 30.0))


class Recorded:
    """A source that remembers what it gave."""

    realtime = False

    def __init__(self, source: Source) -> None:
        self.n_given = 0
        self.n_lost = 0
        self.n_reads = 0
        self.heard: list[tuple[int, Waveform]] = []
        """Positions and chunks; an empty one is a gap."""
        self._source = source

    def read(self, timeout_s: float) -> list[SourceItem] | None:
        self.n_reads += 1
        new = self._source.read(timeout_s)
        for item in new or []:
            before_s = item.seconds_lost if isinstance(item, DeviceFound) else 0.0
            assert round((item.start_s - before_s) * SAMPLE_RATE) == self.n_given
            if isinstance(item, Chunk):
                self.heard.append((self.n_given, item.waveform))
                self.n_given += len(item.waveform)
            elif not isinstance(item, DeviceLost | DeviceMuted):
                self._gap(round((item.seconds if isinstance(item, AudioDropped) else before_s) * SAMPLE_RATE))
        return new

    def close(self) -> None:
        self._source.close()

    def samples(self, start: int, end: int) -> Waveform:
        """As they were given; what was lost is not a number, which equals nothing."""
        found = np.full(end - start, np.nan, np.float32)
        for at, waveform in self.heard:
            first, last = max(at, start), min(at + len(waveform), end)
            if first < last:
                found[first - start : last - start] = waveform[first - at : last - at]
        return found

    def _gap(self, n: int) -> None:
        self.n_given += n
        self.n_lost += n
        self.heard.append((self.n_given, np.zeros(0, np.float32)))


class Listener:
    """Who polls the ear, takes its time over each segment, and does the ledger's sums again from the events."""

    def __init__(self, source: Source, gate: Gate) -> None:
        self.given = Recorded(source)
        self.segmenter = Segmenter(self.given, gate)
        self._gate = gate
        self._open: int | None = None
        self._waiting: deque[Closed] = deque()
        self._last_end = 0
        self._n_decoded = 0
        self._n_passed_over = 0
        self._n_lost = 0

    def poll(self) -> bool:
        """False when the source has ended."""
        events = self.segmenter.poll(0)
        for event in events or []:
            if isinstance(event, Opened):
                assert self._open is None and event.start >= self._last_end
                self._open = event.start
            elif isinstance(event, Closed):
                assert event.start == self._open and event.end > event.start
                self._open, self._last_end = None, event.end
                self._waiting.append(event)
            elif isinstance(event, AudioDropped | DeviceFound):
                assert self._open is None and not self._waiting
                lost_s = event.seconds if isinstance(event, AudioDropped) else event.seconds_lost
                self._n_lost += round(lost_s * SAMPLE_RATE)
        self.check()
        return events is not None

    def done(self, decoded: bool = True) -> None:
        """With the oldest segment, if one waits."""
        if not self._waiting:
            return
        closed = self._waiting.popleft()
        np.testing.assert_array_equal(
            self.segmenter.read(closed.start, closed.end), self.given.samples(closed.start, closed.end), strict=True
        )
        self.segmenter.done(closed, decoded)
        length = closed.end - closed.start
        self._n_decoded, self._n_passed_over = (
            self._n_decoded + length * decoded,
            self._n_passed_over + length * (not decoded),
        )
        self.check()

    def empty(self) -> None:
        """The ring, once no gap waits for a segment any more."""
        n_reads = self.given.n_reads
        while self.given.n_reads == n_reads:
            self.poll()
            self.done()

    def finish(self) -> None:
        """All that is still to come: every sample is decoded, skipped or lost."""
        while self.poll() or self._waiting:
            self.done()
        assert self.segmenter.ledger.pending == 0 and self._open is None
        assert self.segmenter.ledger.captured == self.given.n_given
        assert self.segmenter.ledger.dropped == self.given.n_lost

    def check(self) -> None:
        counts = self.segmenter.ledger.as_dict()
        undecided = counts["captured"] - (self._gate.decided if self._open is None else self._open)
        assert counts["pending"] == undecided + sum(closed.end - closed.start for closed in self._waiting)
        assert counts["captured"] == counts["decoded"] + counts["skipped"] + counts["dropped"] + counts["pending"]
        assert counts["captured"] <= self.given.n_given and min(counts.values()) >= 0
        assert counts["decoded"] == self._n_decoded and counts["skipped"] >= self._n_passed_over
        assert counts["dropped"] == self._n_lost


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
