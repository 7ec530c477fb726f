"""GPTQ of a language model: layer after layer, on what it reads behind audio tokens -> 4-bit linears.

Of a layer, the query, key and value projections are rounded first, then what follows reads the rounded ones' results;
the next layer reads the rounded layer's. One layer is in memory at a time, on a GPU where there is one, and
nothing is rounded before it is asked for: the file is written meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from gguf import GGMLQuantizationType as Kind

from ...models.errors import InputError, RunError
from ...models.llm import LlmSpec
from ..formats.q4_blocks import GROUP, FourBit
from ..formats.tensor_names import PROJECTIONS, shapes
from ..progress import Report, counter
from .gptq_linear import Solver
from .imatrix import Passage
from .torch_reference import OneLayer, ReferenceLlm

_TOGETHER = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))
_STEPS = len(_TOGETHER) + 1  # passes through each layer


class Rounding:
    """GPTQ of a whole model, in the order of its file."""

    def __init__(self, llm: ReferenceLlm, passages: Sequence[Passage], symmetric: bool, report: Report) -> None:
        self.kind = Kind.Q4_0 if symmetric else Kind.Q4_1
        self.names = frozenset(linears(llm.spec))
        self._minimum_error = 0.0
        self._n_positions = sum(len(passage.states) - passage.start for passage in passages)
        self._symmetric = symmetric
        self._widest = max(llm.spec.hidden, llm.spec.d_q, llm.spec.d_ffn)
        self._layer = OneLayer(llm, "cuda" if torch.cuda.is_available() else "cpu")
        self._states = [passage.states for passage in passages]
        self._starts = [passage.start for passage in passages]
        self._next = 0
        self._done: dict[str, FourBit] = {}
        self._tick = counter(report, "gptq", llm.spec.n_layers * _STEPS)

    def take(self, name: str) -> FourBit:
        """The linear with this Hugging Face name; each once, a layer's before the next layer's."""
        try:
            while name not in self._done:
                self._round_layer()
        except (MemoryError, torch.OutOfMemoryError):
            raise RunError(
                f"there is no memory for GPTQ of layer {self._next}: close other programs, or hide a small GPU with "
                "CUDA_VISIBLE_DEVICES="
            ) from None
        found = self._done.pop(name)
        self._minimum_error = max(self._minimum_error, found.minimum_error())
        return found

    def summary(self) -> str:
        """What was heard, and what Q4_1's float16 minimums cost of what was taken so far."""
        calibrated = f"{self._n_positions} positions for linears of up to {self._widest} inputs"
        if self.kind == Kind.Q4_0:
            return calibrated
        return f"{calibrated}; float16 moves a minimum by at most {self._minimum_error:.2g} of a step"

    def _round_layer(self) -> None:
        self._layer.load(self._next)
        for targets in _TOGETHER:
            self._done |= self._round(_names(self._next, targets))
            self._tick(1)
        self._states = self._layer.through(self._states)
        self._next += 1
        self._tick(1)

    def _round(self, names: Sequence[str]) -> dict[str, FourBit]:
        linears = self._layer.linears
        solvers = {name: Solver(linears[name], self._symmetric) for name in names}
        watch = self._layer.follow(lambda name, index, x: solvers[name].add(x[self._starts[index] :]), names)
        self._layer.through(self._states)
        for handle in watch:
            handle.remove()
        return {name: solver.solve() for name, solver in solvers.items()}


def linears(spec: LlmSpec) -> list[str]:
    """Hugging Face names of what is rounded: every linear of the layers; the embedding and the head are not."""
    return [name for n in range(spec.n_layers) for name in _names(n, PROJECTIONS)]


def require_groups(spec: LlmSpec) -> None:
    """Raises InputError when a linear's inputs are not whole groups."""
    for name, shape in shapes(spec).items():
        if name in linears(spec) and shape[1] % GROUP:
            raise InputError(
                f"{name} has {shape[1]} inputs, no whole groups of {GROUP}: choose another --llm than gptq"
            )


def _names(layer: int, targets: Iterable[str]) -> list[str]:
    return [f"model.layers.{layer}.{PROJECTIONS[target]}.weight" for target in targets]
