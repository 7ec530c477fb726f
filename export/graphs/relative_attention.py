"""What attention adds to its scores for relative positions, in integers: found in a graph, computed, written.

    scores[i, j] = q[i] k[j] + (q[i] + u_to_v) p[distance i - j]

p is a table of the model, the same for every clip, and so is u_to_v p: an 8-bit row and one float for each distance.
A product over all distances n - 1 .. -n gives [n, 2 n]; read in rows of 2 n - 1 the wanted part of it stands upright.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

if TYPE_CHECKING:
    from .attention import Graph, Operators

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
        n, longest = len(q), len(self.table) // 2
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
    moved, far = graph.heads(nodes[-1].input[0], (0, 2, 1, 3)), graph.heads(nodes[-1].input[1], (0, 2, 3, 1))
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


class FarWriter:
    """Writes the term for one attention after another; what depends on the clip's length alone is written once."""

    def __init__(self, ops: Operators) -> None:
        self._ops = ops
        self._spans: dict[tuple[str, str], _Span] = {}

    def heads(self, far: Far, name: str, n_heads: int, directory: Path) -> list[FarHead]:
        """Each head's table in 8 bits, [d_head, 2 longest], its step and what u_to_v adds: to be kept in the graph."""
        key = (far.start, far.end)
        if key not in self._spans:
            self._spans[key] = self._span(*key)
        numbers, kept = far.read(directory), self._ops.keep
        d_head = numbers.table.shape[1] // n_heads
        found: list[FarHead] = []
        for n in range(n_heads):
            head, place = slice(n * d_head, (n + 1) * d_head), f"{name}/{n}/far"
            levels, step = numbers.eight_bits(head)
            p = kept(f"{place}/p", np.ascontiguousarray(levels.T))
            scale = kept(f"{place}/step", np.array([step], np.float32))
            found.append(FarHead(place, p, scale, kept(f"{place}/moved", numbers.moved(head)), self._spans[key]))
        return found

    def _span(self, start: str, end: str) -> _Span:
        ops, name = self._ops, f"far/{start}"
        one = ops.constant([1], "int64")
        low, high = (ops.add("Reshape", [x, one], f"{name}/{w}") for x, w in ((start, "low"), (end, "high")))
        two_n = ops.add("Sub", [high, low], f"{name}/columns")
        n = ops.add("Div", [two_n, ops.constant([2], "int64")], f"{name}/n")
        width = ops.add("Sub", [two_n, one], f"{name}/width")
        first = ops.add("Sub", [n, one], f"{name}/first")
        last = ops.add("Add", [first, ops.add("Mul", [n, width], f"{name}/size")], f"{name}/last")
        return _Span(low, high, n, first, last, ops.add("Concat", [n, width], f"{name}/upright", axis=0))


@dataclass(frozen=True)
class _Span:
    """Names of int64 [1] values: the table's rows, n, where the first row's part begins, where the last one's ends;
    and the shape [n, 2 n - 1]."""

    low: str
    high: str
    n: str
    first: str
    last: str
    upright: str


@dataclass(frozen=True)
class FarHead:
    """Names of one head's constants."""

    name: str
    p: str
    step: str
    moved: str
    span: _Span

    def scores(self, ops: Operators, q: str, q_scale: str, zeros: tuple[str, str]) -> str:
        """u8 q [n, d_head] -> what the distances add, float [n, n]."""
        span, name = self.span, self.name
        columns, first = ops.constant([1], "int64"), ops.constant([0], "int64")
        p = ops.add("Slice", [self.p, span.low, span.high, columns], f"{name}/rows")
        moved = ops.add("Slice", [self.moved, span.low, span.high, first], f"{name}/shift")
        inputs = [q, p, q_scale, self.step, *zeros, moved]
        every = ops.own("MatMulIntegerToFloat", inputs, f"{name}/every")
        flat = ops.add("Reshape", [every, ops.constant([-1], "int64")], f"{name}/flat")
        cut = ops.add("Slice", [flat, span.first, span.last, first], f"{name}/cut")
        upright = ops.add("Reshape", [cut, span.upright], f"{name}/upright")
        return ops.add("Slice", [upright, first, span.n, columns], f"{name}/wanted")
