"""Linear layers of a graph: found, looked at on real features, replaced, their weights written one by one.

What int8.py, int4.py, smoothing.py and rounding.py share. A graph of any size takes the memory of its largest tensor.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from . import onnx_graph
from .builder import replace_nodes
from .onnx_graph import Arrays, read_model, run_graph

_SMALLEST_LAYER = 16  # a linear layer narrower than this gains nothing from int8
_TAPPED = 32  # values of a graph looked at in one run
_SMALL = 1024  # bytes; smaller tensors stay in the graph
_LEAST_VARIANCE = 1e-3  # of the mean: a channel that hardly varies does not count for more than this

Floats = NDArray[np.float32]


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


def channel_error(made: Floats, wanted: Floats) -> float:
    """Relative rms error of outputs [n, out], each channel against its own variance: loud ones hide no quiet ones."""
    variance = wanted.var(axis=0)
    variance += _LEAST_VARIANCE * variance.mean() + 1e-30
    return float(np.sqrt((np.square(made - wanted).mean(axis=0) / variance).mean()))


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
        add = bias_of(used, node.output[0], fitting)
        if add is not None:
            swallowed.add(id(add[0]))
        nodes += make(layer, add[1] if add else "", add[0].output[0] if add else node.output[0])
    replace_nodes(model, nodes)


def bias_of(users: Sequence[onnx.NodeProto], name: str, biases: Collection[str]) -> tuple[onnx.NodeProto, str] | None:
    """The Add that is the only use of a product, and the vector it adds."""
    if len(users) != 1 or users[0].op_type != "Add":
        return None
    other = next((i for i in users[0].input if i != name), "")
    return (users[0], other) if other in biases else None


def chunks(values: Iterable[str]) -> Iterator[list[str]]:
    """Values of a graph to be looked at in one run, _TAPPED at most."""
    names = sorted(set(values))
    for start in range(0, len(names), _TAPPED):
        yield names[start : start + _TAPPED]


def tap(path: Path, names: Sequence[str], feed: Arrays) -> dict[str, Floats]:
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
    return {name: values[name] if name in values else feed[name] for name in names}


Named = Iterable[tuple[str, NDArray[Any]]]


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
