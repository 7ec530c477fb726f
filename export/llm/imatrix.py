"""Importance matrix: prompts with audio tokens -> how strongly each linear's inputs are driven, as sums.

Of the model as it will run, its LoRA merged, on prompts with audio tokens in place, one layer in memory at a time.
Positions count from the first audio token on: those before it are the same in every prompt, and counted each time
they would outweigh what differs (docs/quantization.md has the numbers).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from unicodedata import normalize

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...models.prompt import PromptInfo
from ..formats.imatrix_file import Importance
from ..formats.tensor_names import gguf_name
from ..progress import Report, counter
from .calibration import Example
from .torch_reference import ReferenceLlm

Hear = Callable[[Example], NDArray[np.float32]]
"""An example's audio tokens [n, hidden]."""


@dataclass(frozen=True)
class Passage:
    """What the language model reads of one example."""

    states: Tensor
    """Embeddings float32 [n, hidden]."""
    start: int
    """Positions before it are the same in every example, and are not counted."""


def gather(llm: ReferenceLlm, passages: Sequence[Passage], datasets: tuple[str, ...], report: Report) -> Importance:
    """Sums over all positions that count."""
    sums: dict[str, Tensor] = {}

    def watch(name: str, index: int, inputs: Tensor) -> None:
        squares = inputs[passages[index].start :].double().square().sum(0)
        sums[name] = sums[name] + squares if name in sums else squares

    states = [passage.states for passage in passages]
    llm.run(states, lambda done, n: report("calibrate language model", done, n), watch)
    n_positions = sum(len(passage.states) - passage.start for passage in passages)
    found = {gguf_name(name): total.float().numpy() for name, total in sums.items()}
    chunk_size = -(-n_positions // len(passages))
    return Importance(found, dict.fromkeys(found, n_positions), datasets, len(passages), chunk_size)


def passages_of(
    examples: Sequence[Example],
    llm: ReferenceLlm,
    info: PromptInfo,
    tokenize: Callable[[str], Sequence[int]],
    hear: Hear,
    report: Report,
) -> list[Passage]:
    """Text, audio tokens, text, and the answer where it is known; of a text alone, that."""
    tick = counter(report, "hear calibration clips", len(examples))
    known = cache(tokenize)  # a prompt is asked again and again
    n_most = llm.spec.max_positions

    def ids(text: str) -> list[int]:
        return list(known(normalize(info.normalization, text) if info.normalization else text))

    found: list[Passage] = []
    for example in examples:
        if example.audio is None:
            start = list(info.start_ids)
            rest = [llm.embed(ids(example.prompt))]
        else:
            before, after = info.texts(example.prompt)
            start = [*info.start_ids, *ids(before)]
            rest = [torch.from_numpy(hear(example)), llm.embed([*ids(after), *ids(example.answer or "")])]
        found.append(Passage(torch.cat([llm.embed(start), *rest])[:n_most], len(start)))
        tick(1)
    return found
