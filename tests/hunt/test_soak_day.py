"""The day of speech: given in one piece or many it is the same, and its rules find what they are for."""

from __future__ import annotations

import importlib.util
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "soak-day.py"


@pytest.fixture(scope="module")
def soak() -> Any:
    specification = importlib.util.spec_from_file_location("soak_day", SCRIPT)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPT.parent))
        sys.modules["soak_day"] = module
        specification.loader.exec_module(module)
    return module


def test_a_day_in_pieces_is_the_same_day(soak: Any) -> None:
    clips = [np.arange(n, dtype=np.int16) for n in (9000, 30_001)]
    whole = b"".join(soak.sound(clips, 0.0, 60.0))
    assert len(whole) == 60 * 32_000
    borders = (0.0, 7.25, 31.7, 31.75, 60.0)
    assert b"".join(part for a, b in itertools.pairwise(borders) for part in soak.sound(clips, a, b)) == whole


def test_it_goes_on_where_the_last_file_ends(soak: Any, tmp_path: Path) -> None:
    state = soak.State(begun_s=100.0)
    lines = [{"event": "Final", "end_s": 3.5}, {"event": "Final", "end_s": 9.25}]
    (tmp_path / "captions-001.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    soak.settle(tmp_path, state, 200.0)
    assert (state.heard_s, state.n_kills, state.balances) == (109.25, 1, [])
    assert soak.read_state(tmp_path) == state
    state.begun_s = 109.25
    ended = {"event": "SessionEnded", "captured_s": 90.75, "decoded_s": 90.0, "skipped_s": 0.75, "dropped_s": 0.0}
    (tmp_path / "captions-002.jsonl").write_text(f"{json.dumps(ended)}\n")
    soak.settle(tmp_path, state, 200.0)
    assert state.heard_s == 200.0 and state.begun_s is None and soak.broken_rules(state) == []
    (tmp_path / "captions-002.jsonl").write_text('{"event": "Fin')
    with pytest.raises(ValueError, match="ends inside a line"):
        soak.read_captions(tmp_path / "captions-002.jsonl")


@pytest.mark.parametrize(
    ("resident", "p95", "dropped", "said"),
    [
        ((100.0, 110.0, 114.0), (300.0, 100.0, 109.0), 0.0, None),
        ((100.0, 110.0, 115.5), (300.0, 100.0, 109.0), 0.0, "grew by 5.5 MB"),
        ((100.0, 110.0, 114.0), (300.0, 100.0, 111.0), 0.0, "111 ms in the last slice"),
        ((100.0, 110.0, 114.0), (300.0, 100.0, 109.0), 1 / 16_000, "of 160000 samples"),
    ],
)
def test_the_day_s_rules(
    soak: Any, resident: tuple[float, ...], p95: tuple[float, ...], dropped: float, said: str | None
) -> None:
    slices = [soak.Slice(3600.0 * i, 1, mb, 50, ms) for i, (mb, ms) in enumerate(zip(resident, p95, strict=True))]
    balance = {"given_s": 10.0, "captured_s": 10.0, "decoded_s": 6.0, "skipped_s": 4.0, "dropped_s": dropped}
    wrong = soak.broken_rules(soak.State(slices=slices, balances=[balance]))
    assert (said is None and wrong == []) or (said is not None and len(wrong) == 1 and said in wrong[0])
