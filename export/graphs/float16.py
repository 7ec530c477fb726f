"""float16 graphs: float32 graph -> weights and products in half precision, what overflows left in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ...models.errors import RunError
from .onnx_graph import read_model, write_model

_FLOAT32_OPERATORS = ("LayerNormalization", "Softmax", "Range", "Cast")


def to_fp16(path_in: Path, path_out: Path) -> None:
    """Write a float16 copy: inputs and outputs stay float32, and so do LayerNorm, softmax and its logits.

    Raises RunError when a weight is beyond float16's range.
    """
    model = read_model(path_in)
    write_model(HalfPrecision(model).convert(), path_out)
    onnx.checker.check_model(str(path_out))
    if not any(t.data_type == TensorProto.FLOAT16 for t in read_model(path_out, weights=False).graph.initializer):
        raise RunError(f"{path_out.name} holds no float16 weight")


class HalfPrecision:
    """One pass over a graph in order, casting where a node's precision differs from its input's."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.graph = model.graph
        values = (*self.graph.input, *self.graph.value_info, *self.graph.output)
        self.types = {v.name: v.type.tensor_type.elem_type for v in values}
        self.types |= {t.name: t.data_type for t in self.graph.initializer}
        self.weights = {t.name: t for t in self.graph.initializer}
        self.casts: dict[tuple[str, int], str] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.full = _full_precision_nodes(self.graph)

    def convert(self) -> onnx.ModelProto:
        outputs = {value.name for value in self.graph.output}
        for node in list(self.graph.node):
            wanted = TensorProto.FLOAT if node.output[0] in self.full else TensorProto.FLOAT16
            for index, name in enumerate(node.input):
                if self._is_float(name):
                    node.input[index] = self._as(name, wanted)
            self.nodes.append(node)
            for index, name in enumerate(node.output):
                if not self._is_float(name):
                    continue
                self.types[name] = wanted
                if name in outputs and wanted == TensorProto.FLOAT16:
                    node.output[index] = f"{name}/half"
                    self._cast(f"{name}/half", name, TensorProto.FLOAT)
        return self._rebuilt()

    def _is_float(self, name: str) -> bool:
        return self.types.get(name) in (TensorProto.FLOAT, TensorProto.FLOAT16)

    def _as(self, name: str, wanted: int) -> str:
        if self.types[name] == wanted:
            return name
        if (name, wanted) not in self.casts:
            self.casts[name, wanted] = f"{name}/{'half' if wanted == TensorProto.FLOAT16 else 'float'}"
            if name in self.weights:
                self._halve(name, self.casts[name, wanted])
            else:
                self._cast(name, self.casts[name, wanted], wanted)
        return self.casts[name, wanted]

    def _halve(self, name: str, new_name: str) -> None:
        with np.errstate(over="ignore"):
            values = numpy_helper.to_array(self.weights[name]).astype(np.float16)
        if not np.isfinite(values).all():
            raise RunError(f"weight {name} is beyond float16's range: export the encoders as fp32")
        self.graph.initializer.append(numpy_helper.from_array(values, new_name))

    def _cast(self, source: str, target: str, to: int) -> None:
        self.nodes.append(helper.make_node("Cast", [source], [target], name=f"cast/{target}", to=to))

    def _rebuilt(self) -> onnx.ModelProto:
        used = {name for node in self.nodes for name in node.input}
        kept = [tensor for tensor in self.graph.initializer if tensor.name in used]
        del self.graph.initializer[:], self.graph.node[:], self.graph.value_info[:]
        self.graph.initializer.extend(kept)
        self.graph.node.extend(self.nodes)
        return self.model


def _full_precision_nodes(graph: onnx.GraphProto) -> set[str]:
    """First outputs of the nodes that stay float32: norms, softmaxes, sums and products before a softmax."""
    producer = {name: node for node in graph.node for name in node.output}
    full = {node.output[0] for node in graph.node if node.op_type in _FLOAT32_OPERATORS}
    queue = [node for node in graph.node if node.op_type == "Softmax"]
    while queue:
        for name in queue.pop().input:
            before = producer.get(name)
            if before is not None and before.op_type in ("Add", "Mul") and before.output[0] not in full:
                full.add(before.output[0])
                queue.append(before)
    return full
