"""The ledger: its sums hold at every moment, through stalls, overruns and unplugged microphones."""

from __future__ import annotations

import numpy as np
import pytest
from auricle.models.audio import SAMPLE_RATE
from auricle.runtime.live.ledger import Ledger
from auricle.runtime.sources.playback import FilePlayback
from fake_microphone import GATES, FakeHost, Listener, SteppedMicrophone, make_gate
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


gates = st.sampled_from(GATES)


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
    listener.empty()
    host.deliver(100)  # now every loss has been found
    microphone.close()
    listener.finish()
    host.check_end(listener.segmenter.ledger.captured, listener.given.heard)
