"""Playback: a file, or raw PCM from a pipe -> chunks with their times, float32 mono 16 kHz, in real time or at once."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from io import UnsupportedOperation
from queue import Empty, Full, Queue
from typing import BinaryIO, Literal

import numpy as np

from ...models.audio import SAMPLE_RATE, Waveform
from ...models.errors import AudioError, InputError, RunError
from ..audio.container import MAX_CHANNELS, MAX_RATE, MIN_RATE
from ..audio.decode import MAX_GAIN, open_audio
from ..audio.signature import bytes_to_tell, container_name
from ..events import AudioDropped
from .source import Chunk, Source, SourceItem
from .timeline import Timeline

__all__ = ["FilePlayback", "Pace", "RawInput", "SampleFormat", "Source"]

MICROPHONE_CHUNK = 512
RAW_BLOCKS = 600  # of 0.1 s at most: a minute

Pace = Literal["realtime", "fast"]
SampleFormat = Literal["s16le", "f32le"]

_FORMATS = {"s16le": ("<i2", 2.0**15), "f32le": ("<f4", 1.0)}


class FilePlayback:
    """A file or a waveform in chunks, as a microphone would deliver it or as fast as it is read."""

    def __init__(
        self,
        sound: str | os.PathLike[str] | Waveform,
        pace: Pace = "realtime",
        chunk_samples: int | None = None,
    ) -> None:
        """realtime: the first read starts the clock, and a chunk comes when its last sample was spoken.
        fast: each read gives one chunk. AudioError as open_audio, here and while reading. chunk_samples: None is 32 ms
        in real time, as from a microphone, and 0.1 s else.
        """
        self.realtime = pace == "realtime"
        if chunk_samples is None:
            chunk_samples = MICROPHONE_CHUNK if self.realtime else SAMPLE_RATE // 10
        if chunk_samples < 1:
            raise ValueError(f"chunk_samples is {chunk_samples}: a chunk has at least one sample")
        blocks = iter([sound]) if isinstance(sound, np.ndarray) else open_audio(sound)
        self._chunks = _rechunked(blocks, chunk_samples)
        self._next = next(self._chunks, None)
        self._started: float | None = None
        self._closed = threading.Event()

    def read(self, timeout_s: float) -> list[SourceItem] | None:
        """See Source."""
        if self._started is None:
            self._started = time.monotonic()
        if self._next is None or self._closed.is_set():
            return None
        if isinstance(self._next, AudioError):
            raise self._next
        if not self.realtime:
            return self._due(_end_s(self._next))
        wait_s = self._started + _end_s(self._next) - time.monotonic()
        self._closed.wait(max(0.0, min(timeout_s, wait_s)))
        return self._due(time.monotonic() - self._started)

    def close(self) -> None:
        """See Source."""
        self._closed.set()

    def _due(self, elapsed_s: float) -> list[SourceItem]:
        """The chunks that end by then."""
        items: list[SourceItem] = []
        while isinstance(chunk := self._next, Chunk) and _end_s(chunk) <= elapsed_s:
            items.append(chunk)
            self._next = next(self._chunks, None)
        return items


_Received = Waveform | bytes | Exception | None
"""A block; the torn sample at the end; what went wrong; the end."""


class RawInput:
    """Raw PCM from a pipe. What nobody reads yet stays in the pipe, so that whoever writes into it waits."""

    def __init__(
        self,
        stream: BinaryIO,
        sample_rate: int = SAMPLE_RATE,
        channels: int = 1,
        sample_format: SampleFormat = "s16le",
        pace: Pace = "realtime",
    ) -> None:
        """s16le: 16-bit integers; f32le: floats in [-1, 1]; channels interleaved, of which the mean is taken.
        realtime: whoever writes speaks now; fast: a recording, of which nothing may be passed over.
        InputError for a rate or a number of channels that no sound has.
        """
        if not (MIN_RATE <= sample_rate <= MAX_RATE and 1 <= channels <= MAX_CHANNELS):
            limits = f"give 1 to {MAX_CHANNELS} channels at {MIN_RATE} to {MAX_RATE} Hz"
            raise InputError(f"raw input of {channels} channels at {sample_rate} Hz is no sound: {limits}")
        self.realtime = pace == "realtime"
        self._stream = stream
        self._sample_rate = sample_rate
        self._channels = channels
        self._dtype, self._scale = _FORMATS[sample_format]
        self._blocks: Queue[_Received] = Queue(RAW_BLOCKS)
        self._timeline = Timeline()
        self._ended: Exception | bool = False
        self._closed = threading.Event()
        threading.Thread(target=self._pump, name="raw input", daemon=True).start()

    def read(self, timeout_s: float) -> list[SourceItem] | None:
        """See Source. Behind what came before: AudioError for samples that are none, RunError for a broken pipe."""
        deadline = time.monotonic() + timeout_s
        items: list[SourceItem] = []
        while not items and not self._ended:
            try:
                items += self._place(self._blocks.get(timeout=max(0.0, deadline - time.monotonic())))
            except Empty:
                self._ended = self._closed.is_set()
                break
            while not self._blocks.empty() and not self._ended:
                items += self._place(self._blocks.get())
        if not items and isinstance(self._ended, Exception):
            raise self._ended
        return items or (None if self._ended else [])

    def close(self) -> None:
        """See Source. The stream itself stays open."""
        self._closed.set()
        with contextlib.suppress(Full):  # then nobody waits
            self._blocks.put_nowait(None)

    def _place(self, block: _Received) -> list[SourceItem]:
        if isinstance(block, np.ndarray):
            return [*self._timeline.push(block, self._sample_rate)]
        tail: list[SourceItem] = [*self._timeline.flush()]
        if isinstance(block, bytes):
            return [*tail, AudioDropped(self._timeline.now_s, self._timeline.gap(1 / SAMPLE_RATE))]
        self._ended = block or True
        return tail

    def _pump(self) -> None:
        """The thread that waits for the pipe."""
        size = np.dtype(self._dtype).itemsize * self._channels
        rest = b""
        end: Exception | None = None
        try:
            for data in self._received(size * self._sample_rate // 10):
                rest = rest + data
                n = len(rest) // size * size
                if n:
                    self._put(self._waveform(rest[:n]))
                rest = rest[n:]
            if rest:
                self._put(rest)
        except AudioError as error:
            end = error
        except (OSError, ValueError) as error:  # ValueError: somebody closed the stream
            end = RunError(f"raw input breaks off ({error}): start what writes it again")
            end.__cause__ = error
        self._put(end)

    def _received(self, n: int) -> Iterator[bytes]:
        """What comes, up to n bytes at once, the first of it when it is known to be no container. Raises AudioError."""
        head: bytes | None = b""
        while not self._closed.is_set() and (data := _receive(self._stream, n)):
            if head is None:
                yield data
                continue
            head += data
            if len(head) >= bytes_to_tell(head):
                _check_raw(head)
                yield head
                head = None
        if head:
            _check_raw(head)
            yield head

    def _waveform(self, data: bytes) -> Waveform:
        frames = np.frombuffer(data, self._dtype).reshape(-1, self._channels)
        samples = (frames.mean(axis=1, dtype=np.float64) / self._scale).astype(np.float32)
        peak = float(np.abs(samples).max(initial=0.0))
        if not peak <= MAX_GAIN:
            raise AudioError(f"raw input holds samples up to {peak:.6g}: it is not f32le in [-1, 1]; say what it is")
        return samples

    def _put(self, block: _Received) -> None:
        """Wait until there is room, or nobody wants it any more."""
        while not self._closed.is_set():
            with contextlib.suppress(Full):
                return self._blocks.put(block, timeout=0.1)


def _check_raw(head: bytes) -> None:
    if (name := container_name(head)) is not None:
        raise AudioError(
            f"raw input is {name}, which is no raw PCM: give its name instead, or decode it on its way with "
            "ffmpeg -i - -f s16le -ac 1 -ar 16000 -"
        )


def _receive(stream: BinaryIO, n: int) -> bytes:
    """Up to n bytes as soon as there are any; not through stdin's buffer, whose lock would hold up the exit."""
    try:
        return os.read(stream.fileno(), n)
    except (AttributeError, UnsupportedOperation):  # BytesIO
        return stream.read(n)


def _end_s(chunk: Chunk) -> float:
    return chunk.start_s + len(chunk.waveform) / SAMPLE_RATE


def _rechunked(blocks: Iterator[Waveform], n: int) -> Iterator[Chunk | AudioError]:
    """The same samples in chunks of n, the last of what is left; damage comes as an error behind them."""
    timeline = Timeline()
    held = np.zeros(0, np.float32)
    error: AudioError | None = None
    try:
        for block in blocks:
            held = np.concatenate([held, block])
            for at in range(0, len(held) - n + 1, n):
                yield from timeline.push(held[at : at + n], SAMPLE_RATE)
            held = held[len(held) // n * n :]
    except AudioError as damage:
        error = damage
    yield from timeline.push(held, SAMPLE_RATE)
    if error is not None:
        yield error
