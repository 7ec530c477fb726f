"""Bundles of random weights: the right types and shapes, weights that compute, and a runtime that opens them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import gguf
import torch
from auricle.bench import result
from auricle.bench.__main__ import main as auricle_bench
from auricle.export.encoders.beats import export_beats, weightless_beats
from auricle.export.encoders.qformer import export_qformer, weightless_qformer
from auricle.export.encoders.whisper import export_whisper, weightless_whisper
from auricle.export.formats.sentencepiece import Vocabulary
from auricle.export.graphs.float16 import to_fp16
from auricle.export.graphs.int8 import write_uncalibrated
from auricle.export.graphs.onnx_graph import operators, read_model, run_graph, save_graph
from auricle.export.llm.quantize import quantize
from auricle.export.llm.tensor_types import BASE, tensor_type
from auricle.export.synthetic import bundle as synthetic
from auricle.export.synthetic import families, random_graph
from auricle.export.synthetic.random_graph import RandomWeights
from auricle.export.synthetic.random_llm import random_tensors, write_random_llm
from auricle.export.synthetic.random_weights import weight_pool
from auricle.export.synthetic.vocabulary import gguf_vocabulary, padded, piece_ids
from auricle.models.audio import synthetic_clip
from auricle.models.bundle import LLM_FILE, read_manifest, shipped_bundle
from auricle.models.encoders.beats import BeatsSpec
from auricle.models.encoders.fastconformer import FastConformerSpec
from auricle.models.encoders.qformer import QFormerSpec
from auricle.models.encoders.whisper import WhisperSpec
from auricle.models.errors import InputError
from auricle.models.families.salm import SALM, SalmSpec
from auricle.models.families.salmonn import PREFIX, SALMONN_7B, SALMONN_13B, TASKS, prompt_halves
from auricle.models.llm import LLM_TYPES, LlmSpec
from auricle.models.precision import PRECISIONS
from auricle.runtime.__main__ import main as auricle
from auricle.runtime.bundle import external_locations
from auricle.runtime.engine import load
from auricle.runtime.llm.llama import Model

WHISPER = WhisperSpec(d_model=128, n_layers=1, n_heads=2, d_ffn=256, n_positions=200)
BEATS = BeatsSpec(d_model=96, n_layers=1, n_heads=2, d_ffn=192, d_patch=64, conv_pos=16, conv_pos_groups=4)
QFORMER = QFormerSpec(128, 2, 256, d_speech=128, d_audio=96, d_llm=160)
Kinds = dict[str, gguf.GGMLQuantizationType]


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return gguf_vocabulary(shipped_bundle() / LLM_FILE)


def tiny(n_layers: int, vocab: int, hidden: int = 256) -> LlmSpec:
    return LlmSpec(hidden, n_layers, 4, 4, 256, vocab, max_positions=512, rms_norm_eps=1e-5)


def kinds_in(path: Path) -> Kinds:
    return {tensor.name: tensor.tensor_type for tensor in gguf.GGUFReader(path).tensors}


@pytest.mark.parametrize(
    ("n_layers", "quantizations"), [(4, ["q8_0", "q6_k", "q4_0"]), (32, ["q5_k_m"]), (40, ["q4_k_m"])]
)
def test_types_are_those_of_llama_cpps_quantizer(
    n_layers: int, quantizations: list[str], vocabulary: Vocabulary, tmp_path: Path
) -> None:
    """Layer counts of the demo, 7B and 13B; which layers of a mixture are finer depends on the count."""
    write_random_llm(tiny(n_layers, len(vocabulary)), vocabulary, tmp_path / "f16.gguf", "f16", seed=0)
    for quantization in quantizations:
        path = tmp_path / "theirs.gguf"
        quantize(tmp_path / "f16.gguf", path, quantization, n_threads=2)
        theirs = kinds_in(path)
        assert {name: tensor_type(name, n_layers, quantization) for name in theirs} == theirs, quantization


@pytest.mark.parametrize("quantization", LLM_TYPES)
def test_a_written_model_is_as_long_as_it_says(quantization: str, vocabulary: Vocabulary, tmp_path: Path) -> None:
    spec = tiny(2, len(vocabulary))
    path = tmp_path / "llm.gguf"
    write_random_llm(spec, vocabulary, path, quantization, seed=0)
    tensors = {t.name: t for t in gguf.GGUFReader(path).tensors}
    planned = random_tensors(spec, quantization, seed=0)
    assert {t.name: (t.kind, t.n_bytes) for t in planned} == {
        name: (t.tensor_type, t.n_bytes) for name, t in tensors.items()
    }
    for name, tensor in tensors.items():
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert np.isfinite(values).all()
        assert values.std() == pytest.approx(0.0 if "norm" in name else 0.02, rel=0.05), name
        assert abs(values.mean()) == pytest.approx(1.0 if "norm" in name else 0.0, abs=0.003), name


def test_sizes_of_the_released_models() -> None:
    """As llama.cpp's quantizer makes Vicuna 7B and 13B at q4_k_m: 4.08 and 7.87 GB."""
    for spec, size in ((SALMONN_7B.llm, 4.08e9), (SALMONN_13B.llm, 7.87e9)):
        assert sum(t.n_bytes for t in random_tensors(spec, "q4_k_m", seed=0)) == pytest.approx(size, rel=0.002)


@pytest.mark.parametrize("kind", sorted({*BASE.values()}))
def test_pools_are_finite_and_spread_as_fresh_weights(kind: gguf.GGMLQuantizationType) -> None:
    pool = weight_pool(kind, np.random.default_rng(3))
    rows = list(pool.take(5000))
    assert sum(map(len, rows)) == 5000
    values = gguf.quants.dequantize(np.concatenate(rows), kind)
    assert np.isfinite(values).all()
    assert values.std() == pytest.approx(0.02, rel=0.05)


def test_layers_do_not_share_their_bytes_and_a_seed_repeats_them() -> None:
    def first(seed: int) -> list[bytes]:
        tensors = {t.name: t for t in random_tensors(tiny(3, 512), "q4_0", seed)}
        return [b"".join(p.tobytes() for p in tensors[f"blk.{n}.attn_q.weight"].pieces()) for n in range(3)]

    assert len(set(first(1))) == 3
    assert first(1) == first(1)
    assert first(1) != first(2)


def test_a_padded_vocabulary_cuts_prompts_as_vicuna_does(vocabulary: Vocabulary, golden: Path) -> None:
    large = padded(vocabulary, 32000)
    assert len(set(large.pieces)) == len(large) == 32000
    assert (large.bos, large.eos, large.unk) == (1, 2, 0)
    assert len(piece_ids(large, PREFIX)) == 7
    assert len(piece_ids(large, prompt_halves(TASKS["asr"])[1])) == 21
    vicuna = json.loads((golden / "vicuna_prompt_ids.json").read_text(encoding="utf-8"))
    for task, prompt in TASKS.items():
        n = len(piece_ids(large, prompt_halves(prompt)[1]))
        assert n == pytest.approx(len(vicuna[task]["after_ids"]), rel=0.2), task


def test_llama_cpp_reads_a_padded_vocabulary_as_sentencepiece_does(vocabulary: Vocabulary, tmp_path: Path) -> None:
    large = padded(vocabulary, 32000)
    write_random_llm(tiny(1, 32000), large, tmp_path / "llm.gguf", "q4_0", seed=0)
    model = Model(tmp_path / "llm.gguf", n_gpu_layers=0)
    try:
        for text in (PREFIX, *(prompt_halves(prompt)[1] for prompt in TASKS.values()), "  odd\tspaces, 3½ €, naïve "):
            assert tuple(model.tokenize(text)) == piece_ids(large, text), text
        assert (model.bos, model.eos) == (1, frozenset({2}))
    finally:
        model.close()


def filled(module: Any) -> Any:
    """Every weight a number of its own, as a trained module has."""
    torch.manual_seed(0)
    state = {name: torch.randn(value.shape) * 0.02 for name, value in module.state_dict().items()}
    module.load_state_dict(state, assign=True)
    return module.requires_grad_(False)


def write_graph(name: str, path: Path, save: Any, change: Callable[[Any], Any] = lambda module: module) -> None:
    if name == "whisper":
        w = change(weightless_whisper(WHISPER))
        export_whisper(w.encoder, w.ln_speech, WHISPER, path, save)
    elif name == "beats":
        b = change(weightless_beats(BEATS))
        export_beats(b.beats, b.ln_audio, path, save)
    else:
        export_qformer(change(weightless_qformer(QFORMER)), path, save)


FEEDS = {
    "whisper": {"log_mel": (1, 80, 100)},
    "beats": {"fbank": (1, 98, 128)},
    "qformer": {"speech": (1, 200, 128), "audio": (1, 48, 96)},
}


def feeds(name: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    return {key: rng.standard_normal(shape).astype(np.float32) for key, shape in FEEDS[name].items()}


def weights(path: Path) -> list[tuple[int, tuple[int, ...]]]:
    return sorted((t.data_type, tuple(t.dims)) for t in read_model(path, weights=False).graph.initializer)


@pytest.mark.parametrize(("name", "half"), [("whisper", False), ("beats", True), ("qformer", False)])
def test_a_weightless_graph_is_the_real_one_with_random_weights(name: str, half: bool, tmp_path: Path) -> None:
    """The same operators on the same shapes; numbers come out, and other inputs give others."""
    real, path = tmp_path / "real.onnx", tmp_path / "weightless.onnx"
    write_graph(name, real, save_graph, filled)
    if half:
        to_fp16(real, tmp_path / "real16.onnx")
        real = tmp_path / "real16.onnx"
    write_graph(name, path, RandomWeights(1, half))
    assert operators(path) == operators(real)
    assert weights(path) == weights(real)
    given = feeds(name)
    (output,) = run_graph(path, given)
    assert output.dtype == np.float32
    assert np.isfinite(output).all()
    assert output.std() > 0.01
    other = run_graph(path, {key: value[:, ::-1] for key, value in given.items()})[0]
    assert np.abs(output - other).max() > 0.01 * output.std()
    assert np.abs(np.diff(output[0], axis=0)).max() > 0.01 * output.std(), "every row is the same"


def test_large_graphs_keep_their_weights_beside_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_graph, "EXTERNAL_BYTES", 1000)
    path = tmp_path / "qformer.onnx"
    write_graph("qformer", path, RandomWeights(1))
    assert path.with_name("qformer.onnx.data").stat().st_size > 10 * path.stat().st_size
    assert set(external_locations(path)) == {"qformer.onnx.data"}
    (output,) = run_graph(path, feeds("qformer"))
    assert np.isfinite(output).all()
    assert output.std() > 0.01


def copies_of(source: Path) -> Callable[..., Callable[[Path], tuple[tuple[str, ...], Any]]]:
    """Instead of exporting, which takes seconds: the graphs that lie in `source`."""

    def builder(_plan: object, name: str, _write: object) -> Callable[[Path], tuple[tuple[str, ...], Any]]:
        def build(directory: Path) -> tuple[tuple[str, ...], Any]:
            shutil.copyfile(source / f"{name}.onnx", directory / f"{name}.onnx")
            return (f"{name}.onnx",), {}

        return build

    return builder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SimpleNamespace]:
    """The demo's shape at each precision of the encoders, and what was told. The fp32 graphs are int8's own."""
    folder, float_graphs = tmp_path_factory.mktemp("synthetic"), tmp_path_factory.mktemp("graphs")
    made: dict[str, SimpleNamespace] = {}

    def keep(full: Path, path: Path) -> None:
        shutil.copyfile(full, float_graphs / path.name)
        write_uncalibrated(full, path)

    def make(encoders: str) -> None:
        told: list[str] = []
        out = folder / encoders
        manifest = synthetic.synthesize("demo", "q4_k_m", encoders, out, report=lambda stage, *_: told.append(stage))
        made[encoders] = SimpleNamespace(directory=out, manifest=manifest, encoders=encoders, told=told)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(synthetic._QUANTIZERS, "int8", keep)  # pyright: ignore[reportPrivateUsage]
        make("int8")
        patch.setattr(synthetic, "_graph_builder", copies_of(float_graphs))
        make("fp32")
    return made


@pytest.fixture(params=["fp32", "int8"])
def bundle(request: pytest.FixtureRequest, made: dict[str, SimpleNamespace]) -> SimpleNamespace:
    return made[request.param]


def test_a_bundle_is_valid_and_says_what_it_is(bundle: SimpleNamespace) -> None:
    assert auricle(["verify", str(bundle.directory)]) == 0
    manifest = read_manifest(bundle.directory)
    assert manifest == bundle.manifest
    assert manifest.synthetic
    assert result.subject(manifest).synthetic
    assert manifest.spec == read_manifest(shipped_bundle()).spec
    assert manifest.prompt == read_manifest(shipped_bundle()).prompt
    assert manifest.provenance.options["model"] == "demo"
    assert (manifest.parity, manifest.self_check) == (None, None)
    assert not list(bundle.directory.parent.glob("*.partial"))
    assert "write q4_k_m" in bundle.told


@pytest.fixture
def tiny_salm(monkeypatch: pytest.MonkeyPatch) -> str:
    """A name for a SALM whose rows are multiples of 256, as quantized blocks want them."""
    encoder = FastConformerSpec(64, 1, 4, 128, 5, 16, d_llm=256, n_mels=24, seconds=4.0)
    llm = replace(SALM.llm, hidden=256, n_layers=2, n_heads=4, n_kv_heads=2, d_ffn=512, vocab=4096, head_dim=64)
    monkeypatch.setitem(synthetic.RELEASED, "tiny", SalmSpec(encoder, llm, SALM.lora))
    monkeypatch.setattr(synthetic, "MODELS", ("tiny",))
    return "tiny"


@pytest.mark.parametrize(("encoders", "product"), [("int8", "MatMulIntegerToFloat"), ("int4", "MatMulNBits")])
def test_a_bundle_of_the_other_family_answers(encoders: str, product: str, tiny_salm: str, tmp_path: Path) -> None:
    manifest = synthetic.synthesize(tiny_salm, "q4_k_m", encoders, tmp_path / "out")
    assert manifest.quantization.encoders == encoders
    assert (manifest.family, manifest.synthetic, manifest.parity) == ("salm", True, None)
    assert auricle(["verify", str(tmp_path / "out")]) == 0
    assert operators(tmp_path / "out" / "fastconformer.onnx")[f"com.microsoft::{product}"] > 4
    with load(tmp_path / "out") as engine:
        before, after = engine.llm.prompts.around(engine.prompt.tasks["asr"])
        assert (len(before), len(after)) == (9, 5)  # as Qwen3's own vocabulary cuts them
        heard = engine.encode(synthetic_clip(7, 3.0))
        assert heard.audio_tokens.shape == (38, 256) and np.isfinite(heard.audio_tokens).all()
        assert engine.ask(synthetic_clip(7, 3.0), "asr").segments
    with pytest.raises(InputError, match="exists already"):
        synthetic.synthesize(tiny_salm, "q4_k_m", encoders, tmp_path / "out")


def test_a_full_canary_qwen_takes_two_gigabytes() -> None:
    assert synthetic.disk_bytes(SALM, "q4_k_m", "fp16") == pytest.approx(2.8e9, rel=0.05)


def test_the_filter_bank_is_that_of_the_golden_checkpoint(golden: Path) -> None:
    """Whose weights are bfloat16: three digits."""
    from auricle.export.formats.checkpoint import open_weights

    weights = open_weights(golden / "salm-tiny" / "checkpoint")
    fb, window = (
        weights.get(f"perception.preprocessor.featurizer.{name}").float().numpy() for name in ("fb", "window")
    )
    weights.close()
    assert np.allclose(families.mel_bank(fb.shape[1]), fb[0], rtol=5e-3, atol=1e-6)
    assert np.allclose(families.hann(), window, rtol=5e-3, atol=1e-6)


def test_int8_graphs_compute_in_integers(made: dict[str, SimpleNamespace]) -> None:
    spec, directory = made["int8"].manifest.spec, made["int8"].directory
    n_products = operators(directory / "whisper.onnx")["com.microsoft::MatMulIntegerToFloat"]
    assert n_products >= 6 * spec.whisper.n_layers
    assert not [path for path in directory.iterdir() if "fp32" in path.name]
    sizes = [(made[kind].directory / "whisper.onnx").stat().st_size for kind in ("int8", "fp32")]
    assert sizes[0] < 0.4 * sizes[1]


def test_the_disk_it_needs_is_what_was_said(bundle: SimpleNamespace, made: dict[str, SimpleNamespace]) -> None:
    """What a graph is quantized from lies beside it, the largest longest."""
    size = sum(file.stat().st_size for file in bundle.directory.iterdir())
    said = synthetic.disk_bytes(bundle.manifest.spec, "q4_k_m", bundle.encoders) - synthetic.VOCABULARY_BYTES
    integer = PRECISIONS[bundle.encoders].integer
    beside = (made["fp32"].directory / "whisper.onnx").stat().st_size if integer else 0
    assert 0.95 * size < said < 1.1 * size + beside


@pytest.mark.parametrize("llm", ["q4_k_m", "q4_0", "q8_0", "f16"])
def test_the_runtime_answers_from_it(
    llm: str, bundle: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic, "_graph_builder", copies_of(bundle.directory))
    manifest = synthetic.synthesize("demo", llm, bundle.encoders, tmp_path / "out", seed=4)
    assert (manifest.quantization.llm, manifest.quantization.encoders) == (llm, bundle.encoders)
    with load(tmp_path / "out") as engine:
        clip = synthetic_clip(7, 4.0)
        audio_tokens = engine.encode(clip).audio_tokens
        logits = engine.llm.prefill(audio_tokens, TASKS["asr"])
        assert np.isfinite(audio_tokens).all()
        assert 0.1 < logits.std() < 10
        assert engine.ask(clip, "asr").segments


@pytest.fixture
def no_graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Graphs are a few bytes; the list names those that were built."""
    built: list[str] = []

    def quick(_plan: object, name: str, _write: object) -> Callable[[Path], tuple[tuple[str, ...], Any]]:
        def build(directory: Path) -> tuple[tuple[str, ...], Any]:
            built.append(name)
            (directory / f"{name}.onnx").write_bytes(b"graph")
            return (f"{name}.onnx",), {}

        return build

    monkeypatch.setattr(synthetic, "_graph_builder", quick)
    yield built


def test_a_stopped_run_leaves_no_bundle_and_the_next_goes_on(
    no_graphs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(synthetic, "write_random_llm", stop)
        synthetic.synthesize("demo", "q4_0", "fp32", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert no_graphs == ["whisper", "beats", "qformer"]
    synthetic.synthesize("demo", "q4_0", "fp32", tmp_path / "out")
    assert no_graphs == ["whisper", "beats", "qformer"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    shutil.rmtree(tmp_path / "out")
    synthetic.synthesize("demo", "q4_0", "fp32", tmp_path / "out", seed=1)
    assert len(no_graphs) == 6


def test_the_command_says_where_the_bundle_is(
    no_graphs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["synth", "--model", "demo", "--llm", "q4_0", "--encoders", "fp16", "--out", str(tmp_path / "out")]
    assert auricle_bench(words) == 0
    assert "0.00 GB of random weights, demo, encoders fp16, llm q4_0" in capsys.readouterr().out
    assert read_manifest(tmp_path / "out").provenance.options["seed"] == "0"
    assert auricle_bench(words) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"model": "salmonn-70b"},
            "'salmonn-70b' is not a model whose shapes are known: choose salmonn-13b, salmonn-7b",
        ),
        ({"llm": "q2_k"}, "'q2_k' is not a type of GGUF weights: choose f32, f16, q8_0"),
        ({"encoders": "fp8"}, "'fp8' is no precision of the encoders: choose fp32, fp16, int8"),
    ],
)
def test_unknown_names_are_refused(changed: dict[str, str], said: str, no_graphs: list[str], tmp_path: Path) -> None:
    given = {"model": "demo", "llm": "q4_0", "encoders": "fp32", **changed}
    with pytest.raises(InputError, match=re.escape(said)):
        synthetic.synthesize(given["model"], given["llm"], given["encoders"], tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_what_exists_is_never_touched(no_graphs: list[str], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="exists already"):
        synthetic.synthesize("demo", "q4_0", "fp32", tmp_path / "out")
    assert not no_graphs


def test_too_little_disk_is_refused_with_the_numbers(
    no_graphs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """13B at q4_k_m: 7.9 GB, and 1.5 GB of fp16 encoders. An `out` in a directory to come is on its parent's disk."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3_200_000_000))
    said = r"salmonn-13b q4_k_m with fp16 encoders needs 9\.[34] GB of disk: 3\.2 GB are free on the disk of"
    with pytest.raises(InputError, match=said):
        synthetic.synthesize("salmonn-13b", "q4_k_m", "fp16", tmp_path / "new" / "out")
    assert not list(tmp_path.iterdir())


def test_what_an_unfinished_run_wrote_is_not_asked_for_again(
    no_graphs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = synthetic.disk_bytes(read_manifest(shipped_bundle()).spec, "q4_0", "fp32") - 1000
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(InputError, match=r"needs [0-9.]+ [GM]B of disk"):
        synthetic.synthesize("demo", "q4_0", "fp32", tmp_path / "out")
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "whisper.onnx").write_bytes(bytes(2000))
    assert synthetic.synthesize("demo", "q4_0", "fp32", tmp_path / "out").synthetic


def test_too_little_memory_is_refused_with_the_numbers(
    no_graphs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic, "_available_memory", lambda: 700_000_000)
    with pytest.raises(InputError, match=r"needs 1\.5 GB of memory to be made, 0\.7 GB are available"):
        synthetic.synthesize("demo", "q4_0", "fp32", tmp_path / "out")
    assert not list(tmp_path.iterdir())
