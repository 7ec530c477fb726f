"""Attention for onnxruntime's CPU provider: one fused node in float, or its two products in integers.

Exported attention is five products and transpositions whose score matrices (20 heads x 1500 x 1500 floats in Whisper,
180 MB a layer) go through memory four times. In float that is left to `com.microsoft.MultiHeadAttention`, which works
in tiles. In integers it goes head by head, so that a head's scores stay in the cache, and multiplies in int8:

    q - mean ─► u8, a scale per head ────────┐
    k - mean ─► s8, a scale per key and head ┴─► + k mean(q) ─► softmax p ─► u8, a scale per row ─┐
    v - mean ─► s8, a scale per channel ──────────────────────────────────────────────────────────┴─► x row scale
                                                                                                        + mean of v

A softmax does not change when every key is moved alike, so keys are centred before they are rounded. Rows of p add up
to 1, so values may be centred too: then what rounding takes from the many small weights of a row is not lost, it counts
as the mean of all values. What the mean of all queries gives is a number per key. k and v use 6 bits and a sign: two
products of them and 8-bit numbers fit into 16 bits, which is all that x86 without VNNI adds; so each key and each
channel of v has its own scale, which a trained model's loud channels need. With relative positions, whose term is made
of q's integers too, q is not centred. A gated bias (BEATs) is left in float and goes head by head for memory's sake:
for all heads at once there are scores, bias and sum at the same time. TensorRT reads none of these forms, so fp32 and
fp16 graphs keep the plain one.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from .builder import DOMAIN, Operators, replace_nodes
from .patterns import Attention, BiasedAttention, Distances, Graph
from .relative_attention import FarHead, FarWriter

Q_LEVELS, KV_LEVELS, P_LEVELS = 127.0, 63.0, 255.0
_SMALLEST_SCALE = 1e-12
WIDEST = 1 << 16  # more than any row has: it is one block, with one scale
Floats = NDArray[np.float32]


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
    _put(model, ops, replaced, gone)


def separate_heads(model: onnx.ModelProto) -> None:
    """Compute every attention that has a gated bias (BEATs) head by head, in place: the same numbers in less memory."""
    graph = Graph(model.graph)
    softmaxes = (node for node in model.graph.node if node.op_type == "Softmax")
    found = [each for each in map(graph.biased_attention, softmaxes) if each is not None]
    if not found:
        return
    ops = Operators("heads")
    biases: dict[str, list[str]] = {}
    replaced: dict[int, list[onnx.NodeProto]] = {}
    for each in found:
        if each.index not in biases:
            biases[each.index] = _biases(ops, each)
        _separate(ops, each, biases[each.index])
        replaced[id(each.nodes[-1])] = ops.take()
    gone = {id(node) for each in found for node in (*each.nodes, *each.bias)}
    _put(model, ops, replaced, gone)


def _put(
    model: onnx.ModelProto, ops: Operators, replaced: dict[int, list[onnx.NodeProto]], gone: Collection[int]
) -> None:
    """Nodes, by the id of one whose place they take, in a graph without those of the ids in `gone`."""
    kept = [new for node in model.graph.node for new in replaced.get(id(node), [] if id(node) in gone else [node])]
    replace_nodes(model, kept)
    model.graph.initializer.extend(ops.constants())


def integer_attention(
    q: Floats, k: Floats, v: Floats, n_heads: int, rows: slice = slice(None), far: Distances | None = None
) -> Floats:
    """What the integer form computes, in numpy: q, k, v [n, n_heads * d_head] -> the same for these rows."""
    mean_v = v.mean(axis=0)
    mean_q = q.mean(axis=0) if far is None else np.zeros(q.shape[1], np.float32)
    centred = k - k.mean(axis=0)
    outputs: list[Floats] = []
    for head in _heads(q, n_heads):
        q_head = _rounded((q - mean_q)[:, head], Q_LEVELS)
        scores = q_head[rows] @ _rounded(centred[:, head], KV_LEVELS, axis=1).T + mean_q[head] @ centred[:, head].T
        if far is not None:
            scores += far.scores(q_head, head, rows, integers=True)
        p = np.exp(scores - scores.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        step = p.max(axis=1, keepdims=True) / P_LEVELS
        outputs.append(np.rint(p / step) * step @ _rounded((v - mean_v)[:, head], KV_LEVELS, axis=0))
    return np.concatenate(outputs, axis=1) + mean_v


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


def _heads(q: Floats, n_heads: int) -> list[slice]:
    d_head = q.shape[1] // n_heads
    return [slice(n * d_head, (n + 1) * d_head) for n in range(n_heads)]


def _rounded(x: Floats, levels: float, axis: int | None = None) -> Floats:
    """In steps of one scale, or of one for all that differ along the other axes than `axis`."""
    reach = np.abs(x).max(axis=axis, keepdims=axis is not None)
    step = np.maximum(reach, np.float32(_SMALLEST_SCALE)) / np.float32(levels)
    return np.rint(x / step) * step


def _fused(attention: Attention) -> onnx.NodeProto:
    output = attention.nodes[-1].output[0]
    heads: dict[str, Any] = {"num_heads": attention.n_heads, "scale": 1.0}
    return helper.make_node("MultiHeadAttention", attention.inputs, [output], attention.name, domain=DOMAIN, **heads)


def _biases(ops: Operators, attention: BiasedAttention) -> list[str]:
    """Each head's bias [1, n, n]."""
    rows = _split(ops, attention.table.name, attention.table.dims[0], 0)
    return [ops.add("Gather", [row, attention.index], f"{row}/bias", axis=1) for row in rows]


def _separate(ops: Operators, attention: BiasedAttention, biases: list[str]) -> None:
    name = attention.nodes[-1].output[0]
    q, k, v = attention.inputs
    q = ops.add("Mul", [q, attention.factor], f"{name}/q")  # a power of two: here it is exact, and cheap
    split = (_split(ops, x, len(biases), 1) for x in (q, k, v, attention.gate))
    outputs: list[str] = []
    for h, (q_head, k_head, v_head, gate, bias) in enumerate(zip(*split, biases, strict=True)):
        place = f"{name}/{h}"
        scores = ops.add("MatMul", [q_head, k_head], f"{place}/scores")
        gated = ops.add("Mul", [gate, bias], f"{place}/gated")
        p = ops.add("Softmax", [ops.add("Add", [scores, gated], f"{place}/sum")], f"{place}/p", axis=-1)
        outputs.append(ops.add("MatMul", [p, v_head], f"{place}/out"))
    ops.add("Concat", outputs, name, axis=1)


def _integer(ops: Operators, attention: Attention, write_far: FarWriter, directory: Path) -> None:
    name = attention.name
    n = attention.n_heads
    far = None if attention.far is None else write_far.heads(attention.far, name, n, directory)
    q, k, v = attention.inputs
    mean_v = _mean(ops, v, f"{name}/v")
    k = _split_heads(ops, attention, _centred(ops, k, _mean(ops, k, f"{name}/k"), f"{name}/k"), f"{name}/k")
    biases = [""] * n
    if far is None:
        mean_q = _mean(ops, q, f"{name}/q")
        q = _centred(ops, q, mean_q, f"{name}/q")
        biases = _mean_scores(ops, attention, mean_q, k)
    q8, q_scales = _queries(ops, attention, q)
    k8, k_scales = _keys(ops, attention, k)
    v8, v_scales = _values(ops, attention, _centred(ops, v, mean_v, f"{name}/v"))
    split = (_split(ops, x, n, axis) for x, axis in ((q8, 1), (k8, 0), (v8, 1), (q_scales, 0), (v_scales, 0)))
    heads = list(zip(*split, _split_rows(ops, k_scales, n), biases, strict=True))
    outputs = [_head(ops, f"{name}/{h}", head, far[h] if far else None) for h, head in enumerate(heads)]
    joined = ops.add("Concat", outputs, f"{name}/joined", axis=1)
    joined = ops.add("Unsqueeze", [joined, ops.constant([0], "int64")], f"{name}/clip")
    ops.add("Add", [joined, mean_v], attention.nodes[-1].output[0])


def _head(ops: Operators, name: str, head: tuple[str, ...], far: FarHead | None) -> str:
    """One head: u8 q [n, d], s8 k [d, n], s8 v [n, d], their scales and what is added to the scores -> float [n, d]."""
    q, k, v, q_scale, v_scale, k_scale, bias = head
    zero_q = ops.constant(128, "uint8")
    zero = ops.constant(0, "int8")
    inputs = [q, k, q_scale, k_scale, zero_q, zero]
    scores = ops.own("MatMulIntegerToFloat", [*inputs, bias] if bias else inputs, f"{name}/scores")
    if far is not None:
        scores = ops.add("Add", [scores, far.scores(ops, q, q_scale, (zero_q, zero))], f"{name}/near and far")
    p = ops.add("Softmax", [scores], f"{name}/p", axis=-1)
    most = ops.add("ReduceMax", [p, ops.constant([-1], "int64")], f"{name}/most", keepdims=1)
    step = ops.add("Mul", [most, ops.constant(1 / P_LEVELS, "float32")], f"{name}/step")
    p8 = ops.add("QuantizeLinear", [p, step], f"{name}/p8", axis=1, block_size=WIDEST)
    one = ops.constant([1.0], "float32")
    mixed = ops.own("MatMulIntegerToFloat", [p8, v, one, v_scale, ops.constant(0, "uint8"), zero], f"{name}/mixed")
    return ops.add("Mul", [mixed, step], f"{name}/out")


def _centred(ops: Operators, x: str, mean: str, name: str) -> str:
    return ops.add("Sub", [x, mean], f"{name}/centred")


def _mean(ops: Operators, x: str, name: str) -> str:
    """[1, n, d] -> [1, 1, d]. As a product with ones: onnxruntime's own sum over that axis is slow."""
    length = ops.add("Shape", [x], f"{name}/length", start=1, end=2)
    shape = ops.add("Concat", [ops.constant([1, 1], "int64"), length], f"{name}/shape", axis=0)
    ones = ops.add("Expand", [ops.constant([1.0], "float32"), shape], f"{name}/ones")
    total = ops.add("MatMul", [ones, x], f"{name}/total")
    return ops.add("Div", [total, ops.add("Cast", [length], f"{name}/n", to=TensorProto.FLOAT)], f"{name}/mean")


def _split_heads(ops: Operators, attention: Attention, x: str, name: str) -> str:
    """[1, n, heads * d] -> [n, heads, d]."""
    shape = ops.constant([-1, attention.n_heads, attention.d_head], "int64")
    return ops.add("Reshape", [x, shape], f"{name}/heads")


def _joined_heads(ops: Operators, attention: Attention, x: str, name: str) -> str:
    """[n, heads, d] -> [n, heads * d]."""
    width = attention.n_heads * attention.d_head
    return ops.add("Reshape", [x, ops.constant([-1, width], "int64")], f"{name}/rows")


def _queries(ops: Operators, attention: Attention, q: str) -> tuple[str, str]:
    """[1, n, heads * d] -> uint8 [n, heads * d] around 128, and a scale per head."""
    name = f"{attention.name}/q"
    heads = _split_heads(ops, attention, q, name)
    reach = _reaches(ops, heads, f"{name}/last", axis=-1, keepdims=0)
    widest = ops.add("ReduceMax", [reach, ops.constant([0], "int64")], f"{name}/widest", keepdims=0)
    scales = ops.add("Mul", [widest, ops.constant(1 / Q_LEVELS, "float32")], f"{name}/scales")
    zeros = ops.constant([128] * attention.n_heads, "uint8")
    integers = ops.add("QuantizeLinear", [heads, scales, zeros], f"{name}/int8", axis=1)
    return _joined_heads(ops, attention, integers, name), scales


def _keys(ops: Operators, attention: Attention, k: str) -> tuple[str, str]:
    """[n, heads, d] -> int8 [heads * d, n], and scales [n, heads, 1]."""
    name = f"{attention.name}/k"
    reach = _reaches(ops, k, name, axis=-1, keepdims=1)
    scales = ops.add("Mul", [reach, ops.constant(1 / KV_LEVELS, "float32")], f"{name}/scales")
    integers = ops.add(
        "QuantizeLinear", [k, scales], f"{name}/int8", axis=2, block_size=WIDEST, output_dtype=TensorProto.INT8
    )
    rows = _joined_heads(ops, attention, integers, name)
    return ops.add("Transpose", [rows], f"{name}/turned", perm=[1, 0]), scales


def _values(ops: Operators, attention: Attention, v: str) -> tuple[str, str]:
    """[1, n, heads * d] -> int8 [n, heads * d], and a scale per channel."""
    name = f"{attention.name}/v"
    rows = ops.add("Squeeze", [v, ops.constant([0], "int64")], f"{name}/flat")
    reach = _reaches(ops, rows, name, axis=0, keepdims=0)
    scales = ops.add("Mul", [reach, ops.constant(1 / KV_LEVELS, "float32")], f"{name}/scales")
    scaled = ops.add("Div", [rows, scales], f"{name}/scaled")
    one = ops.constant(1, "float32")
    return ops.add("QuantizeLinear", [scaled, one, ops.constant(0, "int8")], f"{name}/int8"), scales


def _reaches(ops: Operators, x: str, name: str, axis: int, keepdims: int) -> str:
    """The largest absolute value along an axis, at least _SMALLEST_SCALE."""
    along = ops.constant([axis], "int64")
    high = ops.add("ReduceMax", [x, along], f"{name}/high", keepdims=keepdims)
    low = ops.add("Neg", [ops.add("ReduceMin", [x, along], f"{name}/low", keepdims=keepdims)], f"{name}/depth")
    return ops.add("Max", [high, low, ops.constant(_SMALLEST_SCALE, "float32")], f"{name}/reach")


def _mean_scores(ops: Operators, attention: Attention, mean_q: str, k: str) -> list[str]:
    """What the mean of all queries adds to the scores of each key: a vector [n] per head."""
    name = f"{attention.name}/mean scores"
    shape = ops.constant([1, attention.n_heads, attention.d_head], "int64")
    mean = ops.add("Reshape", [mean_q, shape], f"{name}/q")
    products = ops.add("Mul", [k, mean], f"{name}/products")
    sums = ops.add("ReduceSum", [products, ops.constant([-1], "int64")], f"{name}/sums", keepdims=1)
    return _split_rows(ops, sums, attention.n_heads)


def _split_rows(ops: Operators, x: str, n: int) -> list[str]:
    """[rows, n, 1] -> n vectors [rows]."""
    flat = ops.constant([-1], "int64")
    return [ops.add("Reshape", [part, flat], f"{part}/vector") for part in _split(ops, x, n, 1)]


def _split(ops: Operators, x: str, n: int, axis: int) -> list[str]:
    names = [f"{x}/{i}" for i in range(n)]
    ops.add("Split", [x], *names, axis=axis, num_outputs=n)
    return names
