"""Attention for onnxruntime's CPU provider: one fused node in float, or its two products in integers.

Exported attention is five products and transpositions whose score matrices (20 heads x 1500 x 1500 floats in Whisper,
180 MB a layer) go through memory four times. In float that is left to `com.microsoft.MultiHeadAttention`, which works
in tiles. In integers it goes head by head, so that a head's scores stay in the cache, and multiplies in int8:

    q ────────► u8 ─┐
    k - mean ─► s8 ─┴─► scores ─► softmax p ─► u8, a scale per row ─┐
    v - mean ─► s8 ────────────────────────────────────────────────┴─► out x row scale + mean of v

A softmax does not change when every key is moved alike, so keys are centred before they are rounded. Rows of p add up
to 1, so values may be centred too: then what rounding takes from the many small weights of a row is not lost, it counts
as the mean of all values. k and v use 6 bits and a sign: two products of them and 8-bit numbers fit into 16 bits, which
is all that x86 without VNNI adds. TensorRT reads neither form, so fp32 and fp16 graphs keep the plain one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from .relative_attention import Distances, Far, FarHead, FarWriter, find_far

DOMAIN = "com.microsoft"
Q_LEVELS, KV_LEVELS, P_LEVELS = 127.0, 63.0, 255.0
_SMALLEST_SCALE = 1e-12
_WIDEST = 1 << 16  # more keys than any encoder has: a row of p is one block, with one scale
_OPSET = 21  # the first in which QuantizeLinear takes blocks; such a graph is for onnxruntime alone
Floats = NDArray[np.float32]


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


def find_attention(model: onnx.ModelProto) -> dict[str, Attention]:
    """By name, in order. One whose scores get a bias (BEATs) is none."""
    graph = Graph(model.graph)
    found = (graph.attention(node) for node in model.graph.node if node.op_type == "Softmax")
    return {attention.name: attention for attention in found if attention is not None}


def rewrite_attention(
    model: onnx.ModelProto, fused: Collection[Attention], integer: Collection[Attention], directory: Path = Path()
) -> None:
    """Replace each in place, in float by one node or by products of integers. `directory` is where the graph lies.

    One with relative positions stays as it is in float.
    """
    fused = [attention for attention in fused if attention.far is None]
    ops = Operators("attention")
    write_far = FarWriter(ops)
    replaced: dict[int, list[onnx.NodeProto]] = {}
    for attention in fused:
        replaced[id(attention.nodes[-1])] = [_fused(attention)]
    for attention in integer:
        _integer(ops, attention, write_far, directory)
        replaced[id(attention.nodes[-1])] = ops.take()
    gone = {id(node) for attention in (*fused, *integer) for node in attention.nodes}
    kept = [new for node in model.graph.node for new in replaced.get(id(node), [] if id(node) in gone else [node])]
    replace_nodes(model, kept)
    model.graph.initializer.extend(ops.constants())


def integer_attention(
    q: Floats, k: Floats, v: Floats, n_heads: int, rows: slice = slice(None), far: Distances | None = None
) -> Floats:
    """What the integer form computes, in numpy: q, k, v [n, n_heads * d_head] -> the same for these rows."""
    mean = v.mean(axis=0)
    outputs: list[Floats] = []
    for head in _heads(q, n_heads):
        q_head, k_head = _rounded(q[:, head], Q_LEVELS), _rounded((k - k.mean(axis=0))[:, head], KV_LEVELS)
        scores = q_head[rows] @ k_head.T
        if far is not None:
            scores += far.scores(q_head, head, rows, integers=True)
        p = np.exp(scores - scores.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        step = p.max(axis=1, keepdims=True) / P_LEVELS
        outputs.append(np.rint(p / step) * step @ _rounded((v - mean)[:, head], KV_LEVELS))
    return np.concatenate(outputs, axis=1) + mean


def float_attention(
    q: Floats, k: Floats, v: Floats, n_heads: int, rows: slice = slice(None), far: Distances | None = None
) -> Floats:
    """The same in float."""
    outputs: list[Floats] = []
    for head in _heads(q, n_heads):
        scores = q[rows, head] @ k[:, head].T
        if far is not None:
            scores += far.scores(q[:, head], head, rows, integers=False)
        p = np.exp(scores - scores.max(axis=1, keepdims=True))
        outputs.append(p / p.sum(axis=1, keepdims=True) @ v[:, head])
    return np.concatenate(outputs, axis=1)


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

    def add(self, operator: str, inputs: Sequence[str], *outputs: str, domain: str = "", **attributes: Any) -> str:
        """A node; returns its first output."""
        self._nodes.append(helper.make_node(operator, inputs, outputs, outputs[0], domain=domain, **attributes))
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
        taken, self._nodes = self._nodes, []
        return taken

    def constants(self) -> list[TensorProto]:
        """All that were asked for."""
        return list(self._constants.values())


def _heads(q: Floats, n_heads: int) -> list[slice]:
    d_head = q.shape[1] // n_heads
    return [slice(n * d_head, (n + 1) * d_head) for n in range(n_heads)]


def _rounded(x: Floats, levels: float) -> Floats:
    step = np.float32(max(float(np.abs(x).max()), _SMALLEST_SCALE) / levels)
    return np.rint(x / step) * step


def _fused(attention: Attention) -> onnx.NodeProto:
    output = attention.nodes[-1].output[0]
    heads: dict[str, Any] = {"num_heads": attention.n_heads, "scale": 1.0}
    return helper.make_node("MultiHeadAttention", attention.inputs, [output], attention.name, domain=DOMAIN, **heads)


def _integer(ops: Operators, attention: Attention, write_far: FarWriter, directory: Path) -> None:
    name, n = attention.name, attention.n_heads
    far = None if attention.far is None else write_far.heads(attention.far, name, n, directory)
    q, k, v = attention.inputs
    mean_k, mean_v = _mean(ops, k, f"{name}/k"), _mean(ops, v, f"{name}/v")
    q8, q_scales = _quantized(ops, attention, q, "q", "uint8")
    k8, k_scales = _quantized(ops, attention, ops.add("Sub", [k, mean_k], f"{name}/k/centred"), "k", "int8")
    v8, v_scales = _quantized(ops, attention, ops.add("Sub", [v, mean_v], f"{name}/v/centred"), "v", "int8")
    k8 = ops.add("Transpose", [k8], f"{name}/k/turned", perm=[1, 0])
    heads = list(
        zip(
            *(_split(ops, x, n, axis) for x, axis in ((q8, 1), (k8, 0), (v8, 1))),
            *(_split(ops, x, n, 0) for x in (q_scales, k_scales, v_scales)),
            strict=True,
        )
    )
    outputs = [_head(ops, f"{name}/{h}", head, far[h] if far else None) for h, head in enumerate(heads)]
    joined = ops.add("Concat", outputs, f"{name}/joined", axis=1)
    joined = ops.add("Unsqueeze", [joined, ops.constant([0], "int64")], f"{name}/clip")
    ops.add("Add", [joined, mean_v], attention.nodes[-1].output[0])


def _head(ops: Operators, name: str, head: tuple[str, ...], far: FarHead | None) -> str:
    """One head: u8 q [n, d], s8 k [d, n], s8 v [n, d] and their scales -> float [n, d]."""
    q, k, v, q_scale, k_scale, v_scale = head
    zero_q, zero = ops.constant(128, "uint8"), ops.constant(0, "int8")
    scores = ops.own("MatMulIntegerToFloat", [q, k, q_scale, k_scale, zero_q, zero], f"{name}/scores")
    if far is not None:
        scores = ops.add("Add", [scores, far.scores(ops, q, q_scale, (zero_q, zero))], f"{name}/near and far")
    p = ops.add("Softmax", [scores], f"{name}/p", axis=-1)
    most = ops.add("ReduceMax", [p, ops.constant([-1], "int64")], f"{name}/most", keepdims=1)
    step = ops.add("Mul", [most, ops.constant(1 / P_LEVELS, "float32")], f"{name}/step")
    p8 = ops.add("QuantizeLinear", [p, step], f"{name}/p8", axis=1, block_size=_WIDEST)
    one = ops.constant([1.0], "float32")
    mixed = ops.own("MatMulIntegerToFloat", [p8, v, one, v_scale, ops.constant(0, "uint8"), zero], f"{name}/mixed")
    return ops.add("Mul", [mixed, step], f"{name}/out")


def _mean(ops: Operators, x: str, name: str) -> str:
    """[1, n, d] -> [1, 1, d]. As a product with ones: onnxruntime's own sum over that axis is slow."""
    length = ops.add("Shape", [x], f"{name}/length", start=1, end=2)
    shape = ops.add("Concat", [ops.constant([1, 1], "int64"), length], f"{name}/shape", axis=0)
    ones = ops.add("Expand", [ops.constant([1.0], "float32"), shape], f"{name}/ones")
    total = ops.add("MatMul", [ones, x], f"{name}/total")
    return ops.add("Div", [total, ops.add("Cast", [length], f"{name}/n", to=TensorProto.FLOAT)], f"{name}/mean")


def _quantized(ops: Operators, attention: Attention, x: str, letter: str, dtype: str) -> tuple[str, str]:
    """[1, n, heads * d] -> integers [n, heads * d], and a scale per head."""
    name, n_heads, d_head = f"{attention.name}/{letter}", attention.n_heads, attention.d_head
    levels, zero = (Q_LEVELS, 128) if dtype == "uint8" else (KV_LEVELS, 0)
    heads = ops.add("Reshape", [x, ops.constant([-1, n_heads, d_head], "int64")], f"{name}/heads")
    last, first = ops.constant([-1], "int64"), ops.constant([0], "int64")
    high = ops.add("ReduceMax", [heads, last], f"{name}/high", keepdims=0)
    low = ops.add("Neg", [ops.add("ReduceMin", [heads, last], f"{name}/low", keepdims=0)], f"{name}/depth")
    reach = ops.add("Max", [high, low, ops.constant(_SMALLEST_SCALE, "float32")], f"{name}/reach")
    widest = ops.add("ReduceMax", [reach, first], f"{name}/widest", keepdims=0)
    scales = ops.add("Mul", [widest, ops.constant(1 / levels, "float32")], f"{name}/scales")
    zeros = ops.constant([zero] * n_heads, dtype)
    integers = ops.add("QuantizeLinear", [heads, scales, zeros], f"{name}/int8", axis=1)
    return ops.add("Reshape", [integers, ops.constant([-1, n_heads * d_head], "int64")], f"{name}/rows"), scales


def _split(ops: Operators, x: str, n: int, axis: int) -> list[str]:
    names = [f"{x}/{i}" for i in range(n)]
    ops.add("Split", [x], *names, axis=axis, num_outputs=n)
    return names


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

    def _only_user(self, name: str, operator: str) -> onnx.NodeProto | None:
        users = self._users.get(name, [])
        return users[0] if len(users) == 1 and users[0].op_type == operator else None


def _permutation(node: onnx.NodeProto) -> tuple[int, ...]:
    return next((tuple(attribute.ints) for attribute in node.attribute if attribute.name == "perm"), ())
