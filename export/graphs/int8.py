"""int8 graphs for the CPU: linear layers and attention's products in integers, the rest in float.

    x ─► DynamicQuantizeLinear ─► MatMulIntegerToFloat(int8 weights, scale per column, bias) ─► y

A layer's input is quantized once, as it comes, for all layers that read it. Weights are read, quantized and written one
by one: a graph of any size takes the memory of its largest tensor.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ...models.errors import RunError
from ..progress import Report, counter, no_report
from . import onnx_graph
from .attention import find_attention, float_attention, integer_attention, rewrite_attention
from .builder import DOMAIN, replace_nodes
from .onnx_graph import Arrays, compare, read_model, run_graph
from .patterns import Attention

LEVELS = 127.0  # weights are -127 to 127; on x86 without VNNI the runtime asks onnxruntime for exact sums
_SMALLEST_LAYER = 16  # a linear layer narrower than this gains nothing from int8
_TAPPED = 32  # values of a graph looked at in one run
_SMALL = 1024  # bytes; smaller tensors stay in the graph

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Quantized:
    """What it cost: relative rms against the float graph, and layers left in float (in int4 at 8 bits), worst first."""

    error: float
    float_layers: tuple[str, ...]
    n_layers: int  # that could be quantized


Write = Callable[[Path, Path, Collection[str]], None]
"""From a graph to another, with these layers left finer."""


def to_int8(
    path_in: Path, path_out: Path, feeds: Sequence[Arrays], budget: float, report: Report = no_report
) -> Quantized:
    """Write an int8 copy that differs from the float graph by at most `budget` (relative rms, worst feed).

    Each layer's own error is measured on `feeds` (real features); the worst are left in float until the budget is met.
    Raises RunError when it cannot be met with at least one layer in int8.
    """
    ranked = rank_layers(path_in, feeds, report)
    found = meet_budget(path_in, path_out, feeds, budget, tuple(ranked), write_int8, report)
    if found is None:
        raise RunError(f"{path_in.name} cannot be int8 within a relative error of {budget}: export it as fp16")
    return found


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
        write(path_in, path_out, names)
        tick(1)
        error = max(compare(*pair)[1] for pair in zip(_run_each(path_out, feeds, tick), reference, strict=True))
        if error <= budget:
            return Quantized(error, names, len(ranked))
    for leftover in (path_out, onnx_graph.data_file(path_out)):
        leftover.unlink(missing_ok=True)
    return None


def write_int8(path_in: Path, path_out: Path, float_layers: Collection[str] = ()) -> None:
    """Write a copy whose linear layers and attention, but for `float_layers`, are int8; attention in float is fused.

    Weights are symmetric, a scale per output. Raises RunError when no linear layer is left to quantize.
    """
    model = read_model(path_in, weights=False)
    layers = {name: layer for name, layer in linear_layers(model).items() if name not in float_layers}
    if not layers:
        raise RunError(f"{path_in.name} has no linear layer to quantize")
    attention = find_attention(model).values()
    kept = [each for each in attention if each.name in float_layers]
    rewrite_attention(model, kept, [each for each in attention if each.name not in float_layers], path_in.parent)
    use_integers(model, layers)
    size = sum(math.prod(layer.weight.dims) for layer in layers.values())
    write_tensors(model, size, int8_weights(layers, path_in.parent), path_in.parent, path_out)


def rank_layers(path: Path, feeds: Sequence[Arrays], report: Report = no_report) -> dict[str, float]:
    """Linear layers and attentions, and the relative rms error int8 makes in each alone on these feeds, worst first.

    Raises RunError when the graph has no linear layer.
    """
    model = read_model(path, weights=False)
    linear = linear_layers(model)
    if not linear:
        raise RunError(f"{path.name} has no linear layer to quantize")
    return rank(path, feeds, {**linear, **find_attention(model)}, _error, report)


Judge = Callable[["Layer | Attention", Mapping[str, Floats], Path], float]
"""A layer's relative rms error, from the values it reads; the directory is where the graph lies."""


def rank(
    path: Path, feeds: Sequence[Arrays], layers: Mapping[str, Layer | Attention], judge: Judge, report: Report
) -> dict[str, float]:
    """Each layer's error on its worst feed, worst first."""
    worst: dict[str, float] = dict.fromkeys(layers, 0.0)
    groups = _groups({name: _sources(layer) for name, layer in layers.items()})
    tick = counter(report, f"layers of {path.name.split('.')[0]}", len(feeds) * len(layers))
    for group, feed in product(groups, feeds):
        values = sorted({value for name in group for value in _sources(layers[name])})
        seen = dict(zip(values, _tap(path, values, feed), strict=True))
        for name in group:
            worst[name] = max(worst[name], judge(layers[name], seen, path.parent))
            tick(1)
    return dict(sorted(worst.items(), key=lambda item: -item[1]))


def _groups(sources: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Layers to be looked at in one run, so that it brings some _TAPPED values or little more."""
    groups: list[list[str]] = [[]]
    values: set[str] = set()
    for name in sorted(sources, key=lambda name: sources[name][0]):
        if len(values) >= _TAPPED:
            groups.append([])
            values.clear()
        groups[-1].append(name)
        values.update(sources[name])
    return groups


def _sources(layer: Layer | Attention) -> tuple[str, ...]:
    return layer.inputs if isinstance(layer, Attention) else (layer.source,)


def _error(layer: Layer | Attention, seen: Mapping[str, Floats], directory: Path) -> float:
    """Relative rms error on some of the rows."""
    if isinstance(layer, Layer):
        return _layer_error(seen[layer.source], layer.values(directory))
    q, k, v = (seen[name][0] for name in layer.inputs)
    rows = slice(None, None, max(1, len(q) // 64))
    far = None if layer.far is None else layer.far.read(directory)
    made, wanted = (f(q, k, v, layer.n_heads, rows, far) for f in (integer_attention, float_attention))
    return compare(made, wanted)[1]


@dataclass(frozen=True)
class Layer:
    """x @ weight, and + bias where one follows: what int8 can take over."""

    name: str
    source: str
    """The value it reads."""
    weight: TensorProto
    """float32 [in, out]."""

    def values(self, directory: Path) -> Floats:
        """The weight, read from the graph or from the file beside it in `directory`."""
        return numpy_helper.to_array(self.weight, str(directory))


def linear_layers(model: onnx.ModelProto) -> dict[str, Layer]:
    """By name, in order. Nothing is read but the graph."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    return {
        node.name: Layer(node.name, node.input[0], weights[node.input[1]])
        for node in model.graph.node
        if node.op_type == "MatMul" and _is_wide(weights.get(node.input[1]))
    }


def _is_wide(weight: TensorProto | None) -> bool:
    return weight is not None and len(weight.dims) == 2 and min(weight.dims) >= _SMALLEST_LAYER


def use_integers(model: onnx.ModelProto, layers: Mapping[str, Layer]) -> None:
    """Each layer becomes an integer product; an input is quantized where the first layer reads it."""
    quantized: set[str] = set()

    def make(layer: Layer, bias: str, output: str) -> list[onnx.NodeProto]:
        nodes = [_integer_product(layer, bias, output)]
        if layer.source not in quantized:
            quantized.add(layer.source)
            nodes.insert(0, helper.make_node("DynamicQuantizeLinear", [layer.source], _quantized(layer.source)))
        return nodes

    replace_products(model, layers, make)


def replace_products(
    model: onnx.ModelProto, layers: Mapping[str, Layer], make: Callable[[Layer, str, str], list[onnx.NodeProto]]
) -> None:
    """Each layer's MatMul, with the Add of its bias, becomes what is made of the layer, the bias or "", the output."""
    biases = {t.name: tuple(t.dims) for t in model.graph.initializer if len(t.dims) == 1}
    outputs = {value.name for value in model.graph.output}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    nodes: list[onnx.NodeProto] = []
    swallowed: set[int] = set()
    for node in model.graph.node:
        if id(node) in swallowed:
            continue
        if (layer := layers.get(node.name)) is None:
            nodes.append(node)
            continue
        fitting = {name for name, dims in biases.items() if dims == (layer.weight.dims[1],)}
        used = [] if node.output[0] in outputs else users.get(node.output[0], [])
        add = _bias_of(used, node.output[0], fitting)
        if add is not None:
            swallowed.add(id(add[0]))
        nodes += make(layer, add[1] if add else "", add[0].output[0] if add else node.output[0])
    replace_nodes(model, nodes)


def _bias_of(users: Sequence[onnx.NodeProto], name: str, biases: Collection[str]) -> tuple[onnx.NodeProto, str] | None:
    """The Add that is the only use of a product, and the vector it adds."""
    if len(users) != 1 or users[0].op_type != "Add":
        return None
    other = next((i for i in users[0].input if i != name), "")
    return (users[0], other) if other in biases else None


def _quantized(source: str) -> list[str]:
    return [f"{source}/int8", f"{source}/scale", f"{source}/zero"]


def _integer_product(layer: Layer, bias: str, output: str) -> onnx.NodeProto:
    x, scale, zero = _quantized(layer.source)
    weight, weight_scale = _weight_names(layer)
    inputs = [x, weight, scale, weight_scale, zero, "", bias]
    return helper.make_node("MatMulIntegerToFloat", inputs if bias else inputs[:5], [output], layer.name, domain=DOMAIN)


def _weight_names(layer: Layer) -> tuple[str, str]:
    return f"{layer.name}/int8", f"{layer.name}/scales"


def quantize_weight(weight: Floats) -> tuple[NDArray[np.int8], Floats]:
    """int8 [in, out] and the scale of each column, float32 [out]."""
    scale = np.maximum(np.abs(weight).max(axis=0), 1e-30) / np.float32(LEVELS)
    return np.rint(weight / scale).astype(np.int8), scale.astype(np.float32)


Named = Iterable[tuple[str, NDArray[Any]]]


def int8_weights(layers: Mapping[str, Layer], directory: Path) -> Named:
    """What `use_integers` reads, one layer in memory at a time."""
    for layer in layers.values():
        yield from zip(_weight_names(layer), quantize_weight(layer.values(directory)), strict=True)


def write_tensors(model: onnx.ModelProto, n_bytes: int, made: Named, source: Path, path: Path) -> None:
    """Write a graph with the constants of it that are used and those that are `made`, some n_bytes, one after another.

    Into the graph, or past graph.EXTERNAL_BYTES of them to the file beside it. `source` is where the graph lay.
    """
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    n_bytes += sum(math.prod(t.dims) * helper.tensor_dtype_to_np_dtype(t.data_type).itemsize for t in kept)
    onnx_graph.data_file(path).unlink(missing_ok=True)
    with ExitStack() as stack:
        external = n_bytes > onnx_graph.EXTERNAL_BYTES
        data = stack.enter_context(onnx_graph.data_file(path).open("wb")) if external else None
        tensors = [_stored(tensor.name, numpy_helper.to_array(tensor, str(source)), data) for tensor in kept]
        tensors += [_stored(name, values, data) for name, values in made]
    del model.graph.initializer[:]
    model.graph.initializer.extend(tensors)
    path.write_bytes(model.SerializeToString())


def _stored(name: str, values: NDArray[Any], data: IO[bytes] | None) -> TensorProto:
    """As a tensor of the graph; a large one, where there is a data file, as its place in that."""
    if data is None or values.nbytes < _SMALL:
        return numpy_helper.from_array(values, name)
    tensor = TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(values.dtype), dims=values.shape)
    onnx_graph.put_beside(tensor, data, values.nbytes)
    np.ascontiguousarray(values).tofile(data)
    return tensor


def _run_each(path: Path, feeds: Sequence[Arrays], tick: Callable[[int], None]) -> list[Floats]:
    """The first output on each feed."""
    outputs: list[Floats] = []
    for feed in feeds:
        outputs.append(run_graph(path, feed)[0])
        tick(1)
    return outputs


def _tap(path: Path, names: list[str], feed: Arrays) -> list[Floats]:
    """Values inside a graph, by running a copy in which they are outputs too."""
    model = read_model(path, weights=False)
    known = {value.name: value for value in (*model.graph.value_info, *model.graph.output)}
    present = {value.name for value in model.graph.output}
    inside = [name for name in names if name not in feed]
    model.graph.output.extend(known[name] for name in inside if name not in present)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.stem, suffix=".onnx") as file:
        file.write(model.SerializeToString())
        file.flush()
        values = dict(zip(inside, run_graph(Path(file.name), feed, inside), strict=True)) if inside else {}
    return [values[name] if name in values else feed[name] for name in names]


def _layer_error(x: Floats, weight: Floats) -> float:
    """Relative rms error of x @ weight when both are quantized as onnxruntime does, on some 256 rows of x."""
    rows = x.reshape(-1, x.shape[-1])
    low = min(float(rows.min()), 0.0)
    high = max(float(rows.max()), 0.0)
    rows = rows[:: max(1, len(rows) // 256)]
    step = max((high - low) / 255.0, 1e-30)
    zero = np.rint(-low / step)
    coarse_x = (np.clip(np.rint(rows / step) + zero, 0, 255) - zero) * step
    coarse_weight, scale = quantize_weight(weight)
    return compare(coarse_x @ (coarse_weight * scale), rows @ weight)[1]
