"""Graph building: ONNX nodes of named operators, and their replacement in a graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

DOMAIN = "com.microsoft"


_OPSET = 21  # the first in which QuantizeLinear takes blocks; such a graph is for onnxruntime alone


def replace_nodes(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Give a graph other nodes, in order, and say that it holds onnxruntime's own operators."""
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(copies)
    del model.opset_import[:]
    model.opset_import.extend([helper.make_opsetid("", _OPSET), helper.make_opsetid(DOMAIN, 1)])


class Operators:
    """Nodes one after another, and the constants they share."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, TensorProto] = {}

    def add(
        self,
        operator: str,
        inputs: Sequence[str],
        *outputs: str,
        domain: str = "",
        name: str | None = None,
        **attributes: Any,
    ) -> str:
        """A node, named after its first output unless it has a name; returns that output."""
        named = name or outputs[0]
        self._nodes.append(helper.make_node(operator, inputs, outputs, named, domain=domain, **attributes))
        return outputs[0]

    def own(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """A node of onnxruntime's own."""
        return self.add(operator, inputs, output, domain=DOMAIN, **attributes)

    def constant(self, values: Any, dtype: str) -> str:
        """The name of a constant, stored once."""
        array = np.array(values, dtype)
        name = f"{self._prefix}/{dtype}{array.tolist() if array.size < 8 else [array.ravel()[0], array.size]}"
        self._constants.setdefault(name, numpy_helper.from_array(array, name))
        return name

    def keep(self, name: str, values: NDArray[Any]) -> str:
        """A constant of this name."""
        self._constants[name] = numpy_helper.from_array(values, name)
        return name

    def take(self) -> list[onnx.NodeProto]:
        """The nodes since the last call."""
        taken = self._nodes
        self._nodes = []
        return taken

    def constants(self) -> list[TensorProto]:
        """All that were asked for."""
        return list(self._constants.values())
