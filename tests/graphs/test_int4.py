"""int4 graphs: close to the float ones, made of the operator they should be, smaller than int8, and what is refused."""

from __future__ import annotations

import logging
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from auricle.models.errors import RunError
from auricle.models.precision import PRECISIONS

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")
from auricle.export import pipeline
from auricle.export.graphs import int4, onnx_graph
from auricle.export.graphs.int4 import rounded_weight, to_int4, write_int4
from auricle.export.graphs.int8 import write_int8
from auricle.export.graphs.linear_layers import linear_layers
from auricle.export.graphs.onnx_graph import compare, graph_info, operators, read_model, run_graph, save_graph

NAMES = ("whisper", "beats", "qformer")
BOUND = 0.2  # relative rms on real speech
Features = dict[str, dict[str, np.ndarray]]


class Layers(torch.nn.Module):
    """Linear layers one after another."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rows = torch.nn.ModuleList(torch.nn.Linear(n_in, n_out) for n_in, n_out in pairwise(widths))

    def forward(self, x: Any) -> Any:
        for row in self.rows:
            x = row(x)
        return x


def saved(folder: Path, *widths: int) -> tuple[Path, dict[str, np.ndarray]]:
    x = torch.randn(1, 50, widths[0])
    save_graph(Layers(*widths), {"x": x}, {"y": (1, 50, widths[-1])}, folder / "layers.onnx")
    return folder / "layers.onnx", {"x": x.numpy()}


def products(path: Path) -> dict[str, dict[str, int]]:
    """Each MatMulNBits by its name, with its numbers."""
    nodes = [node for node in read_model(path, weights=False).graph.node if node.op_type == "MatMulNBits"]
    return {node.name: {a.name: a.i for a in node.attribute} for node in nodes}


@pytest.mark.parametrize("name", NAMES)
def test_int4_is_close_and_multiplies_four_bits_at_accuracy_level_4(
    graphs: dict[str, Path], features: Features, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "int4.onnx"
    report = to_int4(graphs[name], path, [features[name]], BOUND)
    found, layers = products(path), linear_layers(read_model(graphs[name]))
    assert set(found) == set(layers) and report.float_layers == () and report.n_layers == len(layers)
    for layer, numbers in found.items():
        n_in, n_out = layers[layer].weight.dims
        assert numbers == {"K": n_in, "N": n_out, "bits": 4, "block_size": 32, "accuracy_level": 4}
    before, after = graph_info(graphs[name]), graph_info(path)
    assert (after.inputs, after.outputs) == (before.inputs, before.outputs)
    error = compare(run_graph(path, features[name])[0], run_graph(graphs[name], features[name])[0])[1]
    assert error == pytest.approx(report.error, rel=1e-3) and 0.02 < error <= BOUND


def test_the_worst_layers_stay_at_8_bits_until_the_budget_is_met(
    graphs: dict[str, Path], features: Features, tmp_path: Path
) -> None:
    path, feed = tmp_path / "int4.onnx", [features["whisper"]]
    loose, tight = (to_int4(graphs["whisper"], path, feed, budget) for budget in (1.0, 0.05))
    assert tight.error <= 0.05 < loose.error and loose.float_layers == () != tight.float_layers
    layers = linear_layers(read_model(graphs["whisper"]))
    assert set(products(path)) == set(layers) - set(tight.float_layers)
    kinds = {node.name: node.op_type for node in read_model(path, weights=False).graph.node}
    assert {kinds[name] for name in tight.float_layers} == {"MatMulIntegerToFloat"}


def test_a_layer_s_rounding_is_the_graph_s(tmp_path: Path) -> None:
    """Its width is no multiple of a block's. What is left is the rounding of x to 8 bits."""
    path, feed = saved(tmp_path, 80, 48)
    write_int4(path, tmp_path / "int4.onnx")
    (layer,) = linear_layers(read_model(path)).values()
    weight = layer.values(tmp_path)
    rounded = rounded_weight(weight)
    assert rounded.shape == (80, 48) and 0.03 < compare(rounded, weight)[1] < 0.12
    bias = run_graph(path, {"x": np.zeros_like(feed["x"])})[0]
    found = run_graph(tmp_path / "int4.onnx", feed)[0] - bias
    assert compare(found[0], feed["x"][0] @ rounded)[1] < 0.01


def test_weights_take_five_bits_and_less_than_int8_s(tmp_path: Path) -> None:
    path, _ = saved(tmp_path, 512, 512, 512)
    write_int4(path, tmp_path / "int4.onnx")
    write_int8(path, tmp_path / "int8.onnx")
    sizes = {name: (tmp_path / f"{name}.onnx").stat().st_size for name in ("int4", "int8")}
    assert sizes["int4"] == pytest.approx(2 * 512 * 512 * 5.125 / 8, rel=0.03) and sizes["int4"] < 0.66 * sizes["int8"]


def test_a_layer_too_narrow_is_left_as_it_is(tmp_path: Path) -> None:
    path, feed = saved(tmp_path, 64, 24, 64)
    with pytest.raises(RunError, match="no linear layer"):
        write_int4(path, tmp_path / "int4.onnx")
    path, feed = saved(tmp_path, 64, 24, 64, 64)
    report = to_int4(path, tmp_path / "int4.onnx", [feed], 0.2)
    assert list(products(tmp_path / "int4.onnx")) == ["rows.2"] and report.n_layers == 1
    assert operators(tmp_path / "int4.onnx")["MatMul"] == 2


@pytest.mark.parametrize("name", ["qformer", "whisper"])
def test_an_impossible_budget_leaves_no_file(
    graphs: dict[str, Path], features: Features, tmp_path: Path, name: str
) -> None:
    with pytest.raises(RunError, match="export it as int8"):
        to_int4(graphs[name], tmp_path / "int4.onnx", [features[name]], 1e-6)
    assert list(tmp_path.iterdir()) == []


def test_large_weights_are_mapped_from_a_file_beside_the_graph(
    graphs: dict[str, Path], features: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_int4(graphs["whisper"], tmp_path / "one.onnx", ["conv2.linear"])
    monkeypatch.setattr(onnx_graph, "EXTERNAL_BYTES", 10_000)
    write_int4(graphs["whisper"], tmp_path / "two.onnx", ["conv2.linear"])
    assert {path.name for path in tmp_path.iterdir()} == {"one.onnx", "two.onnx", "two.onnx.data"}
    one, two = (run_graph(tmp_path / f"{name}.onnx", features["whisper"])[0] for name in ("one", "two"))
    np.testing.assert_array_equal(one, two)
    onnx.checker.check_model(str(tmp_path / "two.onnx"))


def test_onnxruntime_s_quantizer_does_not_make_the_process_talk() -> None:
    """It gives the root logger a handler and level INFO when it is imported."""
    root = logging.getLogger()
    before = list(root.handlers), root.level
    int4._quantizer.cache_clear()
    int4._quantizer()
    assert (list(root.handlers), root.level) == before


def test_the_exporter_writes_it_and_says_what_it_left(
    graphs: dict[str, Path], features: Features, tmp_path: Path
) -> None:
    def write(path: Path) -> None:
        path.write_bytes(graphs["beats"].read_bytes())

    names, note = pipeline._write_graph(
        tmp_path, "beats", write, PRECISIONS["int4"], [features["beats"]], lambda *_: None
    )
    assert names == ("beats.onnx",) == tuple(path.name for path in tmp_path.iterdir())
    assert note["float_layers"] == [] and note["error"] <= PRECISIONS["int4"].budget < PRECISIONS["int4"].tolerance
    assert products(tmp_path / "beats.onnx")
