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

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from .builder import DOMAIN, Operators, replace_nodes
from .patterns import Attention, Distances, Graph
from .relative_attention import FarHead, FarWriter

Q_LEVELS, KV_LEVELS, P_LEVELS = 127.0, 63.0, 255.0
_SMALLEST_SCALE = 1e-12
_WIDEST = 1 << 16  # more keys than any encoder has: a row of p is one block, with one scale
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
        q_head = _rounded(q[:, head], Q_LEVELS)
        k_head = _rounded((k - k.mean(axis=0))[:, head], KV_LEVELS)
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
    name = attention.name
    n = attention.n_heads
    far = None if attention.far is None else write_far.heads(attention.far, name, n, directory)
    q, k, v = attention.inputs
    mean_k = _mean(ops, k, f"{name}/k")
    mean_v = _mean(ops, v, f"{name}/v")
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
    zero_q = ops.constant(128, "uint8")
    zero = ops.constant(0, "int8")
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
    name = f"{attention.name}/{letter}"
    n_heads = attention.n_heads
    d_head = attention.d_head
    levels, zero = (Q_LEVELS, 128) if dtype == "uint8" else (KV_LEVELS, 0)
    heads = ops.add("Reshape", [x, ops.constant([-1, n_heads, d_head], "int64")], f"{name}/heads")
    last = ops.constant([-1], "int64")
    first = ops.constant([0], "int64")
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
