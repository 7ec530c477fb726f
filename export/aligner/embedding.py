"""The embedding of an int8 graph: a table in float32 -> the same in int8 with a scale for each row, where it lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, numpy_helper

from ...models.errors import RunError
from ..graphs.builder import Operators
from ..graphs.onnx_graph import read_model, write_model

_LEVELS = 127


def round_embedding(path: Path, table: str) -> None:
    """Rewrite a graph whose rows of `table` are gathered; raises RunError when none are."""
    model = read_model(path)
    weights = next((tensor for tensor in model.graph.initializer if tensor.name == table), None)
    at = next(
        (n for n, node in enumerate(model.graph.node) if node.op_type == "Gather" and node.input[0] == table), None
    )
    if weights is None or at is None:
        raise RunError(f"{path.name} gathers no rows of {table}")
    values = numpy_helper.to_array(weights)
    scales = np.maximum(np.abs(values).max(1, keepdims=True), np.finfo(np.float32).tiny) / np.float32(_LEVELS)
    gather = model.graph.node[at]
    ops = Operators(table)
    rounded = ops.keep(f"{table}/int8", np.rint(values / scales).astype(np.int8))
    rows = ops.add("Gather", [rounded, gather.input[1]], f"{table}/rows")
    levels = ops.add("Cast", [rows], f"{table}/levels", to=TensorProto.FLOAT)
    steps = ops.add("Gather", [ops.keep(f"{table}/scales", scales), gather.input[1]], f"{table}/steps")
    ops.add("Mul", [levels, steps], gather.output[0])
    nodes = [*model.graph.node[:at], *ops.take(), *model.graph.node[at + 1 :]]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.remove(weights)
    model.graph.initializer.extend(ops.constants())
    write_model(model, path)
