"""Graphs kept as optimized: the same numbers, made once, and never in the way. No torch."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from auricle.models.bundle import GraphInfo, shipped_bundle
from auricle.models.errors import BundleError
from auricle.runtime.bundle import open_bundle
from auricle.runtime.engine import EngineOptions, load
from auricle.runtime.system import optimized_graphs
from auricle.runtime.system.ort import OrtOptions, Session, open_session

Numbers = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
LOG_MEL = np.random.default_rng(0).standard_normal((1, 80, 200)).astype(np.float32)


@pytest.fixture(autouse=True)
def every_graph_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimized_graphs, "WORTH_KEEPING_BYTES", 1)


@pytest.fixture
def info() -> GraphInfo:
    return open_bundle(shipped_bundle()).manifest.graphs["whisper"]


@pytest.fixture
def graph(info: GraphInfo, tmp_path: Path) -> Path:
    return Path(shutil.copy(open_bundle(shipped_bundle()).path(info.file), tmp_path))


@pytest.fixture
def options(tmp_path: Path) -> OrtOptions:
    return OrtOptions("cpu", threads=1, engine_cache=tmp_path / "engines")


def opened(graph: Path, info: GraphInfo, options: OrtOptions) -> Session:
    return open_session(graph, info.inputs, info.outputs, options)


def numbers(graph: Path, info: GraphInfo, options: OrtOptions) -> Numbers:
    session = opened(graph, info, options)
    try:
        return session.run(log_mel=LOG_MEL).numpy()
    finally:
        session.close()


def kept(options: OrtOptions) -> dict[str, int]:
    """Files that are kept, and when each was written."""
    assert options.engine_cache is not None
    return {str(path): path.stat().st_mtime_ns for path in options.engine_cache.rglob("*.*") if path.is_file()}


def test_the_numbers_are_those_of_the_graph_and_it_is_made_once(
    graph: Path, info: GraphInfo, options: OrtOptions
) -> None:
    plain = numbers(graph, info, replace(options, keep_optimized=False))
    assert not kept(options)
    first = numbers(graph, info, options)
    made = kept(options)
    again = numbers(graph, info, options)
    assert np.array_equal(plain, first) and np.array_equal(plain, again)
    assert kept(options) == made and sorted(Path(path).name for path in made) == ["optimized.onnx", "weights.bin"]


@pytest.mark.parametrize("damage", ["cut", "emptied", "no weights"])
def test_a_damaged_copy_is_thrown_away(graph: Path, info: GraphInfo, options: OrtOptions, damage: str) -> None:
    plain = numbers(graph, info, options)
    weights = next(Path(path) for path in kept(options) if path.endswith("weights.bin"))
    if damage == "cut":
        os.truncate(weights, weights.stat().st_size // 2)
    elif damage == "emptied":
        weights.with_name("optimized.onnx").write_bytes(b"")
    else:
        weights.unlink()
    assert np.array_equal(numbers(graph, info, options), plain)
    assert not kept(options)
    assert np.array_equal(numbers(graph, info, options), plain)
    assert kept(options)


def test_another_graph_takes_the_place_of_the_old(graph: Path, info: GraphInfo, options: OrtOptions) -> None:
    numbers(graph, info, options)
    before = kept(options)
    os.utime(graph, ns=(1, 1))  # exported again
    numbers(graph, info, options)
    after = kept(options)
    assert len(after) == len(before) and not before.keys() & after.keys()


def test_what_a_killed_process_left_is_cleared_away(graph: Path, info: GraphInfo, options: OrtOptions) -> None:
    """And not what another is writing now."""
    left, written = ((options.engine_cache or graph) / f".whisper.x.{pid}" for pid in (1, 2))
    for folder in (left, written):
        folder.mkdir(parents=True)
    os.utime(left, (1, 1))
    numbers(graph, info, options)
    assert written.is_dir() and not left.exists()


def test_a_graph_that_cannot_be_kept_is_opened_all_the_same(
    graph: Path, info: GraphInfo, options: OrtOptions, tmp_path: Path
) -> None:
    plain = numbers(graph, info, replace(options, keep_optimized=False))
    (tmp_path / "engines").write_text("a file where the folder would be")
    assert np.array_equal(numbers(graph, info, options), plain)
    assert (tmp_path / "engines").read_text() == "a file where the folder would be"


def test_no_graph_is_named_and_leaves_nothing(graph: Path, info: GraphInfo, options: OrtOptions) -> None:
    graph.write_bytes(b"no graph")
    with pytest.raises(BundleError, match=r"whisper\.onnx cannot be opened"):
        opened(graph, info, options)
    assert not kept(options) and not any((options.engine_cache or graph).glob(".*"))


def test_a_bundle_keeps_its_graphs_where_it_can_be_written(tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(shipped_bundle(), tmp_path / "bundle"))
    clip = bundle / "clips" / "reminder.wav"
    with load(bundle, EngineOptions(OrtOptions(keep_optimized=False))) as engine:
        expected = engine.ask(clip, "asr").text
    assert not (bundle / "engines").exists()
    for _ in range(2):
        with load(bundle) as engine:
            assert engine.ask(clip, "asr").text == expected
    names = {path.name.split(".")[0] for path in (bundle / "engines").iterdir()}
    assert names == set(open_bundle(bundle).manifest.graphs)
