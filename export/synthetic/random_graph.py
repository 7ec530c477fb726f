"""Graphs of random weights at full size: a weightless module -> ONNX, in little memory.

A module whose weights take no memory (each is one number, seen through strides of 0) is exported as any other. In
the graph, its weights are left empty: name, type and shape without data. They get random data when they are written.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx import TensorProto
from torch import nn

from ...models.graph_io import GraphInfo
from ...models.precision import Precision
from ..graphs.float16 import HalfPrecision
from ..graphs.onnx_graph import EXTERNAL_BYTES, Shape, check_graph, data_file, export_module, finish, put_beside
from ..graphs.weightless import SMALL
from .random_weights import Pool, float_pool

_EMPTY = "empty"
_FLOATS: dict[int, Any] = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}


def module_bytes(module: nn.Module, precision: Precision) -> int:
    """About what a module's graph takes on disk: int8 and int4 keep all but their linear layers' weights in float32."""
    weights = {id(tensor): tensor.numel() for tensor in (*module.parameters(), *module.buffers())}
    linear = {id(m.weight): m.weight.numel() for m in module.modules() if isinstance(m, nn.Linear)}
    n_linear = sum(linear.values())
    return int((sum(weights.values()) - n_linear) * precision.other_bytes + n_linear * precision.weight_bytes)


class RandomWeights:
    """Writes a weightless module's graph, filled with random weights: used where `save_graph` would be.

    half: in float16, by the same rules as graph.to_fp16.
    """

    def __init__(self, seed: int, half: bool = False) -> None:
        self._rng = np.random.default_rng(seed)
        self._half = half

    def __call__(
        self,
        module: nn.Module,
        inputs: Mapping[str, torch.Tensor],
        outputs: Mapping[str, Shape],
        path: Path,
        dynamic: Mapping[str, Mapping[int, str]] | None = None,
    ) -> GraphInfo:
        model = _export(module, inputs, outputs, dynamic)
        if self._half:
            model = _EmptyHalf(model).convert()
        self._fill(model, path)
        named = {name: (dynamic or {}).get(name, {}) for name in inputs}
        shapes = {name: tuple(named[name].get(n, size) for n, size in enumerate(x.shape)) for name, x in inputs.items()}
        return check_graph(path, shapes, outputs)

    def _fill(self, model: onnx.ModelProto, path: Path) -> None:
        """Data into the graph, or past EXTERNAL_BYTES of it beside the graph, as write_model does."""
        empty = [tensor for tensor in model.graph.initializer if _is_empty(tensor)]
        pools = {kind: float_pool(_FLOATS[kind], self._rng) for kind in {tensor.data_type for tensor in empty}}
        data_file(path).unlink(missing_ok=True)
        if sum(map(_n_bytes, empty)) > EXTERNAL_BYTES:
            with data_file(path).open("wb") as file:
                for tensor in empty:
                    _write_beside(tensor, pools[tensor.data_type], file)
        else:
            for tensor in empty:
                _write_inside(tensor, pools[tensor.data_type])
        path.write_bytes(model.SerializeToString())


def _export(
    module: nn.Module,
    inputs: Mapping[str, torch.Tensor],
    outputs: Mapping[str, Shape],
    dynamic: Mapping[str, Mapping[int, str]] | None,
) -> onnx.ModelProto:
    """As save_graph exports, but with empty weights."""
    program = export_module(module, inputs, outputs, dynamic)
    for value in program.model.graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and tensor.dtype == ir.DataType.FLOAT and tensor.size > SMALL:
            value.const_value = ir.ExternalTensor(
                _EMPTY,
                0,
                0,
                tensor.dtype,
                shape=ir.Shape(tensor.shape.numpy()),
                name=value.name or "",
                base_dir="",
            )
    return finish(ir.serde.serialize_model(program.model), outputs)


class _EmptyHalf(HalfPrecision):
    """The same conversion; an empty weight stays empty."""

    def _halve(self, name: str, new_name: str) -> None:
        weight = self.weights[name]
        if not _is_empty(weight):
            super()._halve(name, new_name)
            return
        halved = TensorProto(name=new_name, data_type=TensorProto.FLOAT16, dims=weight.dims)
        halved.data_location = TensorProto.EXTERNAL
        halved.external_data.extend(weight.external_data)
        self.graph.initializer.append(halved)


def _is_empty(tensor: TensorProto) -> bool:
    return any(entry.key == "location" and entry.value == _EMPTY for entry in tensor.external_data)


def _n_bytes(tensor: TensorProto) -> int:
    return math.prod(tensor.dims) * np.dtype(_FLOATS[tensor.data_type]).itemsize


def _write_inside(tensor: TensorProto, pool: Pool) -> None:
    del tensor.external_data[:]
    tensor.data_location = TensorProto.DEFAULT
    tensor.raw_data = b"".join(piece.tobytes() for piece in pool.take(math.prod(tensor.dims)))


def _write_beside(tensor: TensorProto, pool: Pool, file: IO[bytes]) -> None:
    put_beside(tensor, file, _n_bytes(tensor))
    for piece in pool.take(math.prod(tensor.dims)):
        piece.tofile(file)
