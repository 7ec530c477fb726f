"""The ledger: its sums hold at every moment, through stalls, overruns and unplugged microphones."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from auricle.models.audio import SAMPLE_RATE, Waveform
from auricle.runtime.events import AudioDropped, DeviceFound, DeviceLost
from auricle.runtime.live.gate import Closed, FixedGate, Gate, GateOptions, Opened, SpeechGate
from auricle.runtime.live.ledger import Ledger
from auricle.runtime.live.segmenter import Segmenter
from auricle.runtime.sources.playback import FilePlayback
from auricle.runtime.sources.source import Chunk, Source, SourceItem
from fake_microphone import FakeHost, SteppedMicrophone
from fake_vad import LoudnessVad
from hypothesis import given, settings
from hypothesis import strategies as st


def test_counts_and_seconds() -> None:
    ledger = Ledger()
    ledger.capture(48_000)
    ledger.decode(16_000)
    ledger.skip(8_000)
    ledger.gap(1_600)
    ledger.drop(400)
    assert ledger.as_dict() == {
        "captured": 49_600,
        "decoded": 16_000,
        "skipped": 8_000,
        "dropped": 2_000,
        "pending": 23_600,
    }
    assert ledger.seconds() == {name + "_s": n / SAMPLE_RATE for name, n in ledger.as_dict().items()}


@pytest.mark.parametrize("method", ["decode", "skip", "drop"])
def test_nothing_is_accounted_for_twice(method: str) -> None:
    ledger = Ledger()
    ledger.capture(100)
    getattr(ledger, method)(60)
    for wrong in (41, -1):
        before = ledger.as_dict()
        with pytest.raises(AssertionError, match=f"told of {wrong}"):
            getattr(ledger, method)(wrong)
        assert ledger.as_dict() == before
    with pytest.raises(AssertionError, match="told of -5"):
        ledger.capture(-5)


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
            elif not isinstance(item, DeviceLost):
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


gates = st.sampled_from(["speech", "short segments", "fixed"])


def make_gate(name: str) -> Gate:
    if name == "fixed":
        return FixedGate(1.5)
    return SpeechGate(LoudnessVad(), GateOptions(max_segment_s=1.0 if name == "short segments" else 30.0))


@settings(deadline=None, max_examples=25)
@given(
    gates,
    st.integers(20, 50_000),
    st.lists(st.tuples(st.floats(0.05, 1), st.sampled_from([0.0, 0.3])), max_size=6),
    st.booleans(),
)
def test_files(gate: str, chunk_samples: int, parts: list[tuple[float, float]], late: bool) -> None:
    levels = [np.full(round(seconds * SAMPLE_RATE), level, np.float32) for seconds, level in parts]
    clip = np.concatenate([np.full(1, 0.3, np.float32), *levels])
    clip[::2] *= -1
    listener = Listener(FilePlayback(clip, "fast", chunk_samples), make_gate(gate))
    while late and listener.poll():  # all the segments wait for the end
        pass
    listener.finish()
    assert listener.segmenter.ledger.captured == len(clip) and listener.segmenter.ledger.dropped == 0


actions = st.lists(
    st.one_of(
        st.tuples(st.just("deliver"), st.integers(1, 4_800)),
        st.tuples(st.just("deliver"), st.integers(1, 4_800)),
        st.tuples(st.just("stall"), st.floats(1, 5)),  # seconds of sound while nobody reads
        st.tuples(st.just("overflow"), st.floats(0, 3)),  # seconds that the device loses, and says so
        st.tuples(st.just("jump"), st.floats(0.3, 3)),  # seconds that it loses without a word
        st.tuples(st.just("unplug"), st.floats(0, 20)),  # seconds until it is back
        st.tuples(st.just("unplug, and the ring is full"), st.floats(0, 20)),
        st.tuples(st.just("poll"), st.just(0)),
        st.tuples(st.just("poll"), st.just(0)),
        st.tuples(st.just("done"), st.integers(0, 1)),  # the model heard it, or was not meant to
        st.tuples(st.just("done"), st.integers(0, 1)),
    ),
    max_size=20,
)


@settings(deadline=None, max_examples=40)
@given(gates, st.sampled_from([16_000, 44_100, 48_000]), actions)
def test_microphones(gate: str, sample_rate: int, todo: list[tuple[str, float]]) -> None:
    """A ring of 3 s. The device plays a known sound by its clock: each sample must lie at its time."""
    host = FakeHost(sample_rate)
    microphone = SteppedMicrophone(host, ring_s=3)
    listener = Listener(microphone, make_gate(gate))
    host.deliver(100)
    for action, value in todo:
        host.act(action, value, microphone)
        if action == "poll":
            listener.poll()
        elif action == "done":
            listener.done(decoded=bool(value))
    n_reads = listener.given.n_reads
    while listener.given.n_reads == n_reads:  # the ring is emptied, once no gap waits for a segment any more
        listener.poll()
        listener.done()
    host.deliver(100)  # now every loss has been found
    microphone.close()
    listener.finish()
    host.check_end(listener.segmenter.ledger.captured, listener.given.heard)
