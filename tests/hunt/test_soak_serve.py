"""The server's soak: half a minute of it against a server, and its rules find what they are for."""

from __future__ import annotations

import asyncio
import importlib.util
import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the server is not installed")
from auricle.runtime.engine import load
from auricle.runtime.server.live_session import LiveSession
from served import Served, serving

SCRIPT = Path(__file__).parents[2] / "scripts" / "soak-serve.py"
LEDGER = {"captured": 16_000.0, "decoded": 12_000.0, "skipped": 4000.0, "dropped": 0.0}


@pytest.fixture(scope="module")
def soak() -> Any:
    specification = importlib.util.spec_from_file_location("soak_serve", SCRIPT)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPT.parent))
        sys.modules["soak_serve"] = module
        specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with load() as engine, serving(engine) as running:
        yield running


def test_a_slice(soak: Any, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "SESSION_SECONDS", (3.0, 6.0))
    monkeypatch.setattr(soak, "LEAVING", 0.5)
    base = served.url.replace("http", "ws")
    voices = asyncio.run(soak.learn(base, ["command", "weather"], None, 30.0))
    assert "dishwasher" in voices[0].own & voices[1].foreign
    state = soak.State(heard_s=100.0)
    now = asyncio.run(soak.run_slice(base, state, voices, 30.0, 50.0, 3))
    assert state.faults == []
    assert state.heard_s == now.end_s >= 130.0
    assert now.n_sessions > now.n_left > 0 and now.n_texts


@pytest.mark.parametrize("protocol", ["Realtime", "Live"])
def test_sound_that_is_lost_and_texts_that_go_astray_are_found(
    soak: Any, served: Served, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    push = LiveSession.push
    monkeypatch.setattr(LiveSession, "push", lambda self, waveform: push(self, waveform[:-1]))
    base = served.url.replace("http", "ws")
    samples = np.zeros(16_000, np.int16)
    path = getattr(soak, protocol).PATH
    told = asyncio.run(soak.talk(base, path, samples, 100.0, random.Random(1), len(samples)))
    assert [fault.split(",")[0] for fault in soak.faults_of(told, 16_000, frozenset())] == [
        "16000 samples were sent",
        "no text came of 16000 samples",
    ]


@pytest.mark.parametrize(
    ("changes", "texts", "said"),
    [
        ({}, ["turn on"], None),
        ({}, [], "no text came"),
        ({}, ["turn on", "in dublin"], "'in dublin'"),
        ({"captured": 15_999.0}, ["turn on"], "16000 samples were sent"),
        ({"dropped": 1.0}, ["turn on"], "16000 samples were sent"),
        ({"skipped": 3999.0}, ["turn on"], "16000 samples were sent"),
    ],
)
def test_a_session_s_rules(soak: Any, changes: dict[str, float], texts: list[str], said: str | None) -> None:
    wrong = soak.faults_of(soak.Told(texts, LEDGER | changes), 16_000, frozenset({"dublin"}))
    assert (said is None and wrong == []) or (said is not None and len(wrong) == 1 and said in wrong[0])


def test_the_soak_s_rules_and_its_state(soak: Any, tmp_path: Path) -> None:
    first = soak.Slice(900.0, 1, 200.0, 12, 20, 5, 300, 90.0)
    used_mb = (200.0, 250.0, 280.0, 290.0, 280.0, 290.0, 295.0, 292.0, 290.0, 298.0)
    slices = [replace(first, resident_mb=mb) for mb in used_mb]
    state = soak.State(4500.0, slices, [])
    assert soak.broken_rules(state) == []
    soak.save(tmp_path, state)
    assert soak.read_state(tmp_path) == state and soak.read_state(tmp_path / "none") == soak.State()
    slices.append(replace(first, resident_mb=303.0, n_threads=41))
    assert [rule.split(" ", 2)[2] for rule in soak.broken_rules(state)] == [
        "grew by 10.8 MB from its third to sixth slice to its last four",
        "has 41 threads",
    ]
