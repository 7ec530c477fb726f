"""Segmenter: a source's chunks -> the gate's events (endpoints included), a segment's samples by position, the ledger.

    source ─► tape ─► gate, frame by frame ─► Opened, GateProgress, GateProgress, ... Closed
                └──── read(start, end): the samples of a segment

Positions are samples at 16 kHz since the session began, gaps included. What comes out does not depend on how the source
cuts its chunks. Who polls must call `done(closed)` for every segment, so that the ledger balances.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from ...models.audio import SAMPLE_RATE, Waveform
from ..audio.level import peak_dbfs
from ..engine import Engine
from ..events import AudioDropped, DeviceFound, DeviceLost, DeviceMuted
from ..sources.source import Chunk, Source, SourceItem
from .gate import Closed, FixedGate, Gate, GateOptions, Opened, SpeechGate
from .ledger import Ledger
from .silero import FRAME_LENGTH, shared_vad

LEVEL_LENGTH = SAMPLE_RATE // 10


@dataclass(frozen=True)
class GateProgress:
    """The gate has judged everything before `end`."""

    end: int
    newest: bool
    """Nothing newer has come in yet."""
    expected: Closed | None = None
    """See Gate."""
    pausing: bool = False
    """See Gate."""


SegmenterEvent = Opened | Closed | GateProgress | AudioDropped | DeviceLost | DeviceFound | DeviceMuted


class Segmenter:
    """One session's source, gate and ledger. One thread at a time, but for `close`."""

    def __init__(self, source: Source, gate: Gate) -> None:
        self.ledger = Ledger()
        self.realtime = source.realtime
        self.level_dbfs = -math.inf
        """Peak of the newest sound, at most the last 100 ms of it; any thread may look."""
        self._source = source
        self._gate = gate
        self._tape = _Tape()
        self._arrived: deque[SourceItem] = deque()
        self._judged = 0
        self._accounted = 0
        """Every sample before it is in the ledger, or in a segment that is not done yet."""
        self._starts: deque[int] = deque()
        """Of the segments that are not done, the open one included."""
        self._open = False
        self._ended = False
        self._closed = threading.Event()

    def poll(self, timeout_s: float) -> list[SegmenterEvent] | None:
        """What has happened since the last call, waiting up to timeout_s; None when the source has ended."""
        if self._ended:
            return None
        if not self._arrived:
            dozed_s = self._doze(timeout_s)
            arrived = self._source.read(timeout_s - dozed_s)
            if arrived is None:
                self._ended = True
                return self._decide_all()
            self._arrived += arrived
        events: list[SegmenterEvent] = []
        while self._arrived:
            item = self._arrived[0]
            if isinstance(item, Chunk):
                self._tape.append(item.waveform)
                self.level_dbfs = peak_dbfs(item.waveform[-LEVEL_LENGTH:])
                self.ledger.capture(len(item.waveform))
            else:
                events += self._decide_all()
                if self._starts:  # first the listener must be done with what came before the gap
                    return events
                self._pass_over(_lost(item))
                events.append(item)
            self._arrived.popleft()
        events += self._judge()
        if events and isinstance(last := events[-1], GateProgress):
            events[-1] = replace(last, newest=True)
        return events

    def _doze(self, timeout_s: float) -> float:
        """Wait as long as what comes can decide nothing: in silence, being woken for it is most of what it costs."""
        left = self._tape.end - self._judged
        idle_s = seconds(self._gate.earliest_event - left - FRAME_LENGTH) if self.realtime else 0.0
        dozed_s = max(0.0, min(timeout_s, idle_s))
        self._closed.wait(dozed_s)
        return dozed_s

    @property
    def received_s(self) -> float:
        """How much sound has come, gaps included; any thread may look."""
        return seconds(self._tape.end)

    def read(self, start: int, end: int) -> Waveform:
        """float32 [end - start] of a segment that is not done."""
        return self._tape.read(start, end)

    def done(self, closed: Closed, decoded: bool = True) -> None:
        """This segment was decoded, or is not meant to be: it is accounted for and forgotten."""
        account = self.ledger.decode if decoded else self.ledger.skip
        account(closed.end - closed.start)
        self._starts.popleft()
        self._forget()

    def balance(self) -> dict[str, float]:
        """Seconds of audio: captured_s = decoded_s + skipped_s + dropped_s, once everything is decided."""
        counts = self.ledger.seconds()
        return {name: counts[name] for name in ("captured_s", "decoded_s", "skipped_s", "dropped_s")}

    def close(self) -> None:
        """From any thread: the source ends, a poll that waits returns. Twice is fine."""
        self._closed.set()
        self._source.close()

    def _judge(self, whole: bool = False) -> list[SegmenterEvent]:
        """The gate over the whole frames that have come in; with `whole`, over the rest too.

        While nobody speaks it is asked as seldom as no event comes later for it: mostly it costs to be asked at all.
        """
        events: list[SegmenterEvent] = []
        left = self._tape.end - self._judged
        if not whole and self.realtime and left < self._gate.earliest_event:
            return events
        end = self._judged + (left if whole else left // FRAME_LENGTH * FRAME_LENGTH)
        for found in self._gate.frames(self._tape.read(self._judged, end)):
            self._judged = min(self._judged + FRAME_LENGTH, end)
            progress = GateProgress(self._judged, False, self._gate.expected, self._gate.pausing)
            events += [*self._settle(found), progress]
        self._judged = end
        return events

    def _settle(self, found: list[Opened | Closed]) -> list[SegmenterEvent]:
        """Account for the silence that the gate has decided on."""
        for event in found:
            if isinstance(event, Opened):
                self._skip(event.start)
                self._starts.append(event.start)
                self._open = True
            else:
                self._accounted = event.end
                self._open = False
        if not self._open:
            self._skip(self._gate.decided)
        return list(found)

    def _skip(self, until: int) -> None:
        self.ledger.skip(until - self._accounted)
        self._accounted = until
        self._forget()

    def _forget(self) -> None:
        self._tape.forget(self._starts[0] if self._starts else min(self._accounted, self._judged))

    def _decide_all(self) -> list[SegmenterEvent]:
        """As if the audio ended here."""
        return [*self._judge(whole=True), *self._settle(self._gate.flush())]

    def _pass_over(self, n_lost: int) -> None:
        """Audio is missing here: positions move on."""
        self._gate.gap(n_lost)
        self.ledger.gap(n_lost)
        self._tape.skip(n_lost)
        self._judged = self._accounted = self._tape.end


class _Tape:
    """Samples by position, as long as they are needed."""

    def __init__(self) -> None:
        self._samples: Waveform = np.zeros(SAMPLE_RATE, np.float32)
        self._first = 0  # position of _samples[0]
        self._kept = 0  # position of the first sample still needed
        self.end = 0

    def append(self, waveform: Waveform) -> None:
        at = self.end - self._first
        if at + len(waveform) > len(self._samples):
            kept = self._samples[self._kept - self._first : at]
            self._samples = np.concatenate([kept, np.zeros(2 * (len(kept) + len(waveform)) + SAMPLE_RATE, np.float32)])
            self._first, at = self._kept, len(kept)
        self._samples[at : at + len(waveform)] = waveform
        self.end += len(waveform)

    def read(self, start: int, end: int) -> Waveform:
        """A copy."""
        if not self._kept <= start <= end <= self.end:
            raise AssertionError(f"samples {start} to {end} are not on the tape, which has {self._kept} to {self.end}")
        return self._samples[start - self._first : end - self._first].copy()

    def forget(self, before: int) -> None:
        self._kept = max(self._kept, before)

    def skip(self, n: int) -> None:
        """Lost samples: nothing before them is needed any more."""
        self.end += n
        self._first = self._kept = self.end


def seconds(position: int) -> float:
    """Of a sample position."""
    return position / SAMPLE_RATE


def _lost(item: AudioDropped | DeviceLost | DeviceFound | DeviceMuted) -> int:
    """How many samples an event says are missing."""
    if isinstance(item, DeviceLost | DeviceMuted):
        return 0  # how long, DeviceFound will say; of the other nothing
    lost_s = item.seconds_lost if isinstance(item, DeviceFound) else item.seconds
    return round(lost_s * SAMPLE_RATE)


def open_gate(engine: Engine, options: GateOptions, vad: bool) -> Gate:
    """The speech gate, or fixed segments without one; no segment is longer than the model's window."""
    longest_s = min(options.max_segment_s, engine.spec.seconds)
    return SpeechGate(shared_vad(), replace(options, max_segment_s=longest_s)) if vad else FixedGate(longest_s)
