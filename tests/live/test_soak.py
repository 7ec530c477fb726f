"""Live captions for hours: memory stays, the ledger balances, updates do not slow. `make soak` runs the long ones.

Work is compared in CPU seconds, not wall time: these machines are shared.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import noises
import numpy as np
import pytest
from auricle.models.audio import SAMPLE_RATE, Waveform
from auricle.runtime.audio.decode import read_audio
from auricle.runtime.engine import Engine, load
from auricle.runtime.events import AudioDropped, Caption, Final, SessionEnded
from auricle.runtime.live.captions import captions
from auricle.runtime.sources.playback import FilePlayback
from auricle.runtime.sources.source import Chunk, Source, SourceItem
from memory import held_bytes

ALLOWED_GROWTH_MB = 5.0
SETTLED_S = 60.0  # after a minute nothing should grow


class Endless:
    """The demo's spoken clips and pauses of 0.5 to 4 s, over and over, without keeping them in memory."""

    realtime = False

    def __init__(self, clips: list[Waveform], seconds: float) -> None:
        self._clips, self._left = clips, int(seconds * SAMPLE_RATE)
        self._rng = np.random.default_rng(1)
        self._at = 0

    def read(self, timeout_s: float) -> list[SourceItem] | None:
        if self._left <= 0:
            return None
        clip = self._clips[int(self._rng.integers(len(self._clips)))]
        pause = np.zeros(int(self._rng.uniform(0.5, 4.0) * SAMPLE_RATE), np.float32)
        waveform = np.concatenate([clip, pause])[: self._left]
        chunk = Chunk(self._at / SAMPLE_RATE, waveform)
        self._at += len(waveform)
        self._left -= len(waveform)
        return [chunk]

    def close(self) -> None:
        self._left = 0


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with load() as opened:
        yield opened


@pytest.fixture(scope="module")
def clips(engine: Engine) -> list[Waveform]:
    folder = engine.bundle.path("clips")
    rows = json.loads((folder / "clips.json").read_text())
    return [read_audio(folder / row["file"]) for row in rows]


def held_mb() -> float:
    return held_bytes() / 2**20


def soak(engine: Engine, source: Source, seconds: float) -> dict[str, float]:
    """Runs it; the growth of memory after the first minute and the CPU time of updates, first and last quarter."""
    cpu_ms: list[tuple[float, float]] = []
    early_mb: float | None = None
    n_finals, last, balance = 0, time.process_time(), None
    for event in captions(source, engine):
        now = time.process_time()
        if isinstance(event, Caption):
            cpu_ms.append((event.end_s, (now - last) * 1e3))
        last = now
        n_finals += isinstance(event, Final)
        assert not isinstance(event, AudioDropped)
        if early_mb is None and isinstance(event, Final) and event.end_s > SETTLED_S:
            early_mb = held_mb()
        balance = event
    assert isinstance(balance, SessionEnded) and early_mb is not None
    assert balance.captured_s == pytest.approx(balance.decoded_s + balance.skipped_s + balance.dropped_s)
    assert balance.captured_s == pytest.approx(seconds, abs=0.2)
    first = [ms for at, ms in cpu_ms if at < seconds / 4]
    final = [ms for at, ms in cpu_ms if at > 3 * seconds / 4]
    found = {
        "seconds": seconds,
        "finals": n_finals,
        "updates": len(cpu_ms),
        "growth_mb": held_mb() - early_mb,
        "p95_first_quarter_ms": float(np.percentile(first, 95)),
        "p95_last_quarter_ms": float(np.percentile(final, 95)),
    }
    print("\n" + json.dumps({name: round(value, 2) for name, value in found.items()}))
    return found


def test_three_minutes(engine: Engine, clips: list[Waveform]) -> None:
    found = soak(engine, Endless(clips, 180), 180)
    assert found["growth_mb"] < ALLOWED_GROWTH_MB
    assert found["p95_last_quarter_ms"] <= 2 * found["p95_first_quarter_ms"]  # nothing grows with the session


@pytest.mark.slow
def test_two_hours_of_audio(engine: Engine, clips: list[Waveform]) -> None:
    found = soak(engine, Endless(clips, 7200), 7200)
    assert found["growth_mb"] < ALLOWED_GROWTH_MB
    assert found["p95_last_quarter_ms"] <= 1.1 * found["p95_first_quarter_ms"]


@pytest.mark.slow
def test_half_an_hour_at_real_pace(engine: Engine, clips: list[Waveform]) -> None:
    spoken, parts = Endless(clips, 1800), list[Waveform]()
    while (heard := spoken.read(0)) is not None:
        parts += [chunk.waveform for chunk in heard if isinstance(chunk, Chunk)]
    audio = np.concatenate(parts)
    found = soak(engine, FilePlayback(audio, "realtime"), 1800)
    assert found["growth_mb"] < ALLOWED_GROWTH_MB
    assert found["p95_last_quarter_ms"] <= 1.1 * found["p95_first_quarter_ms"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", noises.KINDS)
def test_nothing_is_said_in_five_minutes_without_speech(engine: Engine, kind: str) -> None:
    events = captions(FilePlayback(noises.noise(kind, 300.0), "fast"), engine)
    said = [(event.start_s, event.text) for event in events if isinstance(event, Final) and event.text]
    assert said == []


def test_opened_and_closed_fifty_times_memory_is_flat(clips: list[Waveform]) -> None:
    """Device, ONNX sessions, llama context and gate are given back each time."""
    sizes: list[float] = []
    for _ in range(50):
        with load() as opened:
            list(captions(FilePlayback(clips[0], "fast"), opened))
        sizes.append(held_mb())
    assert max(sizes[-10:]) - max(sizes[10:20]) < 2 * ALLOWED_GROWTH_MB, sizes
