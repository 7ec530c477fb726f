"""Attention found in ONNX graphs: a graph -> the nodes of each attention and of its relative positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper


@dataclass(frozen=True)
class Attention:
    """softmax(q k^T + far) v of one layer, as torch's exporter writes it; the scale is in q already."""

    name: str
    """Of its torch module."""
    nodes: tuple[onnx.NodeProto, ...]
    """All that it is made of; the last gives its output [1, n, n_heads * d_head]."""
    inputs: tuple[str, str, str]
    """q, k and v, [1, n, n_heads * d_head]."""
    n_heads: int
    d_head: int
    far: Far | None = None
    """What relative positions add to the scores, where there are any."""


@dataclass(frozen=True)
class BiasedAttention:
    """softmax(factor q k^T + gate bias) v of one layer, as torch's exporter writes BEATs': [1, n_heads, ...] each."""

    nodes: tuple[onnx.NodeProto, ...]
    """All that it is made of; the last gives its output [1, n_heads, n, d_head]."""
    inputs: tuple[str, str, str]
    """q [1, n_heads, n, d_head], k turned [1, n_heads, d_head, n], v as q."""
    factor: str
    """A scalar."""
    gate: str
    """[1, n_heads, n, 1]."""
    table: TensorProto
    """float32 [n_heads, distances]: one bias for all layers."""
    index: str
    """int64 [n, n]: the distance of each query and key, a column of the table."""
    bias: tuple[onnx.NodeProto, ...]
    """What all layers make their bias of, together."""


class Graph:
    """Who makes a value, and who uses it."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._constants: Mapping[str, TensorProto] = {t.name: t for t in graph.initializer}
        self._maker = {name: node for node in graph.node for name in node.output}
        self._users: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._users.setdefault(name, []).append(node)

    def attention(self, softmax: onnx.NodeProto) -> Attention | None:
        """The attention around a softmax, if it has exactly the known form."""
        added = self.made_by(softmax.input[0], "Add")
        near = softmax.input[0] if added is None else next((i for i in added.input if self.made_by(i, "MatMul")), "")
        scores = self.made_by(near, "MatMul")
        mix = self._only_user(softmax.output[0], "MatMul")
        if scores is None or mix is None or mix.input[0] != softmax.output[0]:
            return None
        q = self.heads(scores.input[0], (0, 2, 1, 3))
        k = self.heads(scores.input[1], (0, 2, 3, 1))
        v = self.heads(mix.input[1], (0, 2, 1, 3))
        joined = self._only_user(mix.output[0], "Transpose")
        flat = joined and self._only_user(joined.output[0], "Reshape")
        if joined is None or flat is None or _permutation(joined) != (0, 2, 1, 3):
            return None
        if q is None or k is None or v is None or not q[2:] == k[2:] == v[2:]:
            return None
        inputs = (q[1].input[0], k[1].input[0], v[1].input[0])
        far = None if added is None else find_far(self, added, inputs[0])
        if added is not None and far is None:
            return None
        nodes = (*(far.nodes if far else ()), softmax, scores, mix, *q[:2], *k[:2], *v[:2], joined, flat)
        return Attention(self._module(inputs[1]) or f"attention/{softmax.name}", nodes, inputs, *q[2:], far)

    def biased_attention(self, softmax: onnx.NodeProto) -> BiasedAttention | None:
        """The attention with a gated bias around a softmax, if it has exactly the known form."""
        added = self.made_by(softmax.input[0], "Add")
        mix = self._only_user(softmax.output[0], "MatMul")
        if added is None or mix is None or mix.input[0] != softmax.output[0]:
            return None
        scaled, gated = (self.made_by(name, "Mul") for name in added.input)
        if scaled is None or gated is None or self.constant(scaled.input[1]) is None:
            return None
        scores = self.made_by(scaled.input[0], "MatMul")
        bias, gather = (self.behind(gated.input[1], *row) for row in (("Reshape",), ("Reshape", "Gather")))
        if scores is None or bias is None or gather is None:
            return None
        flat, table = self.behind(gather.input[1], "Reshape"), self.constant(gather.input[0])
        if flat is None or table is None:
            return None
        nodes = (scores, scaled, gated, added, softmax, mix)
        inputs = (scores.input[0], scores.input[1], mix.input[1])
        return BiasedAttention(
            nodes, inputs, scaled.input[1], gated.input[0], table, flat.input[0], (bias, gather, flat)
        )

    def heads(self, name: str, permutation: tuple[int, ...]) -> tuple[onnx.NodeProto, onnx.NodeProto, int, int] | None:
        """Transpose, Reshape, the number of heads and their width, behind a value [1, heads, ...]."""
        turned = self.made_by(name, "Transpose")
        split = turned and self.made_by(turned.input[0], "Reshape")
        if turned is None or split is None or _permutation(turned) != permutation:
            return None
        shape = self._constants.get(split.input[1])
        sizes = numpy_helper.to_array(shape).tolist() if shape is not None else []
        one_clip = len(sizes) == 4 and sizes[0] == 1 and min(sizes[2:]) > 0
        return (turned, split, sizes[2], sizes[3]) if one_clip else None

    def _module(self, key: str) -> str | None:
        """The torch module whose key projection made this value."""
        maker = self._maker.get(key)
        while maker is not None and maker.op_type in ("Add", "Mul"):
            maker = next((self._maker[i] for i in maker.input if i in self._maker), None)
        return maker.name.rpartition(".")[0] if maker is not None and maker.op_type == "MatMul" else None

    def constant(self, name: str) -> TensorProto | None:
        """An initializer."""
        return self._constants.get(name)

    def behind(self, name: str, *operators: str) -> onnx.NodeProto | None:
        """The last of a row of makers of these kinds, whoever else uses them."""
        node: onnx.NodeProto | None = None
        for operator in operators:
            node = self._maker.get(name)
            if node is None or node.op_type != operator:
                return None
            name = node.input[0]
        return node

    def made_by(self, name: str, operator: str) -> onnx.NodeProto | None:
        """Its maker, when it is of this kind and nobody else uses what it gives."""
        node = self._maker.get(name)
        return node if node is not None and node.op_type == operator and len(self._users[name]) == 1 else None

    def users(self, name: str) -> list[onnx.NodeProto]:
        """The nodes that read a value, one that reads it twice twice."""
        return self._users.get(name, [])

    def _only_user(self, name: str, operator: str) -> onnx.NodeProto | None:
        users = self.users(name)
        return users[0] if len(users) == 1 and users[0].op_type == operator else None


def _permutation(node: onnx.NodeProto) -> tuple[int, ...]:
    return next((tuple(attribute.ints) for attribute in node.attribute if attribute.name == "perm"), ())


LEVELS = 63.0  # as of keys, which q is multiplied with too


Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Far:
    """The term (q + u_to_v) p of one attention, as torch's exporter writes `conformer.RelativeAttention`."""

    nodes: tuple[onnx.NodeProto, ...]
    """All that it is made of, and the Add that joins it to the scores."""
    table: TensorProto
    """p: float32 [2 longest, n_heads * d_head], distances longest - 1 .. -longest."""
    u_to_v: TensorProto
    """float32 [n_heads * d_head]."""
    start: str
    end: str
    """Scalars: which rows of the table belong to the clip."""

    def read(self, directory: Path) -> Distances:
        """The term's numbers, from the graph or from the file beside it."""
        table, u_to_v = (numpy_helper.to_array(tensor, str(directory)) for tensor in (self.table, self.u_to_v))
        return Distances(table - table.mean(axis=0), u_to_v)


@dataclass(frozen=True)
class Distances:
    """p [2 longest, n_heads * d_head], centred, and u_to_v [n_heads * d_head].

    What all distances have in common is nothing to a softmax, and would take levels from what they have not.
    """

    table: Floats
    u_to_v: Floats

    def eight_bits(self, head: slice) -> tuple[NDArray[np.int8], float]:
        """One head's p [2 longest, d_head], and what a level of it is worth."""
        step = max(float(np.abs(self.table[:, head]).max()), 1e-12) / LEVELS
        return np.rint(self.table[:, head] / step).astype(np.int8), step

    def moved(self, head: slice) -> Floats:
        """u_to_v p of one head [2 longest]."""
        return self.table[:, head] @ self.u_to_v[head]

    def scores(self, q: Floats, head: slice, rows: slice, integers: bool) -> Floats:
        """What one head's q [n, d_head] adds to its scores [n, n], for these rows; with p as it is, or in 8 bits."""
        n = len(q)
        longest = len(self.table) // 2
        p = self.table[:, head]
        if integers:
            levels, step = self.eight_bits(head)
            p = levels * np.float32(step)
        every = (q[rows] @ p.T + self.moved(head))[:, longest - n : longest + n]
        at = np.arange(n)[rows]
        return np.take_along_axis(every, n - 1 - at[:, None] + np.arange(n), axis=1)


def find_far(graph: Graph, added: onnx.NodeProto, q: str) -> Far | None:
    """The term that this Add brings to the scores of q, if it has exactly the known form."""
    nodes: list[onnx.NodeProto] = [added]
    name = next((i for i in added.input if graph.made_by(i, "Slice")), "")
    for operator in ("Slice", "Reshape", "Slice", "Reshape", "MatMul"):
        node = graph.made_by(name, operator)
        if node is None:
            return None
        nodes.append(node)
        name = node.input[0]
    moved = graph.heads(nodes[-1].input[0], (0, 2, 1, 3))
    far = graph.heads(nodes[-1].input[1], (0, 2, 3, 1))
    if moved is None or far is None:
        return None
    lifted = graph.made_by(far[1].input[0], "Unsqueeze")
    rows = lifted and graph.made_by(lifted.input[0], "Gather")
    add = graph.made_by(moved[1].input[0], "Add")
    span = rows and graph.behind(rows.input[1], "Reshape", "Range")
    if lifted is None or rows is None or add is None or span is None or q not in add.input:
        return None
    table = graph.constant(rows.input[0])
    u_to_v = graph.constant(next((i for i in add.input if i != q), ""))
    if table is None or u_to_v is None:
        return None
    nodes += [*moved[:2], *far[:2], lifted, rows, add]
    return Far(tuple(nodes), table, u_to_v, span.input[0], span.input[1])
