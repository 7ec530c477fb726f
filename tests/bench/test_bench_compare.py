"""`auricle-bench compare`: what is beyond noise and what is not."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
from auricle.bench.report.compare import run as run_compare
from auricle.bench.report.comparison import Change, Comparison, compare, lines
from auricle.bench.result import Measure, to_line
from auricle.models.dataclass_json import decode
from auricle.models.errors import InputError
from bench_records import BIG, DEMO, around, quality, record, stages
from hypothesis import given, settings
from hypothesis import strategies as st


def one(
    before: tuple[float, ...], after: tuple[float, ...], better: str = "lower", unit: str = "s", name: str = "wall"
) -> Change:
    """The first change of two records of one measure."""
    records = [
        record("stages", [], {}, [Measure("whisper", name, unit, samples, better)])  # pyright: ignore[reportArgumentType]
        for samples in (before, after)
    ]
    return compare(*records).changes[0]


def found(comparison: Comparison, group: str, name: str) -> Change:
    return next(change for change in comparison.changes if (change.group, change.name) == (group, name))


def test_a_slower_stage_is_found_and_nothing_else() -> None:
    comparison = compare(stages(seed=0), stages(slower=1.2, seed=50))
    worse = comparison.with_verdict("worse")
    assert {change.group for change in worse} == {"whisper", "hear"}
    change = found(comparison, "whisper", "wall")
    assert change.verdict == "worse" and change.ratio == pytest.approx(1.2, rel=0.05)
    assert found(comparison, "whisper", "rate").verdict == "worse", "a rate is better when it is higher"
    assert not comparison.with_verdict("better") and not comparison.circumstances


@pytest.mark.parametrize("seed", range(8))
def test_two_runs_of_the_same_are_the_same(seed: int) -> None:
    comparison = compare(stages(seed=100 * seed), stages(seed=100 * seed + 50))
    assert not comparison.with_verdict("worse") and not comparison.with_verdict("better")
    assert not comparison.with_verdict("the work differs")


def test_samples_that_scatter_widely_hide_a_small_change() -> None:
    quiet, loud = around(1.0, 10, 1, 0.01), around(1.0, 10, 1, 0.3)
    assert one(quiet, tuple(1.1 * value for value in quiet)).verdict == "worse"
    assert one(loud, tuple(1.1 * value for value in loud)).verdict == "within noise"


def test_a_spread_of_nothing_still_has_a_floor() -> None:
    assert one((1.0,) * 10, (1.02,) * 10).verdict == "within noise"
    assert one((1.0,) * 10, (1.04,) * 10).verdict == "worse"


def test_single_samples_have_a_tolerance() -> None:
    assert one((1.0,), (1.09,)).verdict == "within noise"
    assert one((1.0,), (1.11,)).verdict == "worse"
    assert one((1.11,), (1.0,)).verdict == "better"


def test_few_samples_must_not_overlap() -> None:
    assert one((1.0, 1.0, 1.4), (1.3, 1.3, 1.3)).verdict == "within noise"
    assert one((1.0, 1.0, 1.2), (1.3, 1.3, 1.3)).verdict == "worse"


def test_one_outlier_is_no_regression() -> None:
    calm = around(1.0, 9, 3, 0.01)
    assert one(calm, (*calm[:-1], 9.0)).verdict == "within noise"


def test_a_longer_tail_is_found_though_the_median_stays() -> None:
    before = around(200.0, 200, 5, 0.05)
    after = tuple(value * (2 if at % 8 == 0 else 1) for at, value in enumerate(around(200.0, 200, 6, 0.05)))
    records = [record("live", [], {}, [Measure("update", "latency", "ms", s, "lower")]) for s in (before, after)]
    comparison = compare(*records)
    assert found(comparison, "update", "latency").verdict == "within noise"
    assert found(comparison, "update", "latency p95").verdict == "worse"


def test_other_work_is_no_regression_but_is_said() -> None:
    change = one((88.0,), (89.0,), better="neither", unit="", name="tokens")
    assert change.verdict == "the work differs"
    records = [record("stages", [], {}, [Measure("hear", "tokens", "", (n,))]) for n in (88.0, 89.0)]
    assert "the work itself differs" in lines(compare(*records))[-1]
    assert one((30.00001,), (30.0,), better="neither").verdict == "within noise", "records keep six digits"


def test_from_nothing_to_something() -> None:
    change = one((0.0,) * 6, (0.5,) * 6)
    assert change.verdict == "worse" and change.ratio is None
    assert one((0.0,) * 6, (0.0,) * 6).verdict == "within noise"
    assert one((-0.2,) * 6, (0.2,) * 6).verdict == "worse", "LAAL may be negative"
    kl = [record("quality", [], {}, [Measure("a", "kl", "nats", (x,), "lower")]) for x in (0.0, 1e-12)]
    assert found(compare(*kl), "a", "kl").verdict == "within noise", "that is rounding"


def test_an_interval_that_a_measure_brings_is_its_noise() -> None:
    """Its ends are not compared by themselves: they would count one change three times."""
    assert not compare(quality(), quality(extra=1.0)).with_verdict("worse")
    worse = compare(quality(), quality(extra=2.5)).with_verdict("worse")
    assert {change.name for change in worse} == {"wer"} and len(worse) == 8


def test_other_circumstances_are_said_in_one_line_on_top() -> None:
    before, after = stages(), stages()
    after = replace(
        after,
        machine=replace(after.machine, cores=4),
        settings={**after.settings, "threads": "4"},
        subjects=(replace(BIG, llm="q8_0"),),
    )
    text = lines(compare(before, after))
    assert "cores 2 before, 4 after" in text[2]
    assert "setting threads 2 before, 4 after" in text[2] and "q8_0" in text[2]
    assert any(line.startswith("whisper ") for line in text), "still compared"


def test_measures_of_one_side_are_listed() -> None:
    before = record("stages", [], {}, [Measure("whisper", "wall", "s", (1.0,)), Measure("old", "wall", "s", (1.0,))])
    after = record("stages", [], {}, [Measure("whisper", "wall", "s", (1.0,)), Measure("new", "wall", "ms", (1.0,))])
    text = lines(compare(before, after))
    assert "only before: old: wall, s" in text and "only after: new: wall, ms" in text


def test_a_unit_that_changed_is_not_compared() -> None:
    same = Measure("a", "b", "", (1.0,))
    records = [record("stages", [], {}, [same, Measure("whisper", "wall", unit, (1.0,))]) for unit in ("s", "ms")]
    assert [change.name for change in compare(*records).changes] == ["b"]


def test_the_only_bundle_may_have_another_name() -> None:
    records = [
        record("quality", [subject], {}, [Measure(subject.name, "wer", "%", (value,), "lower")])
        for subject, value in ((DEMO, 5.0), (BIG, 9.0))
    ]
    assert compare(*records).changes[0].verdict == "worse"


def test_measures_without_samples_are_left_out() -> None:
    empty = Measure("whisper", "cpu", "s", ())
    broken = Measure("whisper", "rate", "s", (float("nan"),))
    records = [record("stages", [], {}, [Measure("whisper", "wall", "s", (1.0,)), empty, broken]) for _ in range(2)]
    assert [change.name for change in compare(*records).changes] == ["wall"]


def test_nothing_in_common_is_refused() -> None:
    with pytest.raises(InputError, match="no measure in common"):
        compare(stages(), quality())


samples = st.lists(st.floats(0.001, 1000), min_size=1, max_size=12).map(tuple)


@settings(max_examples=60, deadline=None)
@given(samples, samples)
def test_the_other_way_round_is_the_opposite(before: tuple[float, ...], after: tuple[float, ...]) -> None:
    there, back = one(before, after), one(after, before)
    opposite = {"better": "worse", "worse": "better", "within noise": "within noise"}
    assert back.verdict == opposite[there.verdict]
    assert one(before, before).verdict == "within noise"


@pytest.mark.parametrize(("slower", "status"), [(1.0, 0), (1.3, 1), (1 / 1.3, 0)])
def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], slower: float, status: int) -> None:
    (tmp_path / "a").write_text("a table\n" + to_line(stages()) + "\n", encoding="utf-8")
    (tmp_path / "b").write_text(to_line(stages(slower, seed=50)) + "\n", encoding="utf-8")
    arguments = Namespace(before=tmp_path / "a", after=tmp_path / "b", report=None)
    assert run_compare(arguments) == status
    *table, last = capsys.readouterr().out.splitlines()
    assert decode(Comparison, json.loads(last)).command == "stages"
    assert table[-1].endswith("within noise")
    assert any("slower" in line for line in table) == (status == 1)


def test_a_file_that_is_no_record(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("nothing\n", encoding="utf-8")
    with pytest.raises(InputError, match="does not end in a record"):
        run_compare(Namespace(before=tmp_path / "a", after=tmp_path / "a", report=None))
