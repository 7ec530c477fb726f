"""Microphone: a device -> chunks with their times, gaps and mutes reported, the device looked for when it is gone.

PortAudio's thread:  device -> callback -> ring of 60 s -----.      the callback only copies
watching thread:     gone? -> close, rescan, open, 0.5 .. 10 s |
reading thread:      read() <- timeline <- resampler <---------'      gaps are found here, from the clock
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...models.audio import Waveform
from ..events import AudioDropped, DeviceFound, DeviceLost, DeviceMuted
from .lateness import Lateness
from .portaudio import FrameCallback, InputDevice, PortAudio
from .ring_buffer import Ring
from .source import SourceItem
from .timeline import Timeline

CHECK_S = 0.1  # how often the device is looked after


@dataclass(frozen=True)
class MicrophoneOptions:
    """Patience with a microphone."""

    ring_s: float = 60.0  # sound that is kept while nobody reads
    first_sound_s: float = 5.0  # until the first sound: a headset may change its mode first
    silent_s: float = 1.0  # without a callback the device is gone
    retry_s: tuple[float, float] = (0.5, 10.0)  # first and longest wait before it is opened again; doubles
    muted_s: float = 10.0  # of nothing but zeros, until that is told


class Stream(Protocol):
    """A device that is recording."""

    def alive(self) -> bool: ...

    def close(self) -> None: ...


class Host(Protocol):
    """Where devices come from: PortAudio, or a fake."""

    def find(self, wanted: int | str | None) -> InputDevice: ...

    def rescan(self) -> None: ...

    def open(self, device: InputDevice, on_frames: FrameCallback) -> Stream: ...


@dataclass(frozen=True)
class _Block:
    """Frames that lie in the ring, and what happened before them."""

    n: int
    device: InputDevice
    device_s: float  # time of the first on the device's clock
    clock_s: float  # and on ours; late when this program was busy
    n_lost: int  # found the ring full
    overflow: bool  # the device itself lost some


@dataclass(frozen=True)
class _Stop:
    """The device is gone, or the microphone was closed."""

    device: InputDevice
    n_lost: int
    final: bool


class Microphone:
    """Records from the moment it is made: what is spoken while a model loads waits in the ring.

    Seconds count from its first sample. A source as timeline.Source says.
    """

    realtime = True

    def __init__(
        self,
        device: int | str | None = None,
        options: MicrophoneOptions | None = None,
        host: Host | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """device: number, name or part of it; None: the system's choice. Raises InputError, RunError."""
        self._options = options or MicrophoneOptions()
        self._host: Host = host or PortAudio()
        self._clock = clock
        self.device = self._host.find(device)
        """What records now, or did last."""
        self._wanted = None if device is None else self.device.label
        self._ring = Ring(round(self._options.ring_s * self.device.sample_rate))
        self._marks: SimpleQueue[_Block | _Stop] = SimpleQueue()
        self._timeline = Timeline()
        self._lateness = Lateness()  # the reader's
        self._zeros_s = 0.0  # the reader's: how long nothing but zeros has come
        self._lost = self._ended = False  # the reader's
        self._closed = threading.Event()
        self._swap = threading.Lock()
        self._stream: Stream | None = None
        self._open(self.device)
        self._watcher = threading.Thread(target=self._watch, name="microphone", daemon=True)
        self._watcher.start()

    def read(self, timeout_s: float) -> list[SourceItem] | None:
        """See timeline.Source."""
        if self._ended:
            return None
        items: list[SourceItem] = []
        deadline = time.monotonic() + timeout_s
        while not items and not self._ended:
            try:
                mark = self._marks.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                return []
            items += self._place(mark)
            while not self._marks.empty() and not self._ended:
                items += self._place(self._marks.get())
        return items or None

    def close(self) -> None:
        """See timeline.Source. Frees the device."""
        self._closed.set()
        self._shut(final=True)
        if threading.current_thread() is not self._watcher:
            self._watcher.join(timeout=2.0)

    # --- the callback's thread

    def _open(self, device: InputDevice) -> None:
        self._n_lost = 0
        self._overflow = False
        self._sound_came = False
        self._newest_s = self._clock()
        token = self._current = object()

        def on_frames(frames: NDArray[np.float32], device_s: float, now_s: float, overflow: bool) -> None:
            if self._current is not token:  # a stream that was given up and still speaks
                return
            self._newest_s = self._clock()
            self._sound_came = True
            if not self._ring.write(frames):
                self._n_lost, self._overflow = self._n_lost + len(frames), self._overflow or overflow
                return
            clock_s = self._newest_s - (now_s - device_s)
            overflow = overflow or self._overflow
            self._marks.put(_Block(len(frames), device, device_s, clock_s, self._n_lost, overflow))
            self._n_lost = 0
            self._overflow = False

        stream = self._host.open(device, on_frames)
        with self._swap:
            self.device = device
            self._stream = stream
        if self._closed.is_set():
            self._shut(final=True)

    # --- the watching thread

    def _watch(self) -> None:
        first_s, longest_s = self._options.retry_s
        wait_s, n_missed = first_s, 0
        while not self._closed.wait(CHECK_S):
            if self._sounds():
                n_missed = 0
                wait_s = first_s if self._sound_came else wait_s
                continue
            n_missed += 1
            if n_missed < 2:  # once may be this program's own pause
                continue
            self._shut(final=False)
            if self._closed.wait(wait_s):
                return
            wait_s = min(2 * wait_s, longest_s)
            self._reopen()

    def _sounds(self) -> bool:
        stream = self._stream
        patience_s = self._options.silent_s if self._sound_came else self._options.first_sound_s
        return stream is not None and stream.alive() and self._clock() - self._newest_s <= patience_s

    def _shut(self, final: bool) -> None:
        """Close the stream, if there is one, and tell the reader."""
        with self._swap:
            stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
        if stream is not None or final:
            self._current = None
            self._marks.put(_Stop(self.device, self._n_lost, final))
            self._n_lost = 0

    def _reopen(self) -> None:
        try:
            self._host.rescan()
            self._open(self._host.find(self._wanted))
        except Exception:  # not back yet, whatever a driver raises: this thread must go on looking
            self._current = None

    # --- the thread that reads

    def _place(self, mark: _Block | _Stop) -> list[SourceItem]:
        """Chunks and gaps in the order of time."""
        rate = mark.device.sample_rate
        full_s = mark.n_lost / rate
        if isinstance(mark, _Stop):
            return self._stop(mark, full_s)
        items = self._gap(mark, full_s)
        samples = self._ring.read(mark.n)
        self._lateness.place(mark.n / rate)
        if not np.isfinite(samples).all():
            return items + self._dropped(mark.n / rate)
        return [*items, *self._timeline.push(samples, rate), *self._zeros(samples, mark.device)]

    def _gap(self, block: _Block, full_s: float) -> list[SourceItem]:
        """What was lost before a block: by the device, then by the ring, which was full for full_s."""
        begun = self._lateness.begun
        self._lateness.place(full_s)
        if self._lost:
            self._lost = False
            lost_s = self._timeline.gap(self._lateness.restart(block.device_s, block.clock_s))
            found = DeviceFound(self._timeline.now_s, block.device.name, lost_s)
            return [found, *self._dropped(full_s)]
        missing_s = self._lateness.missing(block.device_s, block.clock_s, block.overflow)
        return self._dropped(full_s + missing_s, always=block.overflow and begun)

    def _zeros(self, samples: Waveform, device: InputDevice) -> list[SourceItem]:
        """A word on a device that gives nothing but zeros, once until it gives something else."""
        before_s = self._zeros_s
        self._zeros_s = 0.0 if samples.any() else before_s + len(samples) / device.sample_rate
        if not before_s < self._options.muted_s <= self._zeros_s:
            return []
        return [DeviceMuted(self._timeline.now_s, device.name, self._zeros_s)]

    def _dropped(self, seconds: float, always: bool = False) -> list[SourceItem]:
        if not seconds and not always:
            return []
        tail = self._timeline.flush()
        return [*tail, AudioDropped(self._timeline.now_s, self._timeline.gap(seconds))]

    def _stop(self, stop: _Stop, full_s: float) -> list[SourceItem]:
        items = [*self._timeline.flush(), *self._dropped(full_s)]
        self._lateness.place(full_s)
        self._ended = stop.final
        self._zeros_s = 0.0
        if not stop.final and not self._lost:
            self._lost = True
            items.append(DeviceLost(self._timeline.now_s, stop.device.name))
        return items
