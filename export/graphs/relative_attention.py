"""Relative positions in integers: what a graph adds to its attention's scores -> nodes of integer products.

    scores[i, j] = q[i] k[j] + (q[i] + u_to_v) p[distance i - j]

p is a table of the model, the same for every clip, and so is u_to_v p: an 8-bit row and one float for each distance.
A product over all distances n - 1 .. -n gives [n, 2 n]; read in rows of 2 n - 1 the wanted part of it stands upright.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .patterns import Far

if TYPE_CHECKING:
    from .builder import Operators


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
        numbers = far.read(directory)
        kept = self._ops.keep
        d_head = numbers.table.shape[1] // n_heads
        found: list[FarHead] = []
        for n in range(n_heads):
            head = slice(n * d_head, (n + 1) * d_head)
            place = f"{name}/{n}/far"
            levels, step = numbers.eight_bits(head)
            p = kept(f"{place}/p", np.ascontiguousarray(levels.T))
            scale = kept(f"{place}/step", np.array([step], np.float32))
            found.append(FarHead(place, p, scale, kept(f"{place}/moved", numbers.moved(head)), self._spans[key]))
        return found

    def _span(self, start: str, end: str) -> _Span:
        ops = self._ops
        name = f"far/{start}"
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
        span = self.span
        name = self.name
        columns = ops.constant([1], "int64")
        first = ops.constant([0], "int64")
        p = ops.add("Slice", [self.p, span.low, span.high, columns], f"{name}/rows")
        moved = ops.add("Slice", [self.moved, span.low, span.high, first], f"{name}/shift")
        inputs = [q, p, q_scale, self.step, *zeros, moved]
        every = ops.own("MatMulIntegerToFloat", inputs, f"{name}/every")
        flat = ops.add("Reshape", [every, ops.constant([-1], "int64")], f"{name}/flat")
        cut = ops.add("Slice", [flat, span.first, span.last, first], f"{name}/cut")
        upright = ops.add("Reshape", [cut, span.upright], f"{name}/upright")
        return ops.add("Slice", [upright, first, span.n, columns], f"{name}/wanted")
