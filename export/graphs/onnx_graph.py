"""ONNX graphs: torch module -> file; file -> checks, its interface, its outputs, its distance from another."""

from __future__ import annotations

import ast
import logging
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx import TensorProto

from ...models.errors import InputError, RunError
from ...models.graph_io import GraphInfo, TensorInfo
from ...runtime.system.ort import session_settings

OPSET = 20  # Gelu and LayerNormalization are single operators; the newest that TensorRT 10's parser reads
EXTERNAL_BYTES = 1 << 28  # larger graphs keep their weights in <name>.onnx.data, from where they are mapped
_PAGE = 4096  # bytes
Shape = tuple[int | str, ...]
Arrays = Mapping[str, NDArray[np.float32]]


def save_graph(
    module: torch.nn.Module,
    inputs: Mapping[str, torch.Tensor],
    outputs: Mapping[str, Shape],
    path: Path,
    dynamic: Mapping[str, Mapping[int, str]] | None = None,
) -> GraphInfo:
    """Export a module whose parameters are named as `inputs`, in order, and check the graph's interface.

    `dynamic` names the axes of the inputs whose length is free; `outputs` gives the shapes the graph
    must have, dynamic ones by name. Raises RunError when the graph has another interface.
    """
    axes = {name: dict(dynamic.get(name, {})) if dynamic else {} for name in inputs}
    model = finish(export_module(module, inputs, outputs, dynamic).model_proto, outputs)
    write_model(model, path)
    return check_graph(path, {name: _input_shape(tensor, axes[name]) for name, tensor in inputs.items()}, outputs)


def export_module(
    module: torch.nn.Module,
    inputs: Mapping[str, torch.Tensor],
    outputs: Mapping[str, Shape],
    dynamic: Mapping[str, Mapping[int, str]] | None = None,
) -> torch.onnx.ONNXProgram:
    """What torch makes of a module; its arguments are those of `save_graph`. Raises RunError."""
    shapes = [
        {axis: torch.export.Dim(word) for axis, word in (dynamic.get(name, {}) if dynamic else {}).items()}
        for name in inputs
    ]
    with _quiet("torch.onnx"), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=tuple(shapes) if dynamic else None,
            verbose=False,
        )
    if program is None:
        raise RunError(f"torch exported nothing for {', '.join(outputs)}")
    return program


def finish(model: onnx.ModelProto, outputs: Mapping[str, Shape]) -> onnx.ModelProto:
    """Name its layers after their torch modules, its outputs' axes as asked; forget torch's notes. In place."""
    _name_nodes(model)
    _forget_origin(model)
    for value, shape in zip(model.graph.output, outputs.values(), strict=True):
        _set_shape(value, shape)
    return model


def graph_info(path: Path) -> GraphInfo:
    """A graph file's inputs and outputs, read without its weights."""
    graph = read_model(path, weights=False).graph
    return GraphInfo(path.name, tuple(map(_tensor_info, graph.input)), tuple(map(_tensor_info, graph.output)))


def check_graph(path: Path, inputs: Mapping[str, Shape], outputs: Mapping[str, Shape]) -> GraphInfo:
    """Check the graph's validity and that its interface is exactly this; raises RunError otherwise."""
    onnx.checker.check_model(str(path))
    info = graph_info(path)
    found = ({i.name: i.shape for i in info.inputs}, {o.name: o.shape for o in info.outputs})
    if found != (dict(inputs), dict(outputs)):
        raise RunError(f"{path.name} has the interface {found} where {(dict(inputs), dict(outputs))} was expected")
    return info


def read_model(path: Path, weights: bool = True) -> onnx.ModelProto:
    """Read an ONNX file; raises InputError when it is not one."""
    try:
        return onnx.load(str(path), load_external_data=weights)
    except Exception as error:  # protobuf's DecodeError has no public home
        raise InputError(f"{path} cannot be read as an ONNX graph: export it again") from error


def write_model(model: onnx.ModelProto, path: Path) -> None:
    """Write a graph, which loses its weights if over EXTERNAL_BYTES of them go to <name>.data beside it."""
    data = data_file(path)
    data.unlink(missing_ok=True)  # onnx appends to an existing one
    size = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    external: dict[str, Any] = {"save_as_external_data": True, "location": data.name, "size_threshold": 1024}
    onnx.save_model(model, str(path), **(external if size > EXTERNAL_BYTES else {}))


def data_file(path: Path) -> Path:
    """Where a graph keeps weights that are too large for it."""
    return path.with_name(path.name + ".data")


def put_beside(tensor: TensorProto, file: IO[bytes], n_bytes: int) -> None:
    """Let a tensor's data be what a data file gets next; it starts on a page of its own, so that it can be mapped."""
    file.seek(-(-file.tell() // _PAGE) * _PAGE)
    place = {"location": Path(file.name).name, "offset": str(file.tell()), "length": str(n_bytes)}
    del tensor.external_data[:]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.extend(onnx.StringStringEntryProto(key=key, value=value) for key, value in place.items())


def run_graph(path: Path, feeds: Arrays, outputs: list[str] | None = None) -> list[NDArray[np.float32]]:
    """Run a graph once on the CPU, opened as the runtime opens it."""
    session = ort.InferenceSession(str(path), session_settings(), providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(outputs, dict(feeds))]


def compare(result: NDArray[Any], reference: NDArray[Any]) -> tuple[float, float]:
    """(largest absolute difference, rms of the differences relative to the rms of the reference)."""
    if result.shape != reference.shape:
        raise RunError(f"a stage gave {list(result.shape)} where its reference gave {list(reference.shape)}")
    difference = result.astype(np.float64) - reference
    rms = float(np.sqrt(np.mean(np.square(reference, dtype=np.float64))))
    return float(np.abs(difference).max()), float(np.sqrt(np.mean(difference**2))) / max(rms, 1e-30)


def operators(path: Path) -> dict[str, int]:
    """How often each operator occurs; those outside ONNX's own domain as domain::name."""
    counts: dict[str, int] = {}
    for node in read_model(path, weights=False).graph.node:
        name = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        counts[name] = counts.get(name, 0) + 1
    return counts


def _name_nodes(model: onnx.ModelProto) -> None:
    """Name each layer's MatMul after its torch module, so that a manifest can say encoder.layers.3.fc2."""
    weights = {tensor.name for tensor in model.graph.initializer}
    taken = {node.name for node in model.graph.node}
    for node in model.graph.node:
        scopes = next((p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"), "[]")
        path = ([*ast.literal_eval(scopes), "", ""])[-4:-2] if node.op_type == "MatMul" else []
        if path and path[0] and node.input[1] in weights and path[0] not in taken:
            node.name = path[0]
            taken.add(node.name)


def _forget_origin(model: onnx.ModelProto) -> None:
    """Take out what torch notes of its own way: stack traces with this machine's paths, 30 to 180 kB."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]


@contextmanager
def _quiet(name: str | None) -> Generator[None]:
    """A library's logger says errors only."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _set_shape(value: onnx.ValueInfoProto, shape: Shape) -> None:
    dims = value.type.tensor_type.shape.dim
    if len(dims) != len(shape):
        raise RunError(f"output {value.name} has {len(dims)} axes where {len(shape)} were expected")
    for dim, size in zip(dims, shape, strict=True):
        if isinstance(size, str):
            dim.dim_param = size


def _input_shape(tensor: torch.Tensor, axes: Mapping[int, str]) -> Shape:
    return tuple(axes.get(axis, size) for axis, size in enumerate(tensor.shape))


def _tensor_info(value: onnx.ValueInfoProto) -> TensorInfo:
    if value.type.tensor_type.elem_type != TensorProto.FLOAT:
        raise RunError(f"{value.name} is not float32, as every input and output should be")
    dims = value.type.tensor_type.shape.dim
    return TensorInfo(value.name, tuple(d.dim_param if d.HasField("dim_param") else d.dim_value for d in dims))
