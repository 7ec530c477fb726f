"""Sound that another thread pushes."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from auricle.runtime.events import AudioDropped
from auricle.runtime.sources import pushed
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


def test_what_is_pushed_is_read_end_to_end() -> None:
    source = PushedSource()
    sound = np.sin(np.arange(4000, dtype=np.float32))
    for at in range(0, 4000, 1000):
        source.push(sound[at : at + 1000])
    source.push(sound[:0])
    source.finish()
    starts, heard = read_all(source)
    assert starts == [0.0, 0.0625, 0.125, 0.1875] and np.array_equal(heard, sound)
    assert source.read(0.0) is None


def test_a_read_that_waits_returns_when_sound_comes_or_never_will() -> None:
    source = PushedSource()
    assert source.read(0.0) == []
    threading.Timer(0.05, source.push, [np.ones(160, np.float32)]).start()
    items = source.read(30.0)
    assert items is not None and len(items) == 1
    threading.Timer(0.05, source.finish).start()
    assert source.read(30.0) is None


def test_what_nobody_hears_in_time_is_dropped_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushed, "BACKLOG_SECONDS", 2.0)
    source = PushedSource()
    for _ in range(5):
        source.push(np.ones(16_000, np.float32))
    source.lose(1600)
    items = source.read(0.0) or []
    assert [(type(item), item.start_s) for item in items] == [(Chunk, 0.0), (Chunk, 1.0), (AudioDropped, 2.0)]
    assert items[-1] == AudioDropped(2.0, 3.1)
    source.push(np.ones(160, np.float32))
    assert [item.start_s for item in source.read(0.0) or ()] == [5.1]


def test_what_follows_a_failure_is_a_source_of_its_own() -> None:
    source = PushedSource(start=16_000)
    source.push(np.ones(8000, np.float32))
    assert len(source.read(0.0) or ()) == 1
    source.close()
    source.push(np.ones(1600, np.float32))
    assert source.reopen() == 0.5 and source.start == 24_000 and source.end == 25_600
    assert [item.start_s for item in source.read(0.0) or ()] == [0.0]


def test_it_knows_how_old_a_place_is(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    source = PushedSource()
    assert source.age_s(1.0) == 0.0
    for clock[0] in (1.0, 2.0):  # a second of sound each
        source.push(np.zeros(16_000, np.float32))
    clock[0] = 5.0
    assert [source.age_s(at_s) for at_s in (0.5, 1.0, 1.5, 2.0, 9.0)] == [4.0, 4.0, 3.0, 3.0, 3.0]
