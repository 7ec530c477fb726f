"""Interface of a family to the exporter: its parts, its graphs, its language model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..models.audio import Waveform
from ..models.bundle import PromptInfo
from ..models.families.registry import FamilySpec
from .graphs.onnx_graph import Arrays
from .llm.export import Llm
from .llm.lora import Lora
from .provenance import Source


@dataclass(frozen=True)
class Family:
    """One opened checkpoint: all that differs from one family to another."""

    family: str
    spec: FamilySpec
    prompt: PromptInfo
    tokenize: Callable[[str], Sequence[int]]
    """A text between audios to ids, nothing added."""
    max_new_tokens: int
    llm: Llm
    lora: Lora
    graphs: Mapping[str, Callable[[Path], object]]
    """Writes each graph in float32."""
    feeds: Callable[[], Mapping[str, list[Arrays]]]
    """What each graph reads of a few clips: int8 is tried on it."""
    data_files: Mapping[str, Callable[[Path], object]]
    stages: Callable[[Waveform], dict[str, NDArray[np.float32]]]
    """Every graph's output in torch, as the runtime's Encoders.stages gives them."""
    sources: tuple[Source, ...]
    notes: tuple[str, ...] = ()
