"""What stages counts, proves and prints: physics against hand and against real graphs, the proof of work, the table."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime
import pytest

pytest.importorskip("onnx")  # of the extra [bench]
from auricle.bench import flops
from auricle.bench.families import salmonn
from auricle.bench.families.salmonn import heard
from auricle.bench.machine import kernels, limits
from auricle.bench.machine.limits import Limits
from auricle.bench.result import Record, read_record, to_line
from auricle.bench.speed import stage_runner, stages
from auricle.bench.speed.stage_runner import Options
from auricle.models.bundle import read_manifest
from auricle.models.encoders.beats import BEATS_ITER3_PLUS
from auricle.models.encoders.fastconformer import CANARY_QWEN
from auricle.models.encoders.whisper import WHISPER_LARGE_V2
from auricle.models.errors import InputError, RunError
from auricle.models.families.salm import SalmSpec
from auricle.models.families.salmonn import SALMONN_7B, SALMONN_13B, SalmonnSpec
from auricle.models.llm import QWEN3_1_7B, VICUNA_7B_V15
from auricle.runtime import engine as engine_module
from auricle.runtime.bundle import open_bundle
from auricle.runtime.engine import load

FAST = Options(runs=1, warmup=0, seconds=2.0, n_new_tokens=3)
PRODUCTS = (
    "MatMul",
    "Gemm",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
    "FusedMatMul",
    "MatMulNBits",
)
LIMITS = Limits((100.0, 90.0), (400.0,), (20.0, 25.0))


def test_whisper_large_by_hand() -> None:
    work = flops.whisper(WHISPER_LARGE_V2)
    assert work.linear == pytest.approx(1.887e12, rel=1e-3)  # 2 x 1500 x 32 x (4 x 1280^2 + 2 x 1280 x 5120)
    assert work.attention == pytest.approx(0.3686e12, rel=1e-3)  # 4 x 1500^2 x 1280 x 32
    assert work.convolution == 2 * 3000 * 1280 * 240 + 2 * 1500 * 1280 * 3840
    assert work.weight_bytes == pytest.approx(4 * 634.5e6, rel=1e-2)
    assert flops.whisper(WHISPER_LARGE_V2, "int8").bytes == work.bytes / 4


def test_half_the_window_is_less_than_half_the_work() -> None:
    assert flops.whisper(WHISPER_LARGE_V2, n_positions=750).flop < flops.whisper(WHISPER_LARGE_V2).flop / 2


def test_beats_tokens_follow_the_clip() -> None:
    assert flops.beats_tokens(BEATS_ITER3_PLUS, 30.0) == 1496
    assert flops.beats_tokens(BEATS_ITER3_PLUS, 0.2) == flops.beats_tokens(BEATS_ITER3_PLUS, 1.0) == 48
    assert flops.beats(BEATS_ITER3_PLUS).weight_bytes == pytest.approx(4 * 90e6, rel=0.02)


def test_decoding_reads_every_weight_once() -> None:
    spec = VICUNA_7B_V15
    read = spec.n_params - spec.vocab * spec.hidden  # one row of the embedding
    work = flops.decode(spec, "f16", 0)
    assert work.weight_bytes == pytest.approx(2 * read, rel=1e-4)
    assert work.linear == pytest.approx(2 * read, rel=1e-4)
    later = flops.decode(spec, "f16", 100)
    assert later.kv_bytes - work.kv_bytes == 100 * spec.kv_bytes(1)


def test_a_draft_reads_the_weights_as_often_as_no_answer_at_all() -> None:
    drafted = flops.update(SALMONN_7B.llm, "q4_k_m", (6, 88, 20), 20, drafted=True)
    alone = flops.update(SALMONN_7B.llm, "q4_k_m", (6, 88, 20), 20, drafted=False)
    question = flops.prefill(SALMONN_7B.llm, "q4_k_m", 6, 88, 20)
    assert drafted.weight_bytes == question.weight_bytes
    assert alone.weight_bytes == pytest.approx(21 * drafted.weight_bytes / 2, rel=0.02)
    assert drafted.flop == pytest.approx(alone.flop, rel=0.01)


def test_a_long_prompt_reads_the_weights_once_per_micro_batch() -> None:
    one, two = (flops.forward(VICUNA_7B_V15, "q8_0", n, 0, 1).weight_bytes for n in (512, 513))
    assert two == 2 * one


def test_13b_is_twice_7b() -> None:
    ratio = flops.decode(SALMONN_13B.llm, "q4_k_m", 120).bytes / flops.decode(SALMONN_7B.llm, "q4_k_m", 120).bytes
    assert 1.9 < ratio < 2.0


def counted(path: Path, feeds: dict[str, Any], folder: Path) -> float:
    """FLOP of a graph's products and convolutions, by the shapes that onnxruntime really saw.

    Without its optimizer, so that none hides in an operator that it fused.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / path.stem)
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    session.run(None, feeds)
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    total = 0.0
    for event in events:
        arguments = event.get("args", {})
        if "output_type_shape" not in arguments:
            continue
        (first, second, *_), out = shapes(arguments["input_type_shape"]), shapes(arguments["output_type_shape"])[0]
        if arguments["op_name"] in PRODUCTS:
            total += 2.0 * np.prod(out) * first[-1]
        elif arguments["op_name"] == "MultiHeadAttention":  # scores and mixing: every position meets every other
            total += 4.0 * first[1] * second[1] * first[2]
        elif arguments["op_name"] == "Conv":
            total += 2.0 * np.prod(out) * np.prod(second[1:])
    return total


def shapes(found: Iterable[dict[str, list[int]]]) -> list[list[int]]:
    return [*(next(iter(shape.values())) for shape in found), [1], [1]]


def check_counted(found: float, work: flops.Work, rel: float = 1e-6) -> None:
    assert found == pytest.approx(work.flop, rel=rel)


def test_formulas_count_what_the_golden_graphs_do(
    graphs: dict[str, Path], features: dict[str, dict[str, Any]], parts: Any, tmp_path: Path
) -> None:
    whisper, beats, qformer = parts.whisper_spec, parts.beats_spec, parts.qformer.spec
    works = {
        "whisper": flops.whisper(whisper),
        "beats": flops.beats(beats, seconds=11.0),
        "qformer": flops.qformer(qformer, whisper.n_positions),
    }
    for name, work in works.items():
        check_counted(counted(graphs[name], features[name], tmp_path), work)


def test_formulas_count_what_the_golden_salm_does(salm_bundle: Path, tmp_path: Path) -> None:
    """11 s are 1100 frames; the last distance, n behind, is there so that a product stands upright."""
    spec = cast(SalmSpec, read_manifest(salm_bundle).spec).fastconformer
    feeds = {"features": np.random.default_rng(0).standard_normal((1, spec.n_mels, 1100), np.float32)}
    work = flops.fastconformer(spec, "fp32", 11.0)
    check_counted(counted(salm_bundle / "fastconformer.onnx", feeds, tmp_path), work)
    assert flops.fastconformer(spec, "int8", 11.0).bytes == work.bytes / 4


def test_canary_qwen_by_hand() -> None:
    """30 s: 375 tokens. 0.78 billion weights in the encoder, 1.7 in the language model, whose head is its embedding."""
    assert flops.fastconformer_tokens(30.0) == 375
    assert flops.fastconformer_params(CANARY_QWEN) == pytest.approx(0.778e9, rel=1e-3)
    work = flops.fastconformer(CANARY_QWEN, "fp32", 30.0)
    assert work.attention == 8 * 375**2 * 1024 * 32
    assert work.linear == pytest.approx(2 * 375 * 0.778e9 + 2 * 256**2 * (750 * 32 + 375 * 16), rel=0.01)
    assert work.convolution == 2 * (9 * 256 * (1500 * 64 + 750 * 32 + 375 * 16) + 375 * 32 * 9 * 1024)
    decode = flops.decode(QWEN3_1_7B, "q8_0", 0)
    assert decode.weight_bytes == pytest.approx(QWEN3_1_7B.weight_bytes("q8_0"), rel=1e-3)


def test_formulas_count_what_the_demo_does(demo: Record, tmp_path: Path) -> None:
    """Its graphs are int8, and of other sizes; centring keys and values adds half a thousandth."""
    bundle = open_bundle()
    spec = cast(SalmonnSpec, bundle.manifest.spec)
    rng = np.random.default_rng(0)

    def noise(*shape: int) -> Any:
        return rng.standard_normal((1, *shape), np.float32)

    n = spec.whisper.n_positions
    mel, bank = noise(spec.whisper.n_mels, spec.whisper.n_frames), noise(998, 128)
    check_counted(counted(bundle.path("whisper.onnx"), {"log_mel": mel}, tmp_path), flops.whisper(spec.whisper), 1e-3)
    found = counted(bundle.path("beats.onnx"), {"fbank": bank}, tmp_path)
    check_counted(found, flops.beats(spec.beats, seconds=10.0))
    feeds = {"speech": noise(n, spec.whisper.d_model), "audio": noise(496, spec.beats.d_model)}
    check_counted(counted(bundle.path("qformer.onnx"), feeds, tmp_path), flops.qformer(spec.qformer, n))


@pytest.fixture(scope="module")
def demo() -> Record:
    """The shipped bundle, measured once and as fast as can be, on a machine whose limits are given."""
    patched = pytest.MonkeyPatch()
    patched.setattr(limits, "measure", lambda *_, **__: LIMITS)
    told: list[tuple[str, int, int]] = []
    record = stages.measure(None, FAST, lambda *what: told.append(what))
    patched.undo()
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert told[-1][1] == told[-1][2]
    return record


def test_every_stage_is_in_the_record(demo: Record) -> None:
    expected = ("log_mel", "fbank", "whisper", "beats", "qformer", "hear", "prefill", "decode")
    assert demo.groups[:8] == expected
    assert {"live update", "open", "memory", "machine", "whisper kernels"} <= set(demo.groups)
    for group in expected:
        for name in ("wall", "cpu", "rate", "share", "flop", "bytes", "tokens"):
            found = demo.find(group, name)
            assert found is not None and all(sample >= 0 for sample in found.samples)


def test_rates_are_work_over_time_against_the_best_of_the_limits(demo: Record) -> None:
    spec = cast(SalmonnSpec, open_bundle().manifest.spec)
    wall, rate, share = (demo.find("whisper", name) for name in ("wall", "rate", "share"))
    assert wall and rate and share
    work = flops.whisper(spec.whisper, n_positions=heard(spec, FAST.seconds))
    assert rate.value == pytest.approx(work.flop / wall.value / 1e9)
    assert share.value == pytest.approx(100 * rate.value / 400)  # int8
    decode, share = demo.find("decode", "rate"), demo.find("decode", "share")
    assert decode and share and share.value == pytest.approx(100 * decode.value / 25)
    assert len(decode.samples) == FAST.n_new_tokens


def test_counts_prove_the_work(demo: Record) -> None:
    tokens = {group: found.value for group in demo.groups if (found := demo.find(group, "tokens"))}
    spec = cast(SalmonnSpec, open_bundle().manifest.spec)
    n = heard(spec, FAST.seconds)
    assert (tokens["whisper"], tokens["beats"], tokens["qformer"]) == (n, 96, spec.qformer.n_windows(n))
    accepted = demo.find("live update", "accepted")
    assert accepted and accepted.value == stage_runner.HYPOTHESIS - 1
    assert any(note.startswith("whisper ran ") for note in demo.notes)


@pytest.mark.parametrize(("hears", "n_frames"), [("window", 500), ("clip", 100)])
def test_whisper_is_timed_on_what_the_model_hears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hears: str, n_frames: int
) -> None:
    """2 s in a window of 10 s."""
    bundle = Path(shutil.copytree(open_bundle().directory, tmp_path / "bundle"))
    document = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    document["spec"]["hears"] = hears
    (bundle / "manifest.json").write_text(json.dumps(document), encoding="utf-8")
    monkeypatch.setattr(limits, "measure", lambda *_, **__: LIMITS)
    record = stages.measure(bundle, FAST)
    spec = cast(SalmonnSpec, read_manifest(bundle).spec)
    n = max(n_frames, heard(spec, FAST.seconds))  # in whole windows
    tokens = {group: found.value for group in record.groups if (found := record.find(group, "tokens"))}
    assert n - n_frames < spec.qformer.window
    assert (tokens["log_mel"], tokens["whisper"], tokens["hear"]) == (2 * n, n, spec.qformer.n_windows(n))


def test_every_stage_of_the_other_family(salm_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "measure", lambda *_, **__: LIMITS)
    record = stages.measure(salm_bundle, FAST)
    assert record.subjects[0].family == "salm"
    assert record.groups[:5] == ("features", "fastconformer", "hear", "prefill", "decode")
    tokens = {group: found.value for group in record.groups if (found := record.find(group, "tokens"))}
    assert (tokens["features"], tokens["fastconformer"], tokens["hear"]) == (200, 25, 25)
    accepted, rate = record.find("live update", "accepted"), record.find("features", "share")
    assert accepted and accepted.value == stage_runner.HYPOTHESIS - 1
    assert rate and rate.value > 0
    kept, settled = record.find("live update", "kept"), record.find("live update", "settled")
    assert kept and kept.value == 12 and settled and settled.value > 0  # of 2 s the first one
    assert any("12 audio tokens kept" in line for line in stages.lines(record))
    assert any(note.startswith("fastconformer ran ") for note in record.notes)
    rows = {line.split()[0]: line for line in stages.lines(record)[2:7]}
    assert rows["features"].endswith("fp32") and rows["decode"].endswith("read")


def test_the_table_is_made_from_a_stored_record(demo: Record, tmp_path: Path) -> None:
    stored = tmp_path / "run.txt"
    stored.write_text("a table\n" + to_line(demo) + "\n", encoding="utf-8")
    table = stages.lines(read_record(stored))
    assert table == stages.lines(read_record(stored))
    rows = {line.split()[0]: line for line in table[2:10]}
    assert "GB/s" in rows["decode"] and "read" in rows["decode"]
    assert "GFLOP/s" in rows["whisper"] and rows["whisper"].endswith("int8")
    assert rows["fbank"].endswith("fp32")


def test_the_answer_of_the_engine_is_as_before(demo: Record) -> None:
    """Endless answers were for measuring only."""
    assert demo.subjects[0].family == "salmonn"
    with load() as engine:
        heard = engine.encode(stage_runner.synthetic_clip(7, 3.0))
        engine.llm.prefill(heard.audio_tokens, "Recognize the speech and give me the transcription.")
        answer = list(engine.llm.generate())
    expected = open_bundle().manifest.self_check
    assert expected and tuple(answer) == expected.token_ids


def test_a_stage_of_the_wrong_shape_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "measure", lambda *_, **__: LIMITS)
    honest = salmonn.log_mel
    monkeypatch.setattr(salmonn, "log_mel", lambda *arguments: honest(*arguments)[:, :, :-2])
    n = 2 * heard(cast(SalmonnSpec, open_bundle().manifest.spec), FAST.seconds)
    with pytest.raises(RunError, match=rf"log_mel has shape \[1, 80, {n - 2}\] where \[1, 80, {n}\] follows"):
        stages.measure(None, FAST)


def test_a_stage_that_skips_its_work_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "measure", lambda *_, **__: LIMITS)
    monkeypatch.setattr(engine_module.Llm, "generate", lambda *_: iter([5, 6]))
    with pytest.raises(RunError, match="new tokens: 1 instead of 3"):
        stages.measure(None, FAST)


def test_a_task_that_cannot_be_asked_is_told_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in every command, what is no task's name is a prompt of its own."""
    monkeypatch.setattr(limits, "measure", None)
    with pytest.raises(InputError, match="has a blank to fill"):
        stages.measure(None, Options(prompt="slot_filling"))


def test_values_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(RunError, match="no numbers"):
        stage_runner.require("speech", np.full((1, 2), np.nan, np.float32), (1, 2))


def test_an_int8_graph_that_computes_in_float_is_called_out(graphs: dict[str, Path], features: Any) -> None:
    plain = kernels.profile(graphs["qformer"], features["qformer"], "cpu", 1)
    assert plain.integer == 0 and sum(plain.calls.values()) > 10
    assert [note for note in stages.kernel_notes({"qformer": plain}, "int8") if "NO INTEGER KERNEL" in note]
    assert "the bundle calls int4" in stages.kernel_notes({"qformer": plain}, "int4")[-1]
    assert not [note for note in stages.kernel_notes({"qformer": plain}, "fp32") if "NO INTEGER KERNEL" in note]


def test_the_demo_multiplies_integers(demo: Record) -> None:
    assert not [note for note in demo.notes if "NO INTEGER KERNEL" in note]
    for graph in ("whisper", "beats", "qformer"):
        assert kernels.INTEGER & {m.name for m in demo.measures if m.group == f"{graph} kernels"}


def test_only_the_last_run_of_a_profile_counts() -> None:
    def event(ts: int, dur: int, name: str) -> dict[str, Any]:
        return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "args": {"op_name": name}}

    runs = [{"cat": "Session", "name": "model_run", "ts": ts} for ts in (0, 100)]
    found = kernels.count([*runs, event(1, 90, "Slow"), event(101, 30, "MatMulInteger"), event(140, 10, "Add")])
    assert found.calls == {"Add": 1, "MatMulInteger": 1}
    assert (found.integer, found.sentence()) == (0.75, "MatMulInteger 75%, Add 25%")


@pytest.mark.parametrize("wrong", [{"runs": 0}, {"warmup": -1}, {"n_new_tokens": 0}, {"seconds": 0.0}])
def test_impossible_options(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        replace(FAST, **wrong)


def test_the_command(demo: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(stages, "measure", lambda *arguments: asked.extend(arguments) or demo)
    words = {"runs": 2, "warmup": 1, "seconds": 5.0, "new_tokens": 8, "prompt": "asr", "threads": 3}
    device = {"provider": "cpu", "n_gpu_layers": 0, "kv_type": "f16", "repack": None}
    assert stages.run(argparse.Namespace(bundle=None, **words, **device)) is demo
    bundle, options, progress = asked
    assert (bundle, progress) == (None, None)
    assert (options.runs, options.n_new_tokens) == (2, 8)
    assert (options.engine.ort.threads, options.engine.llm.n_threads) == (3, 3)


def test_limits_are_measured_and_stored() -> None:
    found = limits.measure(1, 1, n=2, read_bytes=1 << 24)
    assert all(len(samples) >= 2 for samples in (found.fp32_gflops, found.int8_gops, found.read_gb_s))
    assert found.read > 0.1 and found.product("fp32") > 0.5 and found.product("fp16") == found.product("fp32")
    assert {m.name: m.samples for m in found.measures() if m.group == limits.GROUP} == {
        "fp32": found.fp32_gflops,
        "int8": found.int8_gops,
        "read": found.read_gb_s,
    }


def test_limits_of_two_times() -> None:
    both = limits.together(LIMITS, Limits((120.0,), (300.0,), (10.0,)))
    assert (both.product("fp32"), both.product("int8"), both.read) == (120.0, 400.0, 25.0)


def test_limits_without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(limits, "_products", full)
    with pytest.raises(RunError, match="no memory"):
        limits.measure(1, 1, n=1)
