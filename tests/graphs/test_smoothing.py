"""Smoothing and rounding: the function of a graph unchanged, loud channels tamed, weights rounded to what was heard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from auricle.export.graphs import rounding, smoothing
from auricle.export.graphs.int8 import to_int8, write_uncalibrated
from auricle.export.graphs.linear_layers import linear_layers
from auricle.export.graphs.onnx_graph import compare, operators, read_model, run_graph, save_graph
from auricle.export.graphs.rounding import best_zero, by_row, round_weight, round_weights, rounded_weight
from auricle.export.graphs.smoothing import find_sites, smooth
from torch import nn

Features = dict[str, dict[str, np.ndarray]]


class Block(nn.Module):
    """A LayerNorm with channels a hundred times louder than others, a layer without a bias, a GELU between two."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.LayerNorm(64)
        self.key, self.first, self.second = nn.Linear(64, 32, bias=False), nn.Linear(64, 128), nn.Linear(128, 64)
        with torch.no_grad():
            self.norm.weight[:3] *= 100
            self.norm.bias[5] = 40.0
            self.first.weight[:4] *= 30

    def forward(self, x: Any) -> Any:
        y = self.norm(x)
        return torch.cat([self.second(nn.functional.gelu(self.first(y))), self.key(y)], dim=2)


@pytest.fixture(scope="module")
def block(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("block") / "block.onnx"
    save_graph(Block(), {"x": torch.randn(1, 300, 64)}, {"y": (1, 300, 96)}, path)
    return path


def noise(seed: int) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).standard_normal((1, 300, 64), np.float32)}


def test_a_smoothed_graph_is_the_same_function(block: Path, tmp_path: Path) -> None:
    smooth(block, tmp_path / "smooth.onnx", [noise(0)])
    before, after = operators(block), operators(tmp_path / "smooth.onnx")
    assert after.get("Mul", 0) - before.get("Mul", 0) == 1, "the GELU's output alone needs a product"
    assert after["Add"] - before["Add"] == 1, "the layer without a bias gets one"
    for seed in (0, 1):
        pair = (run_graph(path, noise(seed))[0] for path in (tmp_path / "smooth.onnx", block))
        assert compare(*pair)[1] < 1e-5


@pytest.mark.parametrize("name", ["whisper", "beats", "qformer"])
def test_encoders_stay_the_same_function(
    graphs: dict[str, Path], features: Features, tmp_path: Path, name: str
) -> None:
    smooth(graphs[name], tmp_path / "smooth.onnx", [features[name]])
    pair = (run_graph(path, features[name])[0] for path in (tmp_path / "smooth.onnx", graphs[name]))
    assert compare(*pair)[1] < 1e-4


def test_what_whisper_s_layers_read_is_folded_where_nothing_nonlinear_stands_between(graphs: dict[str, Path]) -> None:
    kinds = {
        site.layers[0].name.rpartition(".")[2]: type(site.maker).__name__
        for site in find_sites(read_model(graphs["whisper"]))
    }
    assert kinds == {
        "linear": "NoneType",
        "q_proj": "NodeProto",
        "out_proj": "Layer",
        "fc1": "NodeProto",
        "fc2": "NoneType",
    }


def test_loud_channels_no_longer_drown_the_others(block: Path, tmp_path: Path) -> None:
    """On features that were not calibrated on, and beside onnxruntime's own dynamic quantization of the same graph."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    report = to_int8(block, tmp_path / "int8.onnx", [noise(0)], 0.1)
    quantize_dynamic(block, tmp_path / "dynamic.onnx", per_channel=True, weight_type=QuantType.QInt8)
    wanted = run_graph(block, noise(2))[0]
    ours, plain = (compare(run_graph(tmp_path / f"{n}.onnx", noise(2))[0], wanted)[1] for n in ("int8", "dynamic"))
    assert report.float_layers == () and report.n_layers == 3
    assert ours < 0.02 and ours < 0.4 * plain


def test_rounding_to_what_was_heard_beats_rounding_to_the_nearest() -> None:
    rng = np.random.default_rng(0)
    common = rng.standard_normal((400, 8), np.float32) @ rng.standard_normal((8, 96), np.float32)
    rows = common + 0.1 * rng.standard_normal((400, 96), np.float32)
    weight = rng.standard_normal((96, 40), np.float32)
    products = torch.from_numpy(rows[:200].T @ rows[:200])
    chosen = round_weight(weight, products)
    np.testing.assert_allclose(rounded_weight(chosen), chosen, atol=1e-6)
    errors = [compare(rows[200:] @ rounded, rows[200:] @ weight)[1] for rounded in (chosen, rounded_weight(weight))]
    assert errors[0] < 0.5 * errors[1]


def test_rounded_weights_are_of_int8_s_steps(block: Path, tmp_path: Path) -> None:
    round_weights(block, tmp_path / "round.onnx", [noise(0)])
    for layer in linear_layers(read_model(tmp_path / "round.onnx")).values():
        weight = layer.values(tmp_path)
        np.testing.assert_allclose(rounded_weight(weight), weight, rtol=1e-5)


def test_a_layer_of_very_many_inputs_keeps_its_weights(
    block: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: layer.values(block.parent) for name, layer in linear_layers(read_model(block)).items()}
    widest = max(len(weight) for weight in before.values())
    monkeypatch.setattr(rounding, "MOST_INPUTS", widest - 1)
    round_weights(block, tmp_path / "round.onnx", [noise(0)])
    after = {name: layer.values(tmp_path) for name, layer in linear_layers(read_model(tmp_path / "round.onnx")).items()}
    kept = {name for name in before if np.array_equal(before[name], after[name])}
    assert kept == {name for name, weight in before.items() if len(weight) == widest} < set(before)
    monkeypatch.setattr(smoothing, "MOST_INPUTS", 0)
    smooth(block, tmp_path / "smooth.onnx", [noise(0)])
    after = {
        name: layer.values(tmp_path) for name, layer in linear_layers(read_model(tmp_path / "smooth.onnx")).items()
    }
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_rows_that_reach_one_way_have_their_zero_there() -> None:
    rows = np.abs(np.random.default_rng(0).standard_normal((50, 64), np.float32)) - np.float32(0.1)
    assert best_zero(rows) < 32 < best_zero(rows - rows.mean())
    errors = [float(np.abs(by_row(rows, zero) - rows).max()) for zero in (best_zero(rows), 128)]
    assert errors[0] < 0.7 * errors[1]


def test_without_features_products_stand_where_a_model_has_them(graphs: dict[str, Path], tmp_path: Path) -> None:
    """Random weights are for speed: nothing is measured, but all is there that a trained model's graph has."""
    write_uncalibrated(graphs["whisper"], tmp_path / "int8.onnx")
    products = [node.name for node in read_model(tmp_path / "int8.onnx").graph.node if node.name.endswith("/smooth")]
    assert len(products) == 3, "before conv2 and both fc2"
    assert list(tmp_path.iterdir()) == [tmp_path / "int8.onnx"]
