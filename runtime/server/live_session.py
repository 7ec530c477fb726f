"""Live session: sound that a client pushes -> events of live captions, for any protocol.

    push ─► backlog ─► a thread with Live, in turns with everybody else ─► events()
    cut  ─► what was pushed is finished, StretchEnded comes; what follows may be heard otherwise

Who pushes never waits: what is not heard within BACKLOG_SECONDS is dropped, and AudioDropped says so. The stretches
between two cuts follow each other on one line of time, that of the session.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import aclosing, closing
from dataclasses import dataclass, field, replace
from queue import SimpleQueue

from ...models.audio import SAMPLE_RATE, Waveform
from ...models.errors import AuricleError
from ..events import (
    AudioDropped,
    Caption,
    Final,
    Lagging,
    LiveEvent,
    SegmentComplete,
    SessionEnded,
)
from ..live.captions import Live, LiveOptions
from ..scheduler import Cancelled
from ..sources.source import Chunk, SourceItem
from .jobs import in_thread
from .service import Service

BACKLOG_SECONDS = 300.0  # of sound that nobody has heard yet: 19 MB
ARRIVAL_SAMPLES = SAMPLE_RATE // 100  # how finely it is kept when sound came


@dataclass(frozen=True)
class LiveSetup:
    """How a stretch is heard."""

    options: LiveOptions = field(default_factory=LiveOptions)
    keywords: tuple[str, ...] = ()
    lora_scale: float | None = None
    """None: the engine's."""


@dataclass(frozen=True)
class StretchEnded:
    """All that was pushed before a cut, or before the end, is done with."""

    ledger: SessionEnded
    """Where its sound went; what was heard until a segment failed counts as dropped."""


@dataclass(frozen=True)
class SegmentFailed:
    """A segment could not be decoded. What was pushed since is heard."""

    start_s: float
    """Until here everything was heard."""
    error: Exception


LiveSessionEvent = LiveEvent | SegmentFailed | StretchEnded


class StretchSource:
    """Sound that one thread pushes and another reads."""

    realtime = True

    def __init__(self, start: int = 0) -> None:
        """start: where its first sample lies in the session."""
        self.start = start
        self.ended = False
        """Nothing is pushed any more."""
        self._changed = threading.Condition()
        self._waiting: deque[Waveform | int] = deque()
        """Sound, and how many samples were dropped."""
        self._n_waiting = 0
        self._n_read = 0
        self._arrivals: deque[tuple[int, float]] = deque()
        """Of the newest sound: until which sample it had come by when."""
        self._closed = False

    @property
    def end(self) -> int:
        """Where the next sample lies in the session."""
        return self.start + self._n_read + self._n_waiting

    def push(self, waveform: Waveform) -> None:
        """Sound that follows, float32 [n] at 16 kHz; dropped when too much waits."""
        if not len(waveform):
            return
        with self._changed:
            room = max(0, round(BACKLOG_SECONDS * SAMPLE_RATE) - self._n_waiting)
            fits, n_lost = waveform[:room], max(0, len(waveform) - room)
            if len(fits):
                self._waiting.append(fits)
            if n_lost and self._waiting and isinstance(lost := self._waiting[-1], int):
                self._waiting[-1] = lost + n_lost
            elif n_lost:
                self._waiting.append(n_lost)
            self._n_waiting += len(waveform)
            if len(self._arrivals) > 1 and self.end - self._arrivals[-2][0] < ARRIVAL_SAMPLES:
                self._arrivals.pop()
            self._arrivals.append((self.end, time.monotonic()))
            while self._arrivals[0][0] < self.end - 2 * BACKLOG_SECONDS * SAMPLE_RATE:
                self._arrivals.popleft()
            self._changed.notify_all()

    def finish(self) -> None:
        """Nothing follows: what waits is still read, then comes the end."""
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def read(self, timeout_s: float) -> list[SourceItem] | None:
        """See Source."""
        with self._changed:
            if not (self._waiting or self.ended or self._closed):
                self._changed.wait(timeout_s)
            items: list[SourceItem] = []
            while self._waiting:
                next_ = self._waiting.popleft()
                at_s = self._n_read / SAMPLE_RATE
                lost = isinstance(next_, int)
                items.append(AudioDropped(at_s, next_ / SAMPLE_RATE) if lost else Chunk(at_s, next_))
                self._n_read += next_ if lost else len(next_)
            self._n_waiting = 0
            return items or (None if self.ended or self._closed else [])

    def close(self) -> None:
        """See Source. Pushing goes on, for whoever reads it next."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def reopen(self) -> float:
        """What was not read yet is the beginning of a source of its own. Returns the seconds that were."""
        with self._changed:
            self._closed = False
            n = self._n_read
            self.start += n
            self._n_read = 0
            return n / SAMPLE_RATE

    def age_s(self, end_s: float) -> float:
        """How long ago the sample at that second of the session came; the newest, where it did not."""
        position = end_s * SAMPLE_RATE
        with self._changed:
            came = next((at for end, at in self._arrivals if end >= position), None)
            newest = self._arrivals[-1][1] if self._arrivals else time.monotonic()
        return time.monotonic() - (newest if came is None else came)


@dataclass
class _Stretch:
    setup: LiveSetup
    source: StretchSource
    start: int = 0
    discarded: bool = False


class LiveSession:
    """One client's sound. For one event loop, but for its thread; `events` must be read, once."""

    def __init__(self, service: Service, setup: LiveSetup) -> None:
        self._service = service
        self._stream = service.stream()
        self._trained_scale = self._stream.lora_scale
        self._newest = _Stretch(setup, StretchSource())
        self._stretches: SimpleQueue[_Stretch | None] = SimpleQueue()
        self._stretches.put(self._newest)

    @property
    def received_s(self) -> float:
        """Of sound, from the beginning."""
        return self._newest.source.end / SAMPLE_RATE

    @property
    def uncut_s(self) -> float:
        """Of sound, from the last cut."""
        return (self._newest.source.end - self._newest.start) / SAMPLE_RATE

    def push(self, waveform: Waveform) -> None:
        """Sound that follows, float32 [n] at 16 kHz. Never waits; after the end it is ignored."""
        if not self._newest.source.ended:
            self._newest.source.push(waveform)

    def cut(self, setup: LiveSetup | None = None) -> None:
        """Finish what was pushed, with a segment that is open; setup: how what follows is heard."""
        source = self._newest.source
        source.finish()
        self._newest = _Stretch(setup or self._newest.setup, StretchSource(source.end), source.end)
        self._stretches.put(self._newest)

    def discard(self, setup: LiveSetup | None = None) -> None:
        """Forget what was pushed since the last cut: nothing more comes of it, StretchEnded neither."""
        self._newest.discarded = True
        self.cut(setup)

    def finish(self) -> None:
        """Nothing follows: the segment that is open is finished, then events() ends. Twice is fine."""
        self._newest.source.finish()
        self._stretches.put(None)

    async def events(self) -> AsyncGenerator[LiveSessionEvent]:
        """What is heard, its times in seconds of the session; leaving ends the session at once.

        Raises Cancelled when the server stops.
        """
        try:
            async with aclosing(in_thread(self._service, self._stream, self._hear)) as heard:
                async for stretch, event in heard:
                    if not stretch.discarded:
                        yield event
        finally:
            self._newest.discarded = True
            self.finish()

    def _hear(self) -> Iterator[tuple[_Stretch, LiveSessionEvent]]:
        while (stretch := self._stretches.get()) is not None:
            self._stream.keywords = stretch.setup.keywords
            scale = stretch.setup.lora_scale
            self._stream.lora_scale = self._trained_scale if scale is None else scale
            failed_s = 0.0
            nothing = stretch.source.ended and stretch.source.end == stretch.start
            ledger = SessionEnded(0.0, 0.0, 0.0, 0.0) if nothing else None
            while ledger is None and not stretch.discarded:
                try:
                    ledger = yield from self._one(stretch)
                except Cancelled:
                    raise
                except AuricleError as error:
                    if not (lost_s := stretch.source.reopen()):
                        raise  # not of a segment: the next try would fail as well
                    failed_s += lost_s
                    yield stretch, SegmentFailed(stretch.source.start / SAMPLE_RATE, error)
            if ledger is not None:
                captured_s = ledger.captured_s + failed_s
                ledger = replace(ledger, captured_s=captured_s, dropped_s=ledger.dropped_s + failed_s)
                yield stretch, StretchEnded(ledger)

    def _one(self, stretch: _Stretch) -> Generator[tuple[_Stretch, LiveEvent], None, SessionEnded | None]:
        """Live over a stretch, or what is left of it, in the session's time."""
        source = stretch.source
        options = stretch.setup.options
        wait_s = max(0.0, options.gate.min_silence_ms - options.gate.speech_pad_ms) / 1e3
        with closing(iter(Live(self._service.engine, source, options, self._stream))) as events:
            for event in events:
                if stretch.discarded:
                    break
                if isinstance(event, SessionEnded):
                    return event
                event = _moved(event, source.start / SAMPLE_RATE)
                if isinstance(event, Final | Caption):
                    decided_s = event.end_s + (wait_s if isinstance(event, Final) else 0.0)
                    self._service.metrics.live(event, source.age_s(decided_s))
                elif isinstance(event, AudioDropped):
                    self._service.metrics.live(event, 0.0)
                yield stretch, event
        return None


def _moved(event: LiveEvent, by_s: float) -> LiveEvent:
    """The same event where it lies in the session."""
    if isinstance(event, Final):
        moved = replace(event, start_s=event.start_s + by_s, end_s=event.end_s + by_s)
        return replace(moved, words=tuple(word.moved(by_s) for word in event.words))
    if isinstance(event, Caption | SegmentComplete):
        return replace(event, start_s=event.start_s + by_s, end_s=event.end_s + by_s)
    if isinstance(event, Lagging):
        return replace(event, heard_s=event.heard_s + by_s)
    return event if isinstance(event, SessionEnded) else replace(event, start_s=event.start_s + by_s)
