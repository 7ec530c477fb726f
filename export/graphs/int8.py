"""int8 graphs for the CPU: linear layers and attention's products in integers, the rest in float.

    x ─► u8, a scale per row ─► MatMulIntegerToFloat(int8 weights, scale per column) ─► x row scale + bias ─► y
    x ─► DynamicQuantizeLinear ─► MatMulIntegerToFloat(int8 weights, scale per column, bias) ─► y

The second form, with one scale for all of x, is where rows would cost much and gain little. Before that the graph is
smoothed and its weights are rounded to what was heard on the feeds (smoothing.py, rounding.py). An input is quantized
once, as it comes, for all layers that read it. Weights are read, quantized and written one by one: a graph of any size
takes the memory of its largest tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from ...models.errors import RunError
from ..progress import Report, counter, no_report
from . import onnx_graph
from .attention import WIDEST, find_attention, float_attention, integer_attention, rewrite_attention, separate_heads
from .builder import Operators
from .linear_layers import (
    Floats,
    Layer,
    Named,
    channel_error,
    chunks,
    linear_layers,
    replace_products,
    tap,
    write_tensors,
)
from .onnx_graph import Arrays, compare, read_model, run_graph
from .patterns import Attention
from .rounding import (
    INPUT_LEVELS,
    MIDDLE,
    SMALLEST_SCALE,
    by_row,
    by_tensor,
    quantize_weight,
    round_weights,
    rounded_weight,
)
from .smoothing import smooth

_WORTH = 0.75  # of the error with one scale: what a scale per row must bring a layer's to
_ROWS = 256  # of a layer's input are looked at
_QUERIES = 64  # of an attention's


@dataclass(frozen=True)
class Quantized:
    """What it cost: relative rms against the float graph, and layers left in float (in int4 at 8 bits), worst first."""

    error: float
    float_layers: tuple[str, ...]
    n_layers: int  # that could be quantized


Write = Callable[[Path, Collection[str]], None]
"""Write a graph with these layers left finer."""


def to_int8(
    path_in: Path, path_out: Path, feeds: Sequence[Arrays], budget: float, report: Report = no_report
) -> Quantized:
    """Write an int8 copy that differs from the float graph by at most `budget` (relative rms, worst feed).

    Each layer's own error is measured on `feeds` (real features); the worst are left in float until the budget is met.
    Raises RunError when it cannot be met with at least one layer in int8.
    """
    _require_layers(path_in)
    smoothed, prepared = (path_out.with_name(f"{path_out.stem}.{step}.onnx") for step in ("smoothed", "prepared"))
    try:
        zeros = smooth(path_in, smoothed, feeds, report)
        round_weights(smoothed, prepared, feeds, report)
        _remove(smoothed)
        ranked = rank_layers(prepared, feeds, report, zeros)
        write = partial(write_int8, prepared, forms=_forms(prepared, ranked, zeros))
        found = meet_budget(path_in, path_out, feeds, budget, tuple(ranked), write, report)
    finally:
        _remove(smoothed)
        _remove(prepared)
    if found is None:
        raise RunError(f"{path_in.name} cannot be int8 within a relative error of {budget}: export it as fp16")
    return found


def write_uncalibrated(path_in: Path, path_out: Path) -> None:
    """Write what to_int8 would of a model of these sizes, nothing measured: for random weights' speed and memory."""
    _require_layers(path_in)
    smoothed = path_out.with_name(f"{path_out.stem}.smoothed.onnx")
    try:
        smooth(path_in, smoothed, ())
        write_int8(smoothed, path_out, forms=_forms(smoothed))
    finally:
        _remove(smoothed)


def _remove(path: Path) -> None:
    for each in (path, onnx_graph.data_file(path)):
        each.unlink(missing_ok=True)


def _require_layers(path: Path) -> None:
    if not linear_layers(read_model(path, weights=False)):
        raise RunError(f"{path.name} has no linear layer to quantize")


def meet_budget(
    path_in: Path,
    path_out: Path,
    feeds: Sequence[Arrays],
    budget: float,
    ranked: Sequence[str],
    write: Write,
    report: Report,
) -> Quantized | None:
    """Leave more and more of the ranked layers, until the budget is met; None, and no file, when all would be left."""
    trials = range(0, len(ranked), max(1, len(ranked) // 16))
    tick = counter(report, f"quantize {path_out.stem}", len(feeds) + len(trials) * (1 + len(feeds)))
    reference = _run_each(path_in, feeds, tick)
    linear = set(linear_layers(read_model(path_in, weights=False))) & set(ranked)
    for left in trials:
        names = tuple(ranked)[:left]
        if linear <= set(names):
            break
        write(path_out, names)
        tick(1)
        error = max(compare(*pair)[1] for pair in zip(_run_each(path_out, feeds, tick), reference, strict=True))
        if error <= budget:
            return Quantized(error, names, len(ranked))
    _remove(path_out)
    return None


def write_int8(
    path_in: Path, path_out: Path, float_layers: Collection[str] = (), forms: Mapping[str, int | None] | None = None
) -> None:
    """Write a copy whose linear layers and attention, but for `float_layers`, are int8; attention in float is fused.

    `forms` says of each value that layers read on which level its rows have their zero, or None for one scale for all
    of it; unnamed ones are by row around MIDDLE. Weights are symmetric, a scale per output. Raises RunError when no
    linear layer is left to quantize.
    """
    model = read_model(path_in, weights=False)
    layers = {name: layer for name, layer in linear_layers(model).items() if name not in float_layers}
    if not layers:
        raise RunError(f"{path_in.name} has no linear layer to quantize")
    attention = find_attention(model).values()
    kept = [each for each in attention if each.name in float_layers]
    rewrite_attention(model, kept, [each for each in attention if each.name not in float_layers], path_in.parent)
    separate_heads(model)
    use_integers(model, layers, forms)
    size = sum(math.prod(layer.weight.dims) for layer in layers.values())
    write_tensors(model, size, int8_weights(layers, path_in.parent), path_in.parent, path_out)


Errors = tuple[float, ...]
"""A layer's relative error by each form of its input that there is."""
Judge = Callable[["Layer | Attention", Mapping[str, Floats], Path], Errors]
"""A layer's errors, from the values it reads; the directory is where the graph lies."""


def rank_layers(
    path: Path, feeds: Sequence[Arrays], report: Report = no_report, zeros: Mapping[str, int] | None = None
) -> dict[str, Errors]:
    """Linear layers and attentions, and the error int8 makes in each alone on these feeds, worst first.

    Of a layer: with a scale per row, its zero as named, and with one scale. Raises RunError when the graph has no
    linear layer.
    """
    _require_layers(path)
    model = read_model(path, weights=False)
    judge = partial(_errors, zeros=zeros or {})
    return rank(path, feeds, {**linear_layers(model), **find_attention(model)}, judge, report)


def rank(
    path: Path, feeds: Sequence[Arrays], layers: Mapping[str, Layer | Attention], judge: Judge, report: Report
) -> dict[str, Errors]:
    """Each layer's errors on its worst feed, by the least of them worst first."""
    worst: dict[str, Errors] = {}
    tick = counter(report, f"layers of {path.name.split('.')[0]}", len(feeds) * len(layers))
    firsts = {name: _sources(layer)[0] for name, layer in layers.items()}
    for chunk in chunks(firsts.values()):
        group = [name for name in layers if firsts[name] in chunk]
        values = sorted({value for name in group for value in _sources(layers[name])})
        for feed in feeds:
            seen = tap(path, values, feed)
            for name in group:
                found = judge(layers[name], seen, path.parent)
                worst[name] = tuple(map(max, zip(worst.get(name, found), found, strict=True)))
                tick(1)
    return dict(sorted(worst.items(), key=lambda item: -min(item[1])))


def _sources(layer: Layer | Attention) -> tuple[str, ...]:
    return layer.inputs if isinstance(layer, Attention) else (layer.source,)


def _errors(layer: Layer | Attention, seen: Mapping[str, Floats], directory: Path, zeros: Mapping[str, int]) -> Errors:
    if isinstance(layer, Layer):
        return _layer_errors(seen[layer.source], layer.values(directory), zeros.get(layer.source, MIDDLE))
    q, k, v = (seen[name][0] for name in layer.inputs)
    rows = slice(None, None, max(1, len(q) // _QUERIES))
    far = None if layer.far is None else layer.far.read(directory)
    made, wanted = (f(q, k, v, layer.n_heads, rows, far) for f in (integer_attention, float_attention))
    return (channel_error(made, wanted),)


def _layer_errors(x: Floats, weight: Floats, zero: int) -> Errors:
    """Of x @ weight when both are quantized: with a scale per row, with one scale; on some of the rows."""
    rows = x.reshape(-1, x.shape[-1])
    low, high = float(rows.min()), float(rows.max())
    rows = rows[:: max(1, len(rows) // _ROWS)]
    coarse = rounded_weight(weight)
    wanted = rows @ weight
    return tuple(channel_error(x @ coarse, wanted) for x in (by_row(rows, zero), by_tensor(rows, low, high)))


def _forms(
    path: Path, ranked: Mapping[str, Errors] | None = None, zeros: Mapping[str, int] | None = None
) -> dict[str, int | None]:
    """How each input is rounded: see write_int8.

    A scale per row costs a layer that is wider behind than before most, and must gain much there.
    """
    layers = linear_layers(read_model(path, weights=False))
    forms: dict[str, int | None] = {layer.source: None for layer in layers.values()}
    for name, layer in layers.items():
        n_in, n_out = layer.weight.dims
        rows, tensor = ranked[name] if ranked else (1.0, 1.0)
        if rows <= tensor * (1 if n_out <= n_in else _WORTH):
            forms[layer.source] = (zeros or {}).get(layer.source, MIDDLE)
    return forms


def use_integers(
    model: onnx.ModelProto, layers: Mapping[str, Layer], forms: Mapping[str, int | None] | None = None
) -> None:
    """Each layer becomes an integer product; an input is quantized where the first layer reads it."""
    quantized: set[str] = set()
    ops = Operators("linear")

    def make(layer: Layer, bias: str, output: str) -> list[onnx.NodeProto]:
        x = layer.source
        zero = (forms or {}).get(x, MIDDLE)
        if x not in quantized:
            quantized.add(x)
            _quantize_tensor(ops, x) if zero is None else _quantize_rows(ops, x, zero)
        _product(ops, layer, bias, output) if zero is None else _product_of_rows(ops, layer, bias, output, zero)
        return ops.take()

    replace_products(model, layers, make)
    model.graph.initializer.extend(ops.constants())


def _quantize_tensor(ops: Operators, x: str) -> None:
    ops.add("DynamicQuantizeLinear", [x], *(f"{x}/{part}" for part in ("int8", "scale", "zero")))


def _product(ops: Operators, layer: Layer, bias: str, output: str) -> None:
    weight, scales = _weight_names(layer)
    x, scale, zero = (f"{layer.source}/{part}" for part in ("int8", "scale", "zero"))
    inputs = [x, weight, scale, scales, zero, "", bias]
    ops.own("MatMulIntegerToFloat", inputs if bias else inputs[:5], output, name=layer.name)


def _quantize_rows(ops: Operators, x: str, zero: int) -> None:
    """Around zero in uint8: both numbers with a sign would be far slower."""
    name = f"{x}/rows"
    last = ops.constant([-1], "int64")
    high = ops.add("ReduceMax", [x, last], f"{name}/high", keepdims=1)
    low = ops.add("ReduceMin", [x, last], f"{name}/low", keepdims=1)
    above = ops.add("Mul", [high, ops.constant(1 / (INPUT_LEVELS - zero), "float32")], f"{name}/above")
    below = ops.add("Mul", [low, ops.constant(-1 / zero, "float32")], f"{name}/below")
    step = ops.add("Max", [above, below, ops.constant(SMALLEST_SCALE, "float32")], f"{name}/step")
    shape = ops.add("Shape", [step], f"{name}/shape")
    value = numpy_helper.from_array(np.array([zero], np.uint8))
    zeros = ops.add("ConstantOfShape", [shape], f"{name}/zeros", value=value)
    ops.add("QuantizeLinear", [x, step, zeros], f"{name}/int8", axis=-1, block_size=WIDEST)


def _product_of_rows(ops: Operators, layer: Layer, bias: str, output: str, zero: int) -> None:
    weight, scales = _weight_names(layer)
    x, step = f"{layer.source}/rows/int8", f"{layer.source}/rows/step"
    inputs = [x, weight, ops.constant([1.0], "float32"), scales, ops.constant(zero, "uint8")]
    levels = ops.own("MatMulIntegerToFloat", inputs, f"{output}/levels", name=layer.name)
    scaled = ops.add("Mul", [levels, step], f"{output}/scaled" if bias else output)
    if bias:
        ops.add("Add", [scaled, bias], output)


def _weight_names(layer: Layer) -> tuple[str, str]:
    return f"{layer.name}/int8", f"{layer.name}/scales"


def int8_weights(layers: Mapping[str, Layer], directory: Path) -> Named:
    """What `use_integers` reads, one layer in memory at a time."""
    for layer in layers.values():
        yield from zip(_weight_names(layer), quantize_weight(layer.values(directory)), strict=True)


def _run_each(path: Path, feeds: Sequence[Arrays], tick: Callable[[int], None]) -> list[Floats]:
    """The first output on each feed."""
    outputs: list[Floats] = []
    for feed in feeds:
        outputs.append(run_graph(path, feed)[0])
        tick(1)
    return outputs
