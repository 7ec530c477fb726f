"""What fit says: sizes, memory, the split with a GPU, expected times from each source, the table, faults."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

pytest.importorskip("onnx")  # of the extra [bench]
from auricle.bench import flops
from auricle.bench.families import salm
from auricle.bench.machine import limits, probe_encoders, probe_llm
from auricle.bench.machine.limits import Limits
from auricle.bench.machine.probe_llm import LlmRates
from auricle.bench.result import Measure, Record, Subject, make_record, read_record, to_line
from auricle.bench.speed import fit, forecast
from auricle.bench.speed.fit import Options
from auricle.bench.speed.forecast import Forecast
from auricle.bench.speed.stages import Place
from auricle.models.encoders.fastconformer import FastConformerSpec
from auricle.models.errors import InputError, RunError
from auricle.models.families.salm import SALM
from auricle.models.families.salmonn import SALMONN_7B, SALMONN_13B, SalmonnSpec
from auricle.models.llm import LLM_TYPES, LlmSpec
from auricle.models.precision import PRECISIONS
from auricle.runtime.bundle import open_bundle
from auricle.runtime.llm.llama import Model

LIMITS = Limits((200.0,), (800.0,), (25.0,))
PLACE = Place("cpu", False, 2, 1, -1)
FAST = {"log_mel": 0.001, "fbank": 0.001, "whisper": 0.1, "beats": 0.05, "qformer": 0.01}
HEARS = {
    "fp32": FAST | {"whisper": 1.0},
    "fp16": FAST | {"whisper": 1.0},
    "int8": FAST,
    "int4": FAST | {"whisper": 0.22},
}


def rates_for(types: Sequence[str], speed: float = 1.0) -> dict[str, LlmRates]:
    return {name: LlmRates(20.0 * speed, 10_000.0 * speed, 10_000.0 * speed) for name in types}


QUICK = Forecast("probe", 88, HEARS, rates_for(list(LLM_TYPES)), {})


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [("8GB", 8e9), ("6GiB", 6 * 2**30), ("512MB", 512e6), ("1.5 GB", 1.5e9), ("100B", 100), ("2TiB", 2 * 2**40)],
)
def test_sizes(text: str, n_bytes: float) -> None:
    assert fit.parse_size("memory", text) == n_bytes


@pytest.mark.parametrize("text", ["8", "GB", "8gb", "-8GB", "8 G B", "1e9B", "0GB", "8GBs", "", "8,5GB", "inf GB"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="write a number and a unit, for example 8GB"):
        fit.parse_size("memory", text)


def test_memory_is_what_the_parts_need() -> None:
    parts = fit.memory(SALMONN_7B, "q4_k_m", "int8", 512, 30.0)
    assert parts["weights"] == pytest.approx(4.08e9, rel=0.01)  # the file that llama.cpp's mixture makes
    assert parts["kv"] == 512 * 524_288
    assert parts["encoders"] == pytest.approx(0.74e9, rel=0.03)  # 635 + 90 + 18 million weights
    full = fit.memory(SALMONN_7B, "q4_k_m", "fp32", 512, 30.0)
    small = fit.memory(SALMONN_7B, "q4_k_m", "int4", 512, 30.0)
    assert small["encoders"] == pytest.approx(0.64 * parts["encoders"], rel=0.01)
    assert full["encoders"] == 4 * parts["encoders"] and small["work"] == parts["work"]
    assert full["work"] - parts["work"] == pytest.approx(11 * 3 * 4 * 1496**2, rel=0.01)  # BEATs' other heads


def test_what_is_too_large_does_not_fit() -> None:
    rows = fit.make_rows(Options("salmonn-7b", 8e9), SALMONN_7B, QUICK)
    assert len(rows) == len(LLM_TYPES) * len(PRECISIONS)
    fits = {(row.llm, row.encoders) for row in rows if row.fits}
    assert ("q4_k_m", "int8") in fits and ("q8_0", "int8") not in fits and ("f16", "int8") not in fits
    assert not [row for row in fit.make_rows(Options("salmonn-13b", 8e9), SALMONN_13B, QUICK) if row.fits]


def test_a_gpu_takes_layers_until_it_is_full() -> None:
    alone, with_gpu = (
        {(row.llm, row.encoders): row for row in fit.make_rows(Options("salmonn-13b", 8e9, gpu), SALMONN_13B, QUICK)}
        for gpu in (0.0, 6e9)
    )
    some = with_gpu["q4_k_m", "int8"]
    assert 0 < some.gpu_layers < 40 and some.fits and not alone["q4_k_m", "int8"].fits
    layer = (alone["q4_k_m", "int8"].memory_bytes - some.memory_bytes) / some.gpu_layers
    assert layer * some.gpu_layers <= 6e9 - fit.GPU_WORK_BYTES < layer * (some.gpu_layers + 1)
    everything = fit.make_rows(Options("salmonn-13b", 8e9, 80e9), SALMONN_13B, QUICK)
    assert all(row.gpu_layers == 40 for row in everything if row.llm != "f32")
    assert min(row.memory_bytes for row in everything) < 2.5e9


@pytest.mark.parametrize(("kv_type", "n_bytes"), [("f32", 4.0), ("f16", 2.0), ("q8_0", 34 / 32), ("q4_0", 18 / 32)])
def test_the_cache_counts_by_its_type(kv_type: str, n_bytes: float) -> None:
    """2 x 40 layers x 5120 values a position; all else is as with f16."""
    parts, usual = (fit.memory(SALMONN_13B, "q4_k_m", "int8", 2048, 30.0, name) for name in (kv_type, "f16"))
    assert parts["kv"] == 2 * 40 * 5120 * 2048 * n_bytes
    assert parts == usual | {"kv": parts["kv"]}
    asked = Options("salmonn-13b", 16e9, n_ctx=2048)
    rows, others = (fit.make_rows(each, SALMONN_13B, QUICK) for each in (asked, replace(asked, kv_type=kv_type)))
    for row, other in zip(rows, others, strict=True):
        assert row.memory_bytes - other.memory_bytes == usual["kv"] - parts["kv"] and row.times == other.times


def test_a_smaller_cache_leaves_room_for_layers_on_a_small_card() -> None:
    asked = Options("salmonn-13b", 16e9, 7e9, n_ctx=2048)

    def layers(kv_type: str) -> list[int]:
        rows = fit.make_rows(replace(asked, kv_type=kv_type), SALMONN_13B, QUICK)
        return [row.gpu_layers for row in rows if row.llm == "q4_k_m"]

    f16, q8_0, q4_0 = (set(layers(kv_type)) for kv_type in ("f16", "q8_0", "q4_0"))
    weights, cache = SALMONN_13B.llm.weight_bytes("q4_k_m"), 2 * 40 * 5120 * 2048
    assert f16 == {int(6.4e9 / ((weights + 2 * cache) / 41))}
    assert q8_0 == {int(6.4e9 / ((weights + 34 / 32 * cache) / 41))}
    assert max(f16) < min(q8_0) < min(q4_0) < 40


def test_times_are_work_over_rates() -> None:
    times = forecast.times(QUICK, SALMONN_7B, "int8", "q4_k_m", n_new=20)
    assert times
    token = flops.decode(SALMONN_7B.llm, "q4_k_m", 8 + 88 + 21 + 10)
    assert times.decode == pytest.approx(token.bytes / 20e9)
    assert times.first_token == pytest.approx(0.162 + times.prefill)
    assert times.no_draft == pytest.approx(times.prefill + 19 * times.decode)
    assert times.prefill < times.draft < times.no_draft
    assert forecast.times(replace(QUICK, llm={}), SALMONN_7B, "int8", "q4_k_m") is None


def test_layers_on_a_gpu_take_its_time_or_none() -> None:
    def decode(share: float, offloaded: dict[str, LlmRates]) -> float:
        found = forecast.times(replace(QUICK, offloaded=offloaded), SALMONN_7B, "int8", "q8_0", gpu_share=share)
        assert found
        return found.decode

    here = decode(0.0, {})
    assert decode(0.5, {}) == pytest.approx(here / 2)
    assert decode(0.5, rates_for(["q8_0"], 4.0)) == pytest.approx(here * (0.5 + 0.125))
    assert decode(1.0, rates_for(["q8_0"], 4.0)) == pytest.approx(here / 4)


def test_best_is_the_most_precise_that_keeps_up() -> None:
    rows = fit.make_rows(Options("salmonn-7b", 64e9), SALMONN_7B, QUICK)
    chosen = fit.best(rows, 30.0)
    assert chosen and (chosen.llm, chosen.encoders) == ("f32", "int8")  # fp32 encoders are too slow for a hop
    slow = replace(QUICK, encoders={name: found | {"whisper": 9.0} for name, found in HEARS.items()})
    rows = fit.make_rows(Options("salmonn-7b", 64e9), SALMONN_7B, slow)
    chosen = fit.best(rows, 30.0)
    assert chosen and not chosen.live() and (chosen.llm, chosen.encoders) == ("f16", "fp32")
    assert fit.best(fit.make_rows(Options("salmonn-7b", 1e9), SALMONN_7B, QUICK), 30.0) is None


def stages_record(off: float = 1.0, name: str = "seven", model: Any = SALMONN_7B) -> Record:
    """As `stages` would write it of a machine that is `off` times slower than expected."""
    times = forecast.times(QUICK, model, "int8", "q4_k_m", n_new=20)
    assert times
    found = forecast.forecast(times)
    measures = [Measure(stage, "wall", "s", (off * value,)) for stage, value in found.items() if "update" not in stage]
    measures += [Measure("live update", way, "s", (off * found[f"update, {way}"],)) for way in ("draft", "no draft")]
    measures += [
        Measure("whisper", "flop", "FLOP", (flops.whisper(model.whisper).flop,)),
        Measure("decode", "bytes", "B", (flops.decode(model.llm, "q4_k_m", 140).bytes,)),
        Measure("prefill", "tokens", "", (88 + 21.0,)),
        Measure("live update", "drafted", "", (19.0,)),
        *(Measure(stage, "share", "%", (50.0,)) for stage in ("whisper", "beats", "qformer", "prefill", "decode")),
    ]
    settings = {"encoders' limit": "int8", "prefill's limit": "int8"}
    subject = Subject(name, "salmonn", True, "int8", "q4_k_m", 5.0)
    return make_record("stages", [subject], settings, measures)


def stored(record: Record, folder: Path) -> Path:
    path = folder / "record.txt"
    path.write_text("table\n" + to_line(record) + "\n", encoding="utf-8")
    return path


def test_the_same_model_is_known_by_its_work(tmp_path: Path) -> None:
    record = read_record(stored(stages_record(), tmp_path))
    assert forecast.same_shape(record, SALMONN_7B) and not forecast.same_shape(record, SALMONN_13B)
    assert not forecast.same_shape(record, open_bundle().manifest.spec)


def test_expected_and_measured_stand_side_by_side() -> None:
    measures, sentence = fit.compare(QUICK, SALMONN_7B, stages_record(1.2))
    errors = {m.group: m.value for m in measures if m.name == "error"}
    assert len(errors) == 10 and all(error == pytest.approx(-100 / 6) for error in errors.values())
    assert "10 of 10" in sentence
    assert "0 of 10" in fit.compare(QUICK, SALMONN_7B, stages_record(2.0))[1]


def test_a_record_of_int4_says_nothing_about_int8() -> None:
    made = stages_record()
    made = replace(made, subjects=(replace(made.subjects[0], encoders="int4"),))
    shares = forecast.shares_of(made)
    assert (shares["whisper int4"], shares["whisper"]) == (0.5, forecast.SHARES["whisper"])
    ahead = forecast.by_shares(SALMONN_7B, 30.0, LIMITS, forecast.SHARES, PLACE, "usual")
    ratio = ahead.encoders["int4"]["whisper"] / ahead.encoders["int8"]["whisper"]
    assert ratio == pytest.approx(forecast.SHARES["whisper"] / forecast.SHARES["whisper int4"])


def test_shares_of_another_model_are_used() -> None:
    shares = forecast.shares_of(stages_record())
    assert shares["whisper"] == shares["decode"] == shares["draft"] == 0.5
    ahead = forecast.by_shares(SALMONN_13B, 30.0, LIMITS, shares, PLACE, "seven")
    expected = flops.whisper(SALMONN_13B.whisper).flop / (0.5 * 800e9)
    assert ahead.encoders["int8"]["whisper"] == pytest.approx(expected)
    assert ahead.encoders["fp16"] == ahead.encoders["fp32"]
    times = forecast.times(ahead, SALMONN_13B, "int8", "q4_k_m")
    assert times and 1 / times.decode == pytest.approx(12.5e9 / 7.9e9, rel=0.05)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "measure", lambda *_, **__: LIMITS)
    monkeypatch.setattr(Place, "of", staticmethod(lambda *_: PLACE))  # pyright: ignore[reportUnknownLambdaType]


@pytest.mark.usefixtures("machine")
def test_the_forecast_of_the_demo_without_a_probe(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    record = fit.measure(Options("demo", 2e9, probe=False), lambda _, done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1]
    again = read_record(stored(record, tmp_path))
    table = fit.lines(again)
    assert len([line for line in table if line.startswith(tuple(LLM_TYPES))]) == 4 * len(LLM_TYPES)
    assert len([line for line in table if line.endswith("<- best")]) == 1
    assert "usual shares" in again.settings["source"]


@pytest.mark.usefixtures("machine")
def test_what_does_not_fit_is_said() -> None:
    record = fit.measure(Options("salmonn-13b", 8e9, probe=False))
    assert any(note.startswith("nothing fits") for note in record.notes)
    record = fit.measure(Options("salmonn-13b", 8e9, 6e9, probe=False))
    assert any("no GPU was found here" in note for note in record.notes)


@pytest.mark.usefixtures("machine")
def test_what_would_fit_with_a_smaller_cache_is_said() -> None:
    asked = Options("salmonn-13b", 11e9, n_ctx=2048, probe=False)
    record = fit.measure(asked)
    said = [note for note in record.notes if "--kv-type" in note]
    assert [note.split()[2] for note in said] == ["q8_0", "q4_0"]
    assert said[0].startswith("with --kv-type q8_0 more fits: ") and "--llm q4_k_m --encoders int8" in said[0]
    smaller = fit.measure(replace(asked, kv_type="q8_0"))
    for group in record.groups:
        fits, then = (each.find(group, "fits") for each in (record, smaller))
        if fits and then:
            llm, encoders = group.split()
            assert then.value - fits.value == (f"--llm {llm} --encoders {encoders}" in said[0])
    assert "2048 positions of f16" in fit.lines(record)[0] and "2048 positions of q8_0" in fit.lines(smaller)[0]
    assert "expected times are those of a key-value cache of f16" in smaller.notes
    assert not any("q8_0 more" in note for note in smaller.notes)
    plenty = fit.measure(Options("demo", 8e9, probe=False))
    assert not any("--kv-type" in note for note in plenty.notes)


@pytest.mark.usefixtures("machine")
def test_more_of_the_best_on_a_small_card_is_said() -> None:
    notes = fit.measure(Options("salmonn-7b", 16e9, 6e9, n_ctx=4096, probe=False)).notes
    said = [note for note in notes if "layers of the best" in note]
    assert said and said[0].startswith("with --kv-type q8_0 the GPU holds ")


@pytest.mark.usefixtures("machine")
def test_a_record_of_the_same_model_is_compared_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probed: list[Any] = []

    def by_probe(*arguments: Any) -> Forecast:
        probed.append(arguments)
        return QUICK

    monkeypatch.setattr(fit, "by_probe", by_probe)
    path = stored(stages_record(1.25), tmp_path)
    record = fit.measure(Options("salmonn-7b", 1e9, stages=path))  # fits nowhere, and is looked at all the same
    assert probed[0][2] == ["int8"] and probed[0][3] == ["q4_k_m"]
    assert any(line.startswith("whisper") and line.endswith("-20%") for line in fit.lines(record))
    other = fit.measure(Options("salmonn-13b", 80e9, stages=path))
    assert len(probed) == 1 and other.settings["source"] == "shares of seven"


def test_a_record_of_something_else_is_refused(tmp_path: Path) -> None:
    path = stored(make_record("live", [], {}, []), tmp_path)
    with pytest.raises(InputError, match="a record of live"):
        fit.measure(Options("demo", 2e9, stages=path))


@pytest.mark.parametrize(
    "wrong", [{"model": "llama"}, {"seconds": 0.5}, {"n_new_tokens": 0}, {"n_ctx": 0}, {"kv_type": "q5_0"}]
)
def test_impossible_options(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=str(next(iter(wrong.values())))):
        replace(Options("demo", 1e9), **wrong)


def test_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(fit, "measure", lambda *arguments: asked.extend(arguments))
    fit.run(
        argparse.Namespace(
            **{"model": "demo", "memory": "8GB", "gpu": None, "seconds": 30.0, "new_tokens": 20, "n_ctx": None},
            **{"kv_type": "q8_0", "threads": 1, "stages": None, "probe": False, "device": None},
        )
    )
    assert asked[0] == Options("demo", 8e9, kv_type="q8_0", threads=1, probe=False) and asked[1] is None


def probed(path: Path, spec: LlmSpec, quantization: str) -> tuple[np.ndarray, tuple[int, ...]]:
    """A probe's logits, and its sizes as llama.cpp read them."""
    probe_llm.write_zeros(path, spec, quantization)
    model = Model(path, 0)
    context = model.context(64, 1, 1)
    logits = context.decode_ids([3, 4], range(2), [0, 0], [1])
    context.close()
    sizes = model.hidden, model.n_layers, model.n_heads, model.vocab
    model.close()
    return logits, sizes


@pytest.mark.parametrize("quantization", list(LLM_TYPES))
def test_llama_opens_the_probe_of_every_type(quantization: str, tmp_path: Path) -> None:
    spec = replace(open_bundle().manifest.spec.llm, n_layers=2)
    path = tmp_path / "probe.gguf"
    logits, sizes = probed(path, spec, quantization)
    assert logits.shape == (1, spec.vocab) and np.isfinite(logits).all()
    assert sizes == (spec.hidden, 2, spec.n_heads, spec.vocab)
    vocabulary = 40 * spec.vocab
    assert (
        0 < path.stat().st_size - 0.95 * spec.weight_bytes(quantization) < 0.35 * spec.weight_bytes("q8_0") + vocabulary
    )


@pytest.mark.parametrize("quantization", ["f16", "q4_k_m"])
def test_llama_opens_the_probe_of_a_qwen(quantization: str, tmp_path: Path) -> None:
    """Heads wider than hidden / n_heads, norms in attention, a head that is the embedding."""
    spec = replace(SALM.llm, hidden=256, n_layers=2, n_heads=4, n_kv_heads=2, d_ffn=512, vocab=600)
    path = tmp_path / "probe.gguf"
    logits, sizes = probed(path, spec, quantization)
    assert logits.shape == (1, 600) and np.isfinite(logits).all() and sizes == (256, 2, 4, 600)


def test_the_probe_of_a_language_model_counts_what_it_did() -> None:
    ticks: list[int] = []
    spec = open_bundle().manifest.spec.llm
    found = probe_llm.rates(spec, "q8_0", 1, 0, (8, 29, 21), 19, lambda: ticks.append(1))
    assert found.decode_gb_s > 0 and found.prefill_gflops > 0 and found.draft_gflops > 0 and ticks == [1]


def test_a_probe_has_two_layers_of_the_mixture_and_no_more_than_the_model() -> None:
    assert probe_llm.n_layers_for(SALMONN_7B.llm, "q4_k_m") == 2
    assert probe_llm.n_layers_for(SALMONN_13B.llm, "f32") == 1
    assert probe_llm.n_layers_for(open_bundle().manifest.spec.llm, "q8_0") == 4


def test_a_probe_without_room_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="set TMPDIR"):
        probe_llm.write_zeros(tmp_path / "gone" / "probe.gguf", open_bundle().manifest.spec.llm, "f16")


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_the_encoders_probe_does_the_work_of_its_layers(precision: str, tmp_path: Path) -> None:
    """Counted as in test_bench_stages, by the shapes that onnxruntime saw."""
    from test_bench_stages import counted

    spec = cast(SalmonnSpec, open_bundle().manifest.spec)
    path = tmp_path / "probe.onnx"
    rng = np.random.default_rng(0)
    path.write_bytes(probe_encoders.whisper_graph(spec.whisper, 3, precision).SerializeToString())
    found = counted(path, {"mel": rng.standard_normal((1, 80, 1000), np.float32)}, tmp_path)
    assert found == pytest.approx(flops.whisper(replace(spec.whisper, n_layers=3)).flop, rel=1e-6)
    path.write_bytes(probe_encoders.beats_graph(spec.beats, 992, 2, precision).SerializeToString())
    feeds = {"bank": rng.standard_normal((1, 1, 992, 128), np.float32), "index": np.arange(496)}
    expected = flops.beats(replace(spec.beats, n_layers=2), seconds=10.0).flop
    assert counted(path, feeds, tmp_path) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_the_fastconformers_probe_does_the_work_of_its_layers(precision: str, tmp_path: Path) -> None:
    """Without adapter and projection."""
    from test_bench_stages import counted

    spec = FastConformerSpec(32, 2, 4, 64, 5, 16, d_llm=16, n_mels=24)
    path = tmp_path / "probe.onnx"
    path.write_bytes(probe_encoders.fastconformer_graph(spec, 203, 2, precision).SerializeToString())
    feeds = {"features": np.random.default_rng(0).standard_normal((1, 1, 203, 24), np.float32)}
    expected = flops.fastconformer(spec, "fp32", 2.03).flop - 2 * 26 * 32 * 16
    assert counted(path, feeds, tmp_path) == pytest.approx(expected, rel=1e-6)


@pytest.mark.usefixtures("machine")
def test_the_forecast_of_the_other_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = fit.measure(Options("canary-qwen-2.5b", 4e9, probe=False))
    assert any(line.endswith("<- best") for line in fit.lines(record))
    longer = fit.measure(Options("canary-qwen-2.5b", 4e9, seconds=40.0, probe=False))
    short, long = (each.find("q4_k_m int8", "ttft") for each in (record, longer))
    assert short and long and 1.3 < long.value / short.value < 1.5  # 500 tokens for 375
    parts = fit.memory(SALM, "q4_k_m", "int8", 512, 30.0)
    assert parts["encoders"] == pytest.approx(0.81e9, rel=0.01) and parts["weights"] == pytest.approx(1.1e9, rel=0.05)
    hears = {name: {"features": 0.01, "fastconformer": 1.0} for name in HEARS}
    ahead = Forecast("probe", 375, hears, rates_for(list(LLM_TYPES)), {})
    times = forecast.times(ahead, SALM, "int8", "q4_k_m", n_new=20)
    assert times
    expected = {stage: value for stage, value in forecast.forecast(times).items() if "update" not in stage}
    measures = [Measure(stage, "wall", "s", (value,)) for stage, value in expected.items()]
    works = salm.works(SALM, "int8", 30.0)
    measures += [Measure(name, "flop", "FLOP", (work.flop,)) for name, work in works.items()]
    measures += [
        Measure("decode", "bytes", "B", (flops.decode(SALM.llm, "q4_k_m", 400).bytes,)),
        Measure("prefill", "tokens", "", (380.0,)),
    ]
    subjects = [Subject("canary", "salm", True, "int8", "q4_k_m", 2.0)]
    made = make_record("stages", subjects, {"seconds": "30"}, measures)
    monkeypatch.setattr(fit, "by_probe", lambda *_: ahead)
    compared = fit.measure(Options("canary-qwen-2.5b", 4e9, seconds=10.0, stages=stored(made, tmp_path)))
    assert compared.settings["seconds"] == "30" and "5 of 5" in compared.notes[-1]
    assert not forecast.same_shape(made, SALMONN_7B)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_encoders_probe_runs_in_every_precision(precision: str) -> None:
    spec = cast(SalmonnSpec, open_bundle().manifest.spec)
    found = probe_encoders.whisper(spec.whisper, precision, 1, "cpu", lambda: None)
    assert found.stem_s > 0 and found.seconds(4) == found.stem_s + 4 * found.layer_s
    assert probe_encoders.beats(spec.beats, 2.0, precision, 1, "cpu", lambda: None).stem_s > 0
    small = FastConformerSpec(32, 2, 4, 64, 5, 16, d_llm=16, n_mels=24)
    assert probe_encoders.fastconformer(small, 2.0, precision, 1, "cpu", lambda: None).stem_s > 0


def test_a_slow_machine_probes_one_type_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "PROBE_SECONDS", 0.0)
    probed: list[str] = []

    def rates(_: Any, quantization: str, *__: Any) -> LlmRates:
        probed.append(quantization)
        return LlmRates(1.0, 2.0, 3.0)

    monkeypatch.setattr(probe_llm, "rates", rates)
    monkeypatch.setattr(forecast, "_probed_encoders", lambda *_: HEARS)
    found = forecast.by_probe(SALMONN_7B, 30.0, ["int8"], ["q4_0", "q4_k_m"], PLACE, lambda: None)
    assert probed == ["q4_0"] and found.llm["q4_k_m"] == found.llm["q4_0"]
