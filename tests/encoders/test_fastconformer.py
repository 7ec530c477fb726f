"""FastConformer: encoder, adapter, projection and their graph, at every precision."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from auricle.models.audio import synthetic_clip
from auricle.models.encoders.fastconformer import INPUT, LEAST_SAMPLES, Featurizer, features, n_frames, n_tokens
from auricle.models.errors import AudioError
from auricle.runtime.encoders.fastconformer import FastConformerEncoder
from fastconformer_golden import CHECKPOINT, CLIPS, TABLES, TINY, golden_clip, load


@pytest.fixture(params=CLIPS)
def clip(request: pytest.FixtureRequest, golden: Path) -> dict[str, np.ndarray]:
    return golden_clip(golden, request.param)


@pytest.fixture(scope="module")
def loaded() -> Any:
    """The golden checkpoint's perception part."""
    pytest.importorskip("torch")
    return load(CHECKPOINT)


@pytest.fixture(scope="module")
def graph(loaded: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its graph in float32. Read-only."""
    from auricle.export.encoders.fastconformer import export_fastconformer

    path = tmp_path_factory.mktemp("salm") / "fastconformer.onnx"
    export_fastconformer(loaded.module, loaded.spec, path)
    return path


@pytest.fixture
def encoder(loaded: Any, graph: Path) -> FastConformerEncoder:
    return encoder_of(graph, loaded)


def encoder_of(graph: Path, loaded: Any) -> FastConformerEncoder:
    from auricle.export.graphs.onnx_graph import graph_info
    from auricle.runtime.system.ort import OrtOptions, open_session

    info = graph_info(graph)
    session = open_session(graph, info.inputs, info.outputs, OrtOptions("cpu", threads=1))
    return FastConformerEncoder(session, loaded.spec, Featurizer(loaded.fb, loaded.window))


# How many tokens


def test_tokens_are_three_halvings_each_rounded_up() -> None:
    for n in range(1, 4001):
        left = n
        for _ in range(3):
            left = (left - 1) // 2 + 1
        assert n_tokens(n) == left == -(-n // 8)


def test_trap_28_the_frame_too_much_is_dropped(loaded: Any, encoder: FastConformerEncoder) -> None:
    for seconds, frames, tokens in ((11, 1100, 138), (40, 4000, 500), (1, 100, 13)):
        waveform = synthetic_clip(seconds, seconds)
        assert features(waveform, encoder.featurizer).shape[2] == frames
        assert len(encoder.audio_tokens(waveform)) == tokens


@pytest.mark.parametrize("n", [0, 1, 319, 320, 1280, 1439, 1440, 12_345, 640_000, 640_319])
def test_a_clip_of_any_length_is_encoded(encoder: FastConformerEncoder, n: int) -> None:
    tokens = encoder.audio_tokens(np.random.default_rng(n).uniform(-1, 1, n).astype(np.float32))
    assert tokens.shape == (n_tokens(n_frames(max(n, LEAST_SAMPLES))), 64) and tokens.dtype == np.float32
    assert np.isfinite(tokens).all()


def test_a_clip_that_is_too_long_is_refused() -> None:
    encoder = FastConformerEncoder(SimpleNamespace(), TINY, TABLES)  # pyright: ignore
    with pytest.raises(AudioError, match=r"40\.0 s where one pass takes 40 s"):
        encoder.audio_tokens(np.zeros(640_320, np.float32))


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 9, 15, 16, 17, 33, 63, 101, 1100, 1101, 4001])
def test_graph_equals_the_reference_at_any_length(loaded: Any, graph: Path, n: int) -> None:
    """And both equal the reference on a padded clip with a mask, which is how NeMo sees it."""
    import torch
    from auricle.export.graphs.onnx_graph import run_graph

    frames = np.random.default_rng(n).standard_normal((1, 128, n)).astype(np.float32)
    found = run_graph(graph, {INPUT: frames})[0]
    padded = torch.from_numpy(np.pad(frames, ((0, 0), (0, 0), (0, 5))))
    with torch.no_grad():
        plain = loaded.module(torch.from_numpy(frames)).numpy()
        mask = torch.arange(n + 5)[None] < n
        masked = loaded.module.encoder(padded.transpose(1, 2), attention_mask=mask).last_hidden_state[:, : n_tokens(n)]
        masked = loaded.module.proj(masked).numpy()
    assert found.shape == (1, n_tokens(n), 64)
    np.testing.assert_allclose(found, plain, rtol=0, atol=2e-5)
    np.testing.assert_allclose(found, masked, rtol=0, atol=2e-5)


# The encoder


def test_encoder_matches_the_reference(loaded: Any, clip: dict[str, np.ndarray]) -> None:
    import torch

    frames = torch.from_numpy(clip["features"][None])
    with torch.no_grad():
        speech, tokens = loaded.module.speech(frames)[0].numpy(), loaded.module(frames)[0].numpy()
    np.testing.assert_allclose(speech, clip["speech_encoder"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(tokens, clip["audio_tokens"], rtol=0, atol=1e-4)


def test_graph_matches_the_reference(graph: Path, clip: dict[str, np.ndarray]) -> None:
    from auricle.export.graphs.onnx_graph import run_graph

    tokens = run_graph(graph, {INPUT: clip["features"][None]})[0]
    np.testing.assert_allclose(tokens[0], clip["audio_tokens"], rtol=0, atol=1e-4)


def test_audio_tokens_match_the_reference(encoder: FastConformerEncoder, clip: dict[str, np.ndarray]) -> None:
    """From the samples: what is left of NeMo's rounding in silent bands is 2e-4 on the tone."""
    tokens = encoder.audio_tokens(clip["pcm_float32"])
    tolerance = 3e-4 if len(clip["pcm_float32"]) == 640_000 else 1e-4
    np.testing.assert_allclose(tokens, clip["audio_tokens"], rtol=0, atol=tolerance)


def test_positions_are_rounded_as_the_models_are() -> None:
    torch = pytest.importorskip("torch")
    from auricle.export.encoders.fastconformer_modules import sinusoids

    table = sinusoids(torch.arange(3, -4, -1), 8)
    assert torch.equal(table, table.bfloat16().float()) and table.shape == (7, 8)
    exact = np.stack([np.sin(2.0 / 10.0 ** np.arange(4)), np.cos(2.0 / 10.0 ** np.arange(4))], axis=1).ravel()
    np.testing.assert_allclose(table[1].numpy(), exact, rtol=2**-8, atol=0)


# Precisions


def test_float16_graph_is_close(loaded: Any, graph: Path, clip: dict[str, np.ndarray], tmp_path: Path) -> None:
    from auricle.export.graphs.float16 import to_fp16
    from auricle.export.graphs.onnx_graph import compare, run_graph

    to_fp16(graph, tmp_path / "half.onnx")
    found = run_graph(tmp_path / "half.onnx", {INPUT: clip["features"][None]})[0][0]
    assert compare(found, clip["audio_tokens"])[1] < 2e-3


def frames_of(golden: Path, name: str) -> dict[str, np.ndarray]:
    """What the graph is fed for a golden clip."""
    with np.load(golden / "salm-tiny" / f"{name}.npz") as arrays:
        return {INPUT: arrays["features"][None, :, : int(arrays["n_features"])]}


def test_int8_graph_is_close(graph: Path, golden: Path, tmp_path: Path) -> None:
    from auricle.export.graphs.int8 import to_int8
    from auricle.export.graphs.onnx_graph import operators

    report = to_int8(graph, tmp_path / "int8.onnx", [frames_of(golden, name) for name in CLIPS[:2]], budget=0.03)
    print(f"int8: relative error {report.error:.4f}, {len(report.float_layers)} of {report.n_layers} layers in float")
    assert report.error < 0.03 and len(report.float_layers) <= 2 and report.n_layers == 4 + 2 * 11
    assert "Gather" not in operators(tmp_path / "int8.onnx"), "the tables of positions should be 8 bits too"


@pytest.mark.parametrize("n", [1, 8, 9, 17, 1101, 4001])
def test_int8_graph_hears_any_length(graph: Path, tmp_path: Path, n: int) -> None:
    from auricle.export.graphs.int8 import write_int8
    from auricle.export.graphs.onnx_graph import compare, run_graph

    write_int8(graph, tmp_path / "int8.onnx")
    frames = {INPUT: np.random.default_rng(n).standard_normal((1, 128, n)).astype(np.float32)}
    assert compare(run_graph(tmp_path / "int8.onnx", frames)[0], run_graph(graph, frames)[0])[1] < 0.06


def test_the_ranking_s_relative_attention_is_the_graph_s(graph: Path, golden: Path, tmp_path: Path) -> None:
    import onnx
    from auricle.export.graphs.attention import find_attention, float_attention, integer_attention, rewrite_attention
    from auricle.export.graphs.onnx_graph import read_model, run_graph

    model = read_model(graph)
    found = find_attention(model)
    assert list(found) == ["layers.0.self_attn", "layers.1.self_attn"]
    first = found["layers.0.self_attn"]
    assert first.far is not None and (first.n_heads, first.d_head) == (4, 16)
    output = first.nodes[-1].output[0]
    wanted = [*first.inputs, output]
    feeds = frames_of(golden, "jfk_11s")

    def tapped(name: str) -> list[np.ndarray]:
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
        onnx.save_model(model, tmp_path / name)
        del model.graph.output[1:]
        return [value[0] for value in run_graph(tmp_path / name, feeds, wanted)]

    q, k, v, plain = tapped("float.onnx")
    rewrite_attention(model, (), (first,))
    *_, integer = tapped("int8.onnx")
    numbers = first.far.read(tmp_path)
    scale = np.abs(plain).max()
    rows = slice(None, None, 7)
    np.testing.assert_allclose(float_attention(q, k, v, 4, rows, numbers), plain[rows], atol=1e-5)
    np.testing.assert_allclose(integer_attention(q, k, v, 4, rows, numbers), integer[rows], atol=2e-3 * scale)
    assert 0 < np.abs(integer - plain).max() < 0.1 * scale


def test_relative_attention_left_in_float_stays_as_it_is(graph: Path, golden: Path, tmp_path: Path) -> None:
    from auricle.export.graphs.attention import find_attention
    from auricle.export.graphs.int8 import write_int8
    from auricle.export.graphs.onnx_graph import compare, operators, read_model, run_graph

    write_int8(graph, tmp_path / "int8.onnx", list(find_attention(read_model(graph))))
    assert operators(tmp_path / "int8.onnx")["Softmax"] == operators(tmp_path / "int8.onnx")["Gather"] == 2
    feeds = frames_of(golden, "noise_1s")
    assert compare(run_graph(tmp_path / "int8.onnx", feeds)[0], run_graph(graph, feeds)[0])[1] < 0.03


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tensorrt_can_parse_the_graph(graph: Path, tmp_path: Path, precision: str) -> None:
    from auricle.export.graphs.float16 import to_fp16
    from auricle.export.graphs.tensorrt import unsupported

    if precision == "fp16":
        to_fp16(graph, tmp_path / "half.onnx")
    assert unsupported(graph if precision == "fp32" else tmp_path / "half.onnx") == []


def test_a_weightless_module_has_the_same_graph(graph: Path, tmp_path: Path) -> None:
    from auricle.export.encoders.fastconformer import export_fastconformer, weightless_fastconformer
    from auricle.export.graphs.onnx_graph import graph_info, operators, run_graph
    from auricle.export.synthetic.random_graph import RandomWeights

    path = tmp_path / "fastconformer.onnx"
    export_fastconformer(weightless_fastconformer(TINY), TINY, path, RandomWeights(0))
    assert operators(path) == operators(graph) and graph_info(path) == graph_info(graph)
    tokens = run_graph(path, {INPUT: np.random.default_rng(0).standard_normal((1, 128, 300)).astype(np.float32)})[0]
    assert tokens.shape == (1, 38, 64) and np.isfinite(tokens).all() and tokens.std() > 0
