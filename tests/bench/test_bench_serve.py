"""The server beside `listen`: the same texts about the same sound, and what of their times is compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jiwer", reason="the bench is not installed")
pytest.importorskip("starlette", reason="the server is not installed")
from auricle.bench.live import serve
from auricle.bench.options import parser
from auricle.models.audio import SAMPLE_RATE
from auricle.models.bundle import shipped_bundle
from auricle.models.errors import InputError
from auricle.runtime.audio.decode import read_audio
from served import write_wav


def test_differences_are_those_of_the_same_sound() -> None:
    listened = {1.0: 300.0, 2.0: 310.0, 3.5: 320.0}
    assert serve.differences_of(listened, {1.02: 312.0, 2.2: 999.0, 3.5: 315.0}) == [12.0, -5.0]
    assert serve.differences_of(listened, {}) == []


def test_both_hear_the_same_segments(tmp_path: Path) -> None:
    clip = read_audio(shipped_bundle() / "clips" / "command.wav")
    source = write_wav(tmp_path / "talk.wav", np.concatenate([clip, np.zeros(SAMPLE_RATE, np.float32)]))
    record = serve.measure(None, source, n_rounds=2)
    for group in ("final", "update"):
        listen, realtime = (record.find(group, name) for name in ("listen", "realtime"))
        assert listen is not None and realtime is not None
        assert all(late > 0 for late in (*listen.samples, *realtime.samples))
    finals = {name: record.find("final", name) for name in ("listen", "realtime", "difference")}
    assert [len(each.samples) for each in finals.values() if each] == [2, 2, 2]
    shown = serve.lines(record)
    assert any(line.startswith("end of speech to final, difference") for line in shown)
    assert all(len(line) <= 120 for line in shown)


def test_a_recording_in_which_nobody_speaks(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nobody speaks in"):
        serve.measure(None, write_wav(tmp_path / "quiet.wav", np.zeros(SAMPLE_RATE)), n_rounds=1)


def test_its_options() -> None:
    asked = parser().parse_args(["serve", "--source", "talk.wav", "--rounds", "5"])
    assert (asked.command, asked.source, asked.rounds, asked.bundle) == ("serve", Path("talk.wav"), 5, None)
