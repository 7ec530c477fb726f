"""The self-check of a bundle: the exporter's numbers on a synthetic clip in, each stage's error on this machine out.

A wrong wheel, a broken provider or a kernel that fell back to another precision gives other numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from ..models.audio import Waveform, synthetic_clip
from ..models.bundle import SELF_CHECK_VALUES, ExpectedStage, SelfCheck
from ..models.precision import PRECISIONS
from .engine import Engine
from .events import Final
from .llm.sampling import Generation

N_TOKENS = 16
_NOTHING = np.zeros(0, np.float32)


@dataclass(frozen=True)
class StageResult:
    """One stage held against the manifest."""

    stage: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance."""
        return self.error <= self.tolerance


def greedy_ids(engine: Engine, waveform: Waveform, prompt: str) -> tuple[int, ...]:
    """The first N_TOKENS ids of the greedy answer."""
    finals = [e for e in engine.stream(waveform, prompt, Generation(N_TOKENS)) if isinstance(e, Final)]
    return finals[0].token_ids


def expected_stage(stage: str, output: NDArray[np.float32], tolerance: float) -> ExpectedStage:
    """What the manifest keeps of one stage."""
    rms = float(np.sqrt(np.mean(np.square(output, dtype=np.float64))))
    values = tuple(round(float(v), 7) for v in _spread(output))
    return ExpectedStage(stage, tuple(output.shape), rms, values, tolerance)


def run_self_check(engine: Engine, check: SelfCheck) -> tuple[StageResult, ...]:
    """Each stage's relative error against the manifest; the last: the share of greedy ids from the first other.

    Once one id is another, as a cache of another precision can make it where two are as likely, all after it may be.
    """
    clip = synthetic_clip(check.seed, check.seconds)
    outputs = engine.stages(clip)
    least = PRECISIONS[engine.bundle.manifest.quantization.encoders].self_check_tolerance
    results = [_compare(stage, outputs.get(stage.stage, _NOTHING), least) for stage in check.stages]
    ids = greedy_ids(engine, clip, check.prompt)
    pairs = enumerate(zip_longest(ids, check.token_ids))
    first = next((n for n, (made, wanted) in pairs if made != wanted), None)
    share = 0.0 if first is None else max(0.0, 1 - first / max(1, len(check.token_ids)))
    quantized = engine.bundle.manifest.quantization.llm not in ("f32", "f16")
    return (*results, StageResult("greedy tokens", share, 0.75 if quantized else 0.5))


def _compare(expected: ExpectedStage, output: NDArray[np.float32], least: float) -> StageResult:
    """least: of the tolerance, which older bundles have too small."""
    tolerance = max(expected.tolerance, least)
    if tuple(output.shape) != expected.shape:
        return StageResult(expected.stage, float("inf"), tolerance)
    difference = _spread(output) - np.array(expected.values)
    error = float(np.sqrt(np.mean(difference**2))) / max(expected.rms, 1e-30)
    return StageResult(expected.stage, error, tolerance)


def _spread(output: NDArray[np.float32]) -> NDArray[np.float64]:
    flat = output.reshape(-1)
    at = np.linspace(0, flat.size - 1, SELF_CHECK_VALUES).round().astype(np.int64)
    return flat[at].astype(np.float64)
