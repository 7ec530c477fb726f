"""Encoder probe: a few layers of a model's shapes with random weights -> seconds that all of them will take here.

    time = stem (convolutions, position bias) + n_layers x one layer

The stem and the stem with a few layers are timed; the difference is what the layers took. The graphs hold the operators
of the exported ones: in int8 a value is quantized once for all layers that read it, and plain attention is one node.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ...models.encoders.beats import N_MELS, BeatsSpec
from ...models.encoders.fastconformer import FastConformerSpec
from ...models.encoders.whisper import WhisperSpec
from ...models.precision import PRECISIONS
from ...runtime.system.ort import PROVIDERS, session_settings
from .. import flops
from .timing import repeat

ort: Any = onnxruntime  # it has no types of its own
Array = NDArray[Any]
Tick = Callable[[], None]
LAYERS = 2  # that are timed
_DOMAIN = "com.microsoft"
_SMALLEST_LAYER = 16  # narrower ones stay in float, as in the exporter
_BLOCK = 32  # weights that share a scale in int4; narrower layers stay in float there


@dataclass(frozen=True)
class Layered:
    """Seconds of an encoder, as far as its depth goes."""

    stem_s: float
    layer_s: float

    def seconds(self, n_layers: int) -> float:
        """Of the whole encoder."""
        return self.stem_s + n_layers * self.layer_s


def whisper(spec: WhisperSpec, precision: str, threads: int, provider: str, tick: Tick) -> Layered:
    """The Whisper encoder on its whole window."""
    feeds = {"mel": _noise(1, spec.n_mels, spec.n_frames)}
    return _layered(lambda n: whisper_graph(spec, n, precision), feeds, threads, provider, tick)


def beats(spec: BeatsSpec, seconds: float, precision: str, threads: int, provider: str, tick: Tick) -> Layered:
    """The BEATs encoder on a clip."""
    n = flops.beats_tokens(spec, seconds)
    n_frames = n // (N_MELS // spec.patch_size) * spec.patch_size
    feeds = {"bank": _noise(1, 1, n_frames, N_MELS), "index": np.arange(n, dtype=np.int64)}
    return _layered(lambda k: beats_graph(spec, n_frames, k, precision), feeds, threads, provider, tick)


def fastconformer(
    spec: FastConformerSpec, seconds: float, precision: str, threads: int, provider: str, tick: Tick
) -> Layered:
    """The FastConformer on a clip; an adapter's layers are counted as the encoder's, and the projection as nothing."""
    n_frames = flops.feature_frames(seconds)
    feeds = {"features": _noise(1, 1, n_frames, spec.n_mels)}
    return _layered(lambda n: fastconformer_graph(spec, n_frames, n, precision), feeds, threads, provider, tick)


def whisper_graph(spec: WhisperSpec, n_layers: int, precision: str = "fp32") -> onnx.ModelProto:
    """mel [1, n_mels, n_frames] -> one row of speech, with so many layers; the second convolution is a linear layer."""
    g = _Graph(precision)
    d = spec.d_model
    n = spec.n_positions
    x = g.input("mel", (1, spec.n_mels, spec.n_frames))
    x = g.op("Gelu", g.op("Conv", x, g.weight(d, spec.n_mels, 3), g.weight(d), kernel_shape=[3], pads=[1, 1]))
    pairs = g.op("Reshape", g.op("Transpose", x, perm=[0, 2, 1]), g.integers(1, n, 2 * d))
    before = g.op("Slice", pairs, g.integers(d), g.integers(2 * d), g.integers(2))  # of the true frames, one too late
    x = g.op("Gelu", g.linear(g.op("Concat", before, pairs, axis=2), 3 * d, d))
    x = g.op("Add", x, g.weight(n, d))
    for _ in range(n_layers):
        heads = (n, spec.n_heads, d // spec.n_heads)
        x = g.op("Add", x, g.attention(g.norm(x, d), d, heads))
        x = g.op("Add", x, g.feed_forward(g.norm(x, d), d, spec.d_ffn))
    return g.model(g.norm(x, d))


def beats_graph(spec: BeatsSpec, n_frames: int, n_layers: int, precision: str = "fp32") -> onnx.ModelProto:
    """bank [1, 1, n_frames, 128], index [n] -> one row of audio, with so many layers."""
    g = _Graph(precision)
    d = spec.d_model
    size = spec.patch_size
    n = n_frames // size * (N_MELS // size)
    x = g.input("bank", (1, 1, n_frames, N_MELS))
    x = g.op("Conv", x, g.weight(spec.d_patch, 1, size, size), kernel_shape=[size, size], strides=[size, size])
    x = g.op("Transpose", g.op("Reshape", x, g.integers(1, spec.d_patch, n)), perm=[0, 2, 1])
    x = g.linear(g.norm(x, spec.d_patch), spec.d_patch, d)
    pad = spec.conv_pos // 2
    kernel = g.weight(d, d // spec.conv_pos_groups, spec.conv_pos)
    wide = {"kernel_shape": [spec.conv_pos], "pads": [pad, pad], "group": spec.conv_pos_groups}
    y = g.op("Conv", g.op("Transpose", x, perm=[0, 2, 1]), kernel, g.weight(d), **wide)
    y = g.op("Slice", y, g.integers(0), g.integers(n), g.integers(2))
    x = g.norm(g.op("Add", x, g.op("Transpose", g.op("Gelu", y), perm=[0, 2, 1])), d)
    bias = _position_bias(g, spec, n)
    heads = (n, spec.n_heads, d // spec.n_heads)
    for _ in range(n_layers):
        x = g.norm(g.op("Add", g.scaled(x, 2.2), g.attention(x, d, heads, bias)), d)
        x = g.norm(g.op("Add", g.scaled(x, 2.2), g.feed_forward(x, d, spec.d_ffn)), d)
    return g.model(x)


def fastconformer_graph(
    spec: FastConformerSpec, n_frames: int, n_layers: int, precision: str = "fp32"
) -> onnx.ModelProto:
    """features [1, 1, n_frames, n_mels] -> one row of speech, with so many layers."""
    g = _Graph(precision)
    d = spec.d_model
    c = spec.subsampling_channels
    halves = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    x = g.op("Relu", g.op("Conv", g.input("features", (1, 1, n_frames, spec.n_mels)), g.weight(c, 1, 3, 3), **halves))
    for _ in range(flops.HALVINGS - 1):
        x = g.op("Conv", x, g.weight(c, 1, 3, 3), **halves, group=c)
        x = g.op("Relu", g.linear(g.op("Transpose", x, perm=[0, 2, 3, 1]), c, c))
        x = g.op("Transpose", x, perm=[0, 3, 1, 2])
    n = -(-n_frames // 2**flops.HALVINGS)
    bands = -(-spec.n_mels // 2**flops.HALVINGS)
    x = g.op("Reshape", g.op("Transpose", x, perm=[0, 2, 1, 3]), g.integers(1, n, c * bands))
    x = g.linear(x, c * bands, d)
    for _ in range(n_layers):
        x = g.op("Add", x, g.feed_forward(g.norm(x, d), d, spec.d_ffn, swish=True))
        x = g.op("Add", x, g.relative_attention(g.norm(x, d), d, (n, spec.n_heads, d // spec.n_heads)))
        x = g.op("Add", x, g.convolution(g.norm(x, d), d, spec.conv_kernel))
        x = g.norm(g.op("Add", x, g.feed_forward(g.norm(x, d), d, spec.d_ffn, swish=True)), d)
    return g.model(x)


def _position_bias(g: _Graph, spec: BeatsSpec, n: int) -> str:
    """[n_heads, n, n] by the distance of two tokens, as the exported graph computes it."""
    index = g.input("index", (n,), TensorProto.INT64)
    row = g.op("Unsqueeze", index, g.integers(0))
    column = g.op("Unsqueeze", index, g.integers(1))
    reach = g.constant(np.array(spec.max_distance, np.int64))
    far = g.constant(np.array(-spec.max_distance, np.int64))
    distance = g.op("Sub", row, column)
    near = g.op("Where", g.op("Greater", distance, reach), reach, distance)
    near = g.op("Add", g.op("Where", g.op("Less", near, far), far, near), reach)
    flat = g.op("Reshape", near, g.integers(n * n))
    bias = g.op("Gather", g.weight(spec.n_heads, 2 * spec.max_distance + 1), flat, axis=1)
    return g.op("Reshape", bias, g.integers(1, spec.n_heads, n, n))


class _Graph:
    """Puts operators and random weights together."""

    def __init__(self, precision: str) -> None:
        self._dtype: type[np.floating[Any]] = np.float16 if precision == "fp16" else np.float32
        self._int8 = PRECISIONS[precision].integer
        self._int4 = precision == "int4"
        self._quantized: dict[str, tuple[str, str, str]] = {}
        self._rng = np.random.default_rng(0)
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._weights: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name, **attributes))
        return name

    def input(self, name: str, shape: tuple[int, ...], kind: int = TensorProto.FLOAT) -> str:
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))
        if kind == TensorProto.FLOAT and self._dtype is np.float16:
            return self.op("Cast", name, to=TensorProto.FLOAT16)
        return name

    def constant(self, value: Array | np.generic) -> str:
        self._weights.append(numpy_helper.from_array(np.asarray(value), f"w{len(self._weights)}"))
        return self._weights[-1].name

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def weight(self, *shape: int) -> str:
        scale = 0.3 / shape[0] ** 0.5
        return self.constant((self._rng.standard_normal(shape, np.float32) * scale).astype(self._dtype))

    def scaled(self, x: str, factor: float) -> str:
        return self.op("Mul", x, self.constant(np.array(factor, self._dtype)))

    def norm(self, x: str, width: int) -> str:
        ones = self.constant(np.ones(width, self._dtype))
        return self.op("LayerNormalization", x, ones, self.weight(width), axis=-1)

    def linear(self, x: str, inner: int, outer: int) -> str:
        if not self._int8 or min(inner, outer) < (_BLOCK if self._int4 else _SMALLEST_LAYER):
            return self.op("Add", self.op("MatMul", x, self.weight(inner, outer)), self.weight(outer))
        if self._int4:
            return self._four_bits(x, inner, outer)
        if x not in self._quantized:
            self._quantized[x] = (f"{x}/int8", f"{x}/scale", f"{x}/zero")
            self._nodes.append(helper.make_node("DynamicQuantizeLinear", [x], self._quantized[x]))
        values, scale, zero = self._quantized[x]
        weight = self.constant(self._rng.integers(-127, 128, (inner, outer), np.int8))
        scales = self.constant(np.full(outer, 0.3 / inner**0.5 / 127, np.float32))
        inputs = (values, weight, scale, scales, zero, "", self.weight(outer))
        return self.op("MatMulIntegerToFloat", *inputs, domain=_DOMAIN)

    def _four_bits(self, x: str, inner: int, outer: int) -> str:
        blocks = -(-inner // _BLOCK)
        sizes = (outer, blocks, _BLOCK // 2), (outer, -(-blocks // 2))
        packed, zeros = (self.constant(self._rng.integers(0, 256, size, np.uint8)) for size in sizes)
        scales = self.constant(np.full((outer, blocks), 0.3 / inner**0.5 / 8, np.float32))
        kind = {"K": inner, "N": outer, "bits": 4, "block_size": _BLOCK, "accuracy_level": 4}
        return self.op("MatMulNBits", x, packed, scales, zeros, "", self.weight(outer), domain=_DOMAIN, **kind)

    def feed_forward(self, x: str, d: int, d_ffn: int, swish: bool = False) -> str:
        x = self.linear(x, d, d_ffn)
        return self.linear(self.swish(x) if swish else self.op("Gelu", x), d_ffn, d)

    def swish(self, x: str) -> str:
        return self.op("Mul", x, self.op("Sigmoid", x))

    def convolution(self, x: str, d: int, kernel: int) -> str:
        """Gate, a convolution in depth, Swish."""
        gate = self.op("Mul", self.linear(x, d, d), self.op("Sigmoid", self.linear(x, d, d)))
        across = self.op("Unsqueeze", self.op("Transpose", gate, perm=[0, 2, 1]), self.integers(2))
        wide = {"kernel_shape": [1, kernel], "pads": [0, kernel // 2, 0, kernel // 2], "group": d}
        y = self.op("Squeeze", self.op("Conv", across, self.weight(d, 1, 1, kernel), **wide), self.integers(2))
        return self.linear(self.swish(self.op("Transpose", y, perm=[0, 2, 1])), d, d)

    def relative_attention(self, x: str, d: int, heads: tuple[int, int, int]) -> str:
        """Every query also meets 2 n distances, of which n are cut out."""
        if self._int8:
            rows = [self.linear(x, d, d) for _ in range(3)]
            return self.linear(self._integer_attention(rows, heads, relative=True), d, d)
        q, k, v = (self._heads(self.linear(x, d, d), heads) for _ in range(3))
        n, n_heads, width = heads
        near = self.op("MatMul", q, self.op("Transpose", k, perm=[0, 1, 3, 2]))
        far = self._upright(self.op("MatMul", q, self.weight(1, n_heads, width, 2 * n)), (1, n_heads), n)
        mixed = self.op("MatMul", self.op("Softmax", self.op("Add", near, far), axis=-1), v)
        rows = self.op("Reshape", self.op("Transpose", mixed, perm=[0, 2, 1, 3]), self.integers(1, n, d))
        return self.linear(rows, d, d)

    def _upright(self, x: str, leading: tuple[int, ...], n: int) -> str:
        """[*leading, n, 2 n] -> [*leading, n, n], as export/graphs/relative_attention.py cuts it."""
        last = self.integers(len(leading))
        flat = self.op("Reshape", x, self.integers(*leading, 2 * n * n))
        cut = self.op("Slice", flat, self.integers(n - 1), self.integers(n - 1 + n * (2 * n - 1)), last)
        rows = self.op("Reshape", cut, self.integers(*leading, n, 2 * n - 1))
        return self.op("Slice", rows, self.integers(0), self.integers(n), self.integers(len(leading) + 1))

    def attention(self, x: str, d: int, heads: tuple[int, int, int], bias: str | None = None) -> str:
        """heads: positions, heads, width of one. bias [1, heads, n, n] is gated by each query."""
        if self._int8 and bias is None:
            rows = [self.linear(x, d, d) for _ in range(3)]
            return self.linear(self._integer_attention(rows, heads), d, d)
        q, k, v = (self._heads(self.linear(x, d, d), heads) for _ in range(3))
        logits = self.op("MatMul", self.scaled(q, heads[2] ** -0.5), self.op("Transpose", k, perm=[0, 1, 3, 2]))
        if bias is not None:
            logits = self.op("Add", logits, self.op("Mul", self._gate(q, heads[2]), bias))
        mixed = self.op("MatMul", self.op("Softmax", logits, axis=-1), v)
        rows = self.op("Reshape", self.op("Transpose", mixed, perm=[0, 2, 1, 3]), self.integers(1, heads[0], d))
        return self.linear(rows, d, d)

    def _integer_attention(self, rows: list[str], heads: tuple[int, int, int], relative: bool = False) -> str:
        """Head by head in integers, as export/graphs/attention.py writes it; the scales are any."""
        n, n_heads, width = heads
        scale, zero, middle = (self.constant(x) for x in (np.float32(0.02), np.int8(0), np.uint8(128)))
        q, k, v = (self.op("Reshape", x, self.integers(n, n_heads * width)) for x in rows)
        k = self.op("Transpose", self.op("QuantizeLinear", k, scale, zero), perm=[1, 0])
        q = self.op("QuantizeLinear", q, scale, middle)
        v = self.op("QuantizeLinear", v, scale, zero)
        one, least, levels = (self.constant(x) for x in (np.ones(1, np.float32), np.uint8(0), np.float32(1 / 255)))
        outputs: list[str] = []
        for head in zip(*(self._split(x, n_heads, axis) for x, axis in ((q, 1), (k, 0), (v, 1))), strict=True):
            scores = self.op("MatMulIntegerToFloat", *head[:2], scale, scale, middle, zero, domain=_DOMAIN)
            if relative:
                table = self.constant(self._rng.integers(-63, 64, (width, 2 * n), np.int8))
                far = (head[0], table, scale, scale, middle, zero)
                far = self.op("MatMulIntegerToFloat", *far, domain=_DOMAIN)
                scores = self.op("Add", scores, self._upright(far, (), n))
            p = self.op("Softmax", scores, axis=-1)
            step = self.op("Mul", self.op("ReduceMax", p, self.integers(-1), keepdims=1), levels)
            p = self.op("QuantizeLinear", p, step, axis=1, block_size=1 << 16)
            mixed = self.op("MatMulIntegerToFloat", p, head[2], one, scale, least, zero, domain=_DOMAIN)
            outputs.append(self.op("Mul", mixed, step))
        return self.op("Unsqueeze", self.op("Concat", *outputs, axis=1), self.integers(0))

    def _split(self, x: str, n: int, axis: int) -> list[str]:
        names = [f"{x}/{i}" for i in range(n)]
        self._nodes.append(helper.make_node("Split", [x], names, axis=axis, num_outputs=n))
        return names

    def model(self, x: str) -> onnx.ModelProto:
        """The graph, whose result is the first row."""
        row = self.op("Slice", x, self.integers(0), self.integers(1), self.integers(1))
        out = self.op("Cast", row, to=TensorProto.FLOAT)
        value = helper.make_tensor_value_info(out, TensorProto.FLOAT, None)
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid(_DOMAIN, 1)]
        graph = helper.make_graph(self._nodes, "probe", self._inputs, [value], self._weights)
        return helper.make_model(graph, opset_imports=opsets, ir_version=9)

    def _heads(self, x: str, heads: tuple[int, int, int]) -> str:
        return self.op("Transpose", self.op("Reshape", x, self.integers(1, *heads)), perm=[0, 2, 1, 3])

    def _gate(self, q: str, width: int) -> str:
        both = self.op("Sigmoid", self.linear(q, width, 2))
        a, b = (self.op("Slice", both, self.integers(i), self.integers(i + 1), self.integers(3)) for i in (0, 1))
        return self.op("Mul", a, b)


def _layered(
    make: Callable[[int], onnx.ModelProto],
    feeds: dict[str, Array],
    threads: int,
    provider: str,
    tick: Tick,
) -> Layered:
    stem, whole = (_seconds(make(n), feeds, threads, provider) for n in (0, LAYERS))
    tick()
    return Layered(stem, max(0.0, whole - stem) / LAYERS)


def _seconds(model: onnx.ModelProto, feeds: dict[str, Array], threads: int, provider: str) -> float:
    """Median of a few runs."""
    settings = session_settings(threads)
    names = list(PROVIDERS.values())
    with tempfile.TemporaryDirectory(prefix="auricle-probe-") as folder:
        path = Path(folder) / "probe.onnx"
        path.write_bytes(model.SerializeToString())
        session = ort.InferenceSession(str(path), settings, providers=names[names.index(PROVIDERS[provider]) :])
    return median(repeat(lambda: session.run(None, feeds), 3).wall_s)


def _noise(*shape: int) -> Array:
    return np.random.default_rng(1).standard_normal(shape, np.float32)
