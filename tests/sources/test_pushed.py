"""Sound that another thread pushes."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from auricle.runtime.sources.pushed import PushedSource
from auricle.runtime.sources.source import Chunk


def read_all(source: PushedSource) -> tuple[list[float], np.ndarray]:
    starts: list[float] = []
    parts = [np.zeros(0, np.float32)]
    while (items := source.read(5.0)) is not None:
        for item in items:
            assert isinstance(item, Chunk)
            starts.append(item.start_s)
            parts.append(item.waveform)
    return starts, np.concatenate(parts)


def test_what_is_pushed_is_read_end_to_end_and_nothing_after_the_close() -> None:
    source = PushedSource()
    sound = np.sin(np.arange(4000, dtype=np.float32))
    for at in range(0, 4000, 1000):
        source.push(sound[at : at + 1000], 16_000)
    source.push(sound[:0], 16_000)
    source.close()
    source.push(sound, 16_000)
    starts, heard = read_all(source)
    assert starts == [0.0, 0.0625, 0.125, 0.1875] and np.array_equal(heard, sound)
    assert source.read(0.0) is None


def test_other_rates_are_heard_to_their_last_sample() -> None:
    source = PushedSource()
    for _ in range(10):
        source.push(np.zeros(4410, np.float32), 44_100)
    source.close()
    assert abs(len(read_all(source)[1]) - 16_000) <= 1


def test_a_read_that_waits_returns_when_sound_comes_or_never_will() -> None:
    source = PushedSource()
    assert source.read(0.0) == []
    threading.Timer(0.05, source.push, [np.ones(160, np.float32), 16_000]).start()
    items = source.read(30.0)
    assert items is not None and len(items) == 1
    threading.Timer(0.05, source.close).start()
    assert source.read(30.0) is None


def test_it_knows_how_old_a_place_is(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    source = PushedSource()
    assert source.age(1.0) == 0.0
    for clock[0] in (1.0, 2.0):  # a second of sound each
        source.push(np.zeros(16_000, np.float32), 16_000)
    clock[0] = 5.0
    assert [source.age(at_s) for at_s in (0.5, 1.0, 1.5, 2.0, 9.0)] == [4.0, 4.0, 3.0, 3.0, 3.0]
