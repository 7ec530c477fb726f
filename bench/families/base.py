"""Interface of a family to the benches: one description in, every measured stage out.

bench/families/salmonn.py and bench/families/salm.py each describe one; bench/families/registry.py lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models.audio import Waveform
from ...runtime.engine import Engine
from ..flops import Work

Floats = NDArray[np.float32]
Tick = Callable[[], None]


@dataclass(frozen=True)
class Part:
    """One stage of hearing, ready to run by itself on what the stages before it gave."""

    name: str
    run: Callable[[], Floats]
    """The stage, once; its result is in host memory."""
    shape: tuple[int, ...]
    """Of the result, as it follows from the spec: the proof of work."""
    n_out: int
    """Frames or tokens that come out."""
    feeds: Mapping[str, Floats] | None = None
    """What a graph reads, to profile it with; None: a front end."""


@dataclass(frozen=True)
class Family:
    """How a family hears, as the benches see it. `spec` is that of the family."""

    works: Callable[[Any, str, float], dict[str, Work]]
    """spec, precision, seconds of audio -> what each stage does, in the order of the data."""
    n_audio_tokens: Callable[[Any, float], int]
    """spec, seconds of audio -> positions that the language model reads of them."""
    parts: Callable[[Engine, Waveform], Iterator[Part]]
    """Every stage of `works`. The last one's result are the audio tokens, [n, d_llm]."""
    probe: Callable[[Any, float, str, int, str, Tick], dict[str, float]]
    """spec, seconds of audio, precision, threads, provider -> seconds that each stage should take here, from a few
    layers of each graph. Raises RunError."""
    shares: Mapping[str, float]
    """Stage, or "stage fp32" where that differs -> share of this machine's limit, where nothing was measured."""
    params: Callable[[Any], int]
    """spec -> weights of all graphs."""
    scratch: Callable[[Any, str, float], float]
    """spec, precision, seconds of audio -> bytes that the graphs compute in."""
    question: tuple[int, int]
    """Positions before and after the audio of the transcription prompt, with the tokenizer of the released models."""
    max_new_tokens: int
    """That an answer has when nothing is said."""


def is_front_end(work: Work) -> bool:
    """Whether a stage only transforms; it reads no weights, and computes in float whatever the graphs do."""
    return not work.bytes


def hearing(works: Mapping[str, Work]) -> Work:
    """All between a segment and its audio tokens."""
    total = Work()
    for work in works.values():
        total += work
    return total
