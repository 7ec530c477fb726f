"""Live sessions whose sound a test puts in, each in a thread of its own, on one scheduler."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from auricle.models.audio import SAMPLE_RATE, Waveform
from auricle.runtime.engine import Engine
from auricle.runtime.events import LiveEvent
from auricle.runtime.live.captions import Live, LiveOptions
from auricle.runtime.scheduler import Scheduler
from auricle.runtime.sources.source import Chunk, SourceItem

WAIT = 10.0  # seconds, for what comes at once


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


class Fed:
    """A live source that gives what a test puts in."""

    realtime = True

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items: list[SourceItem] = []
        self._n = 0
        self._closed = False

    def feed(self, waveform: Waveform) -> None:
        with self._lock:
            self._items.append(Chunk(self._n / SAMPLE_RATE, waveform))
            self._n += len(waveform)

    def read(self, timeout_s: float) -> list[SourceItem] | None:
        deadline = time.monotonic() + timeout_s
        while True:
            with self._lock:
                items, self._items = self._items, []
                if items or self._closed:
                    return items or None
            if time.monotonic() >= deadline:
                return []
            time.sleep(0.001)

    def close(self) -> None:
        self._closed = True


class Session:
    """Live captions in a thread of their own."""

    def __init__(self, engine: Engine, scheduler: Scheduler, options: LiveOptions | None = None) -> None:
        self.source = Fed()
        self.stream = scheduler.stream()
        self.live = Live(engine, self.source, options or LiveOptions(hop_ms=500), self.stream)
        self.events: list[LiveEvent] = []
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            for event in self.live:
                self.events.append(event)
        except Exception as error:
            self.error = error

    def join(self) -> None:
        self.live.stop()
        self.thread.join(WAIT)
        assert not self.thread.is_alive()
