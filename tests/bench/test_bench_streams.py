"""Many streams at once: who speaks how much, what is measured of whom, and a run of real ones."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jiwer", reason="the bench is not installed")
from auricle.bench.__main__ import main
from auricle.bench.live import streams
from auricle.bench.live import talk as talking
from auricle.bench.live.streams import Measured, Seen, Turns, admitted_of, number_for, sweep
from auricle.bench.live.talk import TalkSource, talk
from auricle.bench.result import read_record
from auricle.models.audio import SAMPLE_RATE, Waveform
from auricle.models.bundle import shipped_bundle
from auricle.models.errors import InputError
from auricle.runtime.audio.decode import read_audio
from auricle.runtime.engine import Engine, load
from auricle.runtime.live.captions import LiveOptions
from auricle.runtime.scheduler import Priority
from auricle.runtime.sources.source import Chunk
from auricle.runtime.stream_load import Load

COMMAND = shipped_bundle() / "clips" / "command.wav"


def tone(seconds: float) -> Waveform:
    return np.full(round(seconds * SAMPLE_RATE), 0.5, np.float32)


def costs_of(update_s: float, final_s: float) -> Load:
    costs = Load()
    costs.update.add(update_s, 2.0)
    costs.add_final(final_s, 4.0)
    return costs


def test_people_speak_half_of_the_time_each_in_an_order_of_their_own() -> None:
    clips = [tone(2.0), tone(3.0), tone(4.0)]
    talks = [np.concatenate([*talk(clips, 1200.0, seed)]) for seed in (1, 1, 2)]
    assert all(len(each) >= 1200 * SAMPLE_RATE for each in talks)
    assert float((talks[0] != 0).mean()) == pytest.approx(0.5, abs=0.02)
    assert np.array_equal(talks[0], talks[1]) and not np.array_equal(talks[0], talks[2])


def test_what_was_spoken_by_now_is_given_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(talking.time, "monotonic", lambda: clock[0])
    pieces = [tone(0.25), np.arange(4000, dtype=np.float32), tone(0.17)]
    source = TalkSource(iter(pieces))
    assert source.read(0.0) == []
    given: list[Waveform] = []
    for now_s, n_chunks in ((0.03, 0), (0.033, 1), (0.45, 13), (0.81, 7), (1.0, 0)):
        clock[0] = 100.0 + now_s
        items = source.read(0.0) or []
        assert len(items) == n_chunks
        given += [item.waveform for item in items if isinstance(item, Chunk)]
    assert source.read(0.0) is None
    assert np.array_equal(np.concatenate(given), np.concatenate(pieces))


def test_numbers_follow_from_the_load() -> None:
    costs = costs_of(0.4, 0.4)  # 0.1 each
    assert [number_for(costs, share) for share in (0.01, 0.5, 1.05)] == [1, 5, 10]
    assert [admitted_of(costs, n) for n in (1, 8, 20)] == [1, 8, 8]
    with pytest.raises(InputError, match="ask for less"):
        number_for(costs_of(0.001, 0.001), 5.0)


def test_who_is_refused_is_counted_and_the_rest_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[int] = []

    def fake(
        _engine: Engine, _costs: Load, _order: object, _clips: object, _options: object, n: int, *_: object
    ) -> object:
        measured.append(n)
        turns = Turns()
        turns.add(Priority.FINAL, 0.25, 0.5)
        return Measured(
            [Seen(final_ms=[300.0, 500.0], dropped_s=0.5)] * n, turns, 10.0 * n, 10.0, 2.0, 10**8 + n * 10**6, 1
        )

    monkeypatch.setattr(streams, "measure", fake)
    engine: Engine = None  # type: ignore[assignment]
    measures = sweep(engine, [costs_of(0.4, 0.4)], [], LiveOptions(), [2, 4, 12, 20], True, 60.0)
    assert measured == [2, 2, 4, 4, 8, 8]
    found = {(m.group, m.name): m for m in measures}
    assert found["20 streams", "refused"].value == 12 and ("20 streams", "final") not in found
    assert found["12 streams", "refused"].value == 4 and found["12 streams", "load"].value == pytest.approx(1.2)
    assert found["4 streams, first come", "final"].samples == (300.0, 500.0) * 4
    assert found["4 streams", "memory"].value == pytest.approx(1.0) and ("2 streams", "memory") not in found
    assert found["2 streams", "rtf"].value == 0.025 and found["2 streams", "engine"].value == 5.0
    assert found["2 streams", "final_waited"].samples == (250.0,) and found["2 streams", "dropped"].value == 1.0


def test_a_run_measures_real_streams(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    asked = ["streams", "--streams", "2", "--minutes", "0.02", "--recording", str(COMMAND), "--no-admission"]
    assert main(asked) == 0
    printed = capsys.readouterr().out
    (tmp_path / "run.txt").write_text(printed)
    record = read_record(tmp_path / "run.txt")
    assert record.command == "streams" and record.groups == ("2 streams", "2 streams, first come")
    for group in record.groups:
        final, dropped = record.find(group, "final"), record.find(group, "dropped")
        assert final and len(final.samples) == 2 and dropped and dropped.value == 0
    assert [line.split("  ")[0] for line in islice(printed.splitlines(), 4, 6)] == [*record.groups]


def test_who_is_far_behind_is_given_up_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "LEFT_SECONDS", -60.0)
    with load() as engine:
        measures = sweep(engine, [costs_of(0.01, 0.01)], [read_audio(COMMAND)], LiveOptions(), [1], True, 0.5)
    assert [m.value for m in measures if m.name == "given_up"] == [1.0, 1.0]


def test_recordings_in_which_nobody_speaks_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quiet = shipped_bundle() / "clips" / "none.wav"
    assert main(["streams", "--recording", str(quiet)]) == 2
    with pytest.raises(SystemExit, match="2"):
        main(["streams", "--streams", "0,2"])
    with pytest.raises(SystemExit, match="2"):
        main(["streams", "--load", "nan"])
    assert "is not a number above 0" in capsys.readouterr().err
