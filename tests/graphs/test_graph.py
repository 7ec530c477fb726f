"""Graphs: saving and checking, float16, int8, comparing; on the three encoders and on made-up modules."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from auricle.models.errors import InputError, RunError
from auricle.models.graph_io import TensorInfo

torch = pytest.importorskip("torch")
import onnx
from auricle.export.graphs import onnx_graph
from auricle.export.graphs.attention import (
    find_attention,
    float_attention,
    integer_attention,
    rewrite_attention,
    separate_heads,
)
from auricle.export.graphs.float16 import to_fp16
from auricle.export.graphs.int8 import rank_layers, to_int8
from auricle.export.graphs.linear_layers import tap
from auricle.export.graphs.onnx_graph import (
    check_graph,
    compare,
    graph_info,
    operators,
    read_model,
    run_graph,
    save_graph,
)

NAMES = ("whisper", "beats", "qformer")
FP16_BOUND, INT8_BOUND = 2e-3, 5e-2  # relative rms on real speech; measured 5e-4 and 1.5e-2 to 2.5e-2
Features = dict[str, dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def halves(graphs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("fp16")
    for name in NAMES:
        to_fp16(graphs[name], folder / f"{name}.onnx")
    return {name: folder / f"{name}.onnx" for name in NAMES}


def test_interfaces_are_what_the_contract_says(graphs: dict[str, Path]) -> None:
    interfaces = {name: graph_info(graphs[name]) for name in NAMES}
    assert {name: (*info.inputs, "->", *info.outputs) for name, info in interfaces.items()} == {
        "whisper": (
            TensorInfo("log_mel", (1, 80, "mel_frames")),
            "->",
            TensorInfo("speech", (1, "n_positions", 64)),
        ),
        "beats": (TensorInfo("fbank", (1, "n_frames", 128)), "->", TensorInfo("audio", (1, "n_tokens", 48))),
        "qformer": (
            TensorInfo("speech", (1, "n_positions", 64)),
            TensorInfo("audio", (1, "n_tokens", 48)),
            "->",
            TensorInfo("audio_tokens", (1, "n_windows", 128)),
        ),
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_graph_does_not_tell_whose_machine_made_it(graphs: dict[str, Path], name: str) -> None:
    content = graphs[name].read_bytes()
    assert b"stack_trace" not in content
    assert str(Path(torch.__file__).parents[1]).encode() not in content
    assert str(Path(onnx_graph.__file__).parents[2]).encode() not in content


@pytest.mark.parametrize("name", NAMES)
def test_linear_layers_are_products_that_int8_can_take(graphs: dict[str, Path], name: str) -> None:
    found = operators(graphs[name])
    assert "Gemm" not in found and "Einsum" not in found
    n_linear = {"whisper": 12, "beats": 13, "qformer": 9}[name]
    assert sum("node_" not in n.name for n in read_model(graphs[name]).graph.node if n.op_type == "MatMul") >= n_linear


@pytest.mark.parametrize("name", NAMES)
def test_fp16_is_close_and_keeps_its_interface(
    graphs: dict[str, Path], halves: dict[str, Path], features: Features, name: str
) -> None:
    assert graph_info(halves[name]) == graph_info(graphs[name])
    reference = run_graph(graphs[name], features[name])[0]
    result = run_graph(halves[name], features[name])[0]
    assert result.dtype == np.float32
    assert 0 < compare(result, reference)[1] < FP16_BOUND


@pytest.mark.parametrize("name", NAMES)
def test_fp16_keeps_norms_and_softmaxes_in_float32(halves: dict[str, Path], name: str) -> None:
    model = onnx.shape_inference.infer_shapes(read_model(halves[name]))
    types = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
    types |= {t.name: t.data_type for t in model.graph.initializer}
    produced: dict[str, set[int]] = {}
    for node in model.graph.node:
        produced.setdefault(node.op_type, set()).update(types.get(n, 1) for n in (node.input[0], node.output[0]))
    assert produced["LayerNormalization"] == {onnx.TensorProto.FLOAT}
    assert produced["Softmax"] == {onnx.TensorProto.FLOAT}
    assert produced["MatMul"] == produced["Gelu"] == {onnx.TensorProto.FLOAT16}


@pytest.mark.parametrize("name", NAMES)
def test_int8_is_close_and_holds_integer_products(
    graphs: dict[str, Path], features: Features, tmp_path: Path, name: str
) -> None:
    report = to_int8(graphs[name], tmp_path / "int8.onnx", [features[name]], INT8_BOUND)
    before, after = operators(graphs[name]), operators(tmp_path / "int8.onnx")
    n_heads = 4 * 2 if name == "whisper" else 0
    n_products = report.n_layers - len(report.float_layers) - n_heads // 4 + 2 * n_heads
    assert after["com.microsoft::MatMulIntegerToFloat"] == n_products > 0
    assert after.get("Conv", 0) == before.get("Conv", 0)
    assert graph_info(tmp_path / "int8.onnx").inputs == graph_info(graphs[name]).inputs
    result = run_graph(tmp_path / "int8.onnx", features[name])[0]
    error = compare(result, run_graph(graphs[name], features[name])[0])[1]
    assert error == pytest.approx(report.error, rel=1e-3) and error <= INT8_BOUND


def test_int8_leaves_the_worst_layers_in_float_until_the_budget_is_met(
    graphs: dict[str, Path], features: Features, tmp_path: Path
) -> None:
    path, feed = tmp_path / "int8.onnx", [features["whisper"]]
    ranked = rank_layers(graphs["whisper"], feed)
    least = [min(errors) for errors in ranked.values()]
    assert least == sorted(least, reverse=True)
    assert set(ranked) == {"conv2.linear", "encoder.layers.0.self_attn", "encoder.layers.1.self_attn"} | {
        f"encoder.layers.{n}.{layer}"
        for n in (0, 1)
        for layer in ("fc1", "fc2", *(f"self_attn.{p}_proj" for p in ("q", "k", "v", "out")))
    }
    loose, tight = to_int8(graphs["whisper"], path, feed, 1.0), to_int8(graphs["whisper"], path, feed, 0.004)
    assert loose.float_layers == ()
    assert tight.float_layers != ()
    assert tight.error <= 0.004 < loose.error
    kept = {n.name for n in read_model(path).graph.node if n.op_type in ("MatMul", "MultiHeadAttention")}
    assert set(tight.float_layers) <= kept


@pytest.mark.parametrize("form", ["fused", "integer"])
def test_attention_is_the_same_function_in_every_form(
    graphs: dict[str, Path], features: Features, tmp_path: Path, form: str
) -> None:
    model = read_model(graphs["whisper"])
    found = find_attention(model)
    assert [(name, a.n_heads, a.d_head) for name, a in found.items()] == [
        ("encoder.layers.0.self_attn", 4, 16),
        ("encoder.layers.1.self_attn", 4, 16),
    ]
    rewrite_attention(model, *((found.values(), ()) if form == "fused" else ((), found.values())))
    onnx.checker.check_model(model)
    onnx.save_model(model, str(tmp_path / "new.onnx"))
    after = operators(tmp_path / "new.onnx")
    assert (after.get("Softmax", 0), after.get("com.microsoft::MultiHeadAttention", 0)) == (
        (0, 2) if form == "fused" else (8, 0)
    )
    assert after.get("com.microsoft::MatMulIntegerToFloat", 0) == (0 if form == "fused" else 16)
    for n_frames in (3000, 250):
        feed = {"log_mel": features["whisper"]["log_mel"][:, :, :n_frames]}
        plain, other = (run_graph(path, feed)[0] for path in (graphs["whisper"], tmp_path / "new.onnx"))
        assert compare(other, plain)[1] < (1e-6 if form == "fused" else 2e-3)


def test_integer_attention_bears_peaks_offsets_and_long_tails() -> None:
    """What real models have and random ones lack: large common offsets in keys and values, rows with one large weight
    and a thousand small ones. In numpy as in the graph: the next test compares them."""
    rng = np.random.default_rng(0)
    n, n_heads, width = 300, 2, 32
    q, k, v = (rng.standard_normal((n, width)).astype(np.float32) for _ in range(3))
    q /= 4
    k += 20 * rng.standard_normal(width, np.float32)
    v += 5 * rng.standard_normal(width, np.float32)
    q[::3] *= 4  # scores of 1 in most rows, of 4 in some: flat ones beside peaked ones
    made, wanted = (f(q, k, v, n_heads) for f in (integer_attention, float_attention))
    assert compare(made, wanted)[1] < 5e-3
    assert compare(made - v.mean(axis=0), wanted - v.mean(axis=0))[1] < 0.06


def test_the_ranking_s_attention_is_the_graph_s(graphs: dict[str, Path], features: Features, tmp_path: Path) -> None:
    model = read_model(graphs["whisper"])
    first = next(iter(find_attention(model).values()))
    values = tap(graphs["whisper"], [*first.inputs, first.nodes[-1].output[0]], features["whisper"])
    q, k, v, plain = (values[name][0] for name in (*first.inputs, first.nodes[-1].output[0]))
    rewrite_attention(model, (), (first,))
    model.graph.output.append(onnx.helper.make_tensor_value_info(first.nodes[-1].output[0], 1, None))
    onnx.save_model(model, str(tmp_path / "new.onnx"))
    graph = run_graph(tmp_path / "new.onnx", features["whisper"], [first.nodes[-1].output[0]])[0][0]
    np.testing.assert_allclose(float_attention(q, k, v, first.n_heads), plain, atol=1e-5)
    np.testing.assert_allclose(integer_attention(q, k, v, first.n_heads), graph, atol=2e-3 * np.abs(plain).max())


def test_attention_of_another_form_is_left_alone(graphs: dict[str, Path]) -> None:
    """BEATs adds a bias to its scores."""
    assert find_attention(read_model(graphs["beats"])) == {}


def test_a_gated_bias_goes_head_by_head(
    graphs: dict[str, Path], features: Features, parts: SimpleNamespace, tmp_path: Path
) -> None:
    """The same numbers, and never the scores of all heads at once."""
    model = read_model(graphs["beats"])
    separate_heads(model)
    onnx.checker.check_model(model)
    onnx.save_model(model, str(tmp_path / "new.onnx"))
    spec = parts.beats_spec
    assert operators(tmp_path / "new.onnx")["Softmax"] == spec.n_layers * spec.n_heads
    for n_frames in (16, 250, 998):
        feed = {"fbank": features["beats"]["fbank"][:, :n_frames]}
        plain, other = (run_graph(path, feed)[0] for path in (graphs["beats"], tmp_path / "new.onnx"))
        np.testing.assert_allclose(other, plain, atol=2e-6)


@pytest.mark.parametrize("name", ["qformer", "whisper"])
def test_only_a_gated_bias_is_separated(graphs: dict[str, Path], name: str) -> None:
    model = read_model(graphs[name])
    before = model.SerializeToString(deterministic=True)
    separate_heads(model)
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("name", ["qformer", "whisper"])
def test_an_impossible_budget_leaves_no_file(
    graphs: dict[str, Path], features: Features, tmp_path: Path, name: str
) -> None:
    with pytest.raises(RunError, match="export it as fp16"):
        to_int8(graphs[name], tmp_path / "int8.onnx", [features[name]], 1e-6)
    assert list(tmp_path.iterdir()) == []


def test_one_loud_channel_makes_a_layer_the_worst_until_the_graph_is_smoothed(tmp_path: Path) -> None:
    """A layer whose input has one huge channel loses all others to rounding."""

    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calm, self.spiky = torch.nn.Linear(32, 32), torch.nn.Linear(32, 32)
            with torch.no_grad():
                self.spiky.weight[:, 0] = 0

        def forward(self, x: Any) -> Any:
            spike = torch.zeros(32)
            spike[0] = 1000.0
            return self.calm(x) + self.spiky(x + spike)

    x = torch.randn(1, 50, 32)
    save_graph(Two(), {"x": x}, {"y": (1, 50, 32)}, tmp_path / "two.onnx")
    ranked = rank_layers(tmp_path / "two.onnx", [{"x": x.numpy()}])
    assert list(ranked) == ["spiky", "calm"] and min(ranked["spiky"]) > 20 * min(ranked["calm"])
    report = to_int8(tmp_path / "two.onnx", tmp_path / "int8.onnx", [{"x": x.numpy()}], 0.03)
    assert report.float_layers == () and 0 < report.error < 0.03
    assert [p.name for p in tmp_path.iterdir() if p.name not in ("two.onnx", "int8.onnx")] == []


class Scale(torch.nn.Module):
    """y = x * weight; no linear layer."""

    def __init__(self, weight: Any) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight)

    def forward(self, x: Any) -> Any:
        return x * self.weight


def test_a_graph_without_linear_layers_cannot_be_int8(tmp_path: Path) -> None:
    save_graph(Scale(torch.ones(4)), {"x": torch.ones(1, 4)}, {"y": (1, 4)}, tmp_path / "x.onnx")
    with pytest.raises(RunError, match="no linear layer"):
        to_int8(tmp_path / "x.onnx", tmp_path / "int8.onnx", [{"x": np.ones((1, 4), np.float32)}], 1.0)


def test_a_weight_beyond_float16_is_refused(tmp_path: Path) -> None:
    save_graph(Scale(torch.full((4,), 1e6)), {"x": torch.ones(1, 4)}, {"y": (1, 4)}, tmp_path / "x.onnx")
    with pytest.raises(RunError, match="beyond float16"):
        to_fp16(tmp_path / "x.onnx", tmp_path / "half.onnx")


def test_another_interface_is_refused(graphs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(RunError, match="interface"):
        save_graph(Scale(torch.ones(4)), {"x": torch.ones(1, 4)}, {"y": (1, 5)}, tmp_path / "x.onnx")
    with pytest.raises(RunError, match="interface"):
        check_graph(graphs["beats"], {"fbank": (1, 98, 128)}, {"audio": (1, "n_tokens", 48)})


def test_large_weights_go_to_a_file_beside_the_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graphs: dict[str, Path], features: Features
) -> None:
    monkeypatch.setattr(onnx_graph, "EXTERNAL_BYTES", 10_000)
    for _ in range(2):  # written twice: the second must not append to the first
        onnx_graph.write_model(read_model(graphs["whisper"]), tmp_path / "whisper.onnx")
    size = (tmp_path / "whisper.onnx.data").stat().st_size
    assert size < 1.1 * graphs["whisper"].stat().st_size
    reference = run_graph(graphs["whisper"], features["whisper"])[0]
    np.testing.assert_array_equal(run_graph(tmp_path / "whisper.onnx", features["whisper"])[0], reference)
    to_fp16(tmp_path / "whisper.onnx", tmp_path / "half.onnx")
    report = to_int8(tmp_path / "whisper.onnx", tmp_path / "int8.onnx", [features["whisper"]], INT8_BOUND)
    assert report.float_layers == ()
    assert compare(run_graph(tmp_path / "half.onnx", features["whisper"])[0], reference)[1] < FP16_BOUND
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {f"{n}.onnx{s}" for n in ("whisper", "half", "int8") for s in ("", ".data")}


def test_a_spoilt_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"not a graph")
    with pytest.raises(InputError, match=r"x\.onnx"):
        read_model(tmp_path / "x.onnx")


def test_compare_measures_in_the_reference_s_own_size() -> None:
    reference = np.full((2, 3), 4.0, np.float32)
    assert compare(reference + np.float32(0.5), reference) == (0.5, 0.125)
    with pytest.raises(RunError, match=r"\[3\].*\[2, 3\]"):
        compare(np.zeros(3), reference)
