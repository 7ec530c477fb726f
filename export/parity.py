"""Parity: the torch reference and the new bundle on the same clips -> their distance, stage by stage.

The bundle is judged by what its users will run, so this imports the runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..models.audio import SAMPLE_RATE, Waveform, synthetic_clip
from ..models.bundle import Manifest, ParityReport, SelfCheck, StageError
from ..models.errors import InputError
from ..models.llm import llm_type
from ..models.precision import PRECISIONS
from ..models.prompt import first_task
from ..runtime.audio.decode import read_audio
from ..runtime.bundle import Bundle
from ..runtime.engine import Engine, EngineOptions
from ..runtime.llm.options import LlmOptions
from ..runtime.self_check import N_TOKENS, expected_stage, greedy_ids
from ..runtime.system.ort import OrtOptions
from .graphs.onnx_graph import compare
from .llm.torch_reference import ReferenceLlm
from .progress import Report, counter

REAL_CLIP = "jfk.wav"  # John F. Kennedy, 1961: 11 s of speech, public domain
SEED = 7
SECONDS = 3.0
_NOISE = 0.02  # rms, full scale 1


@dataclass(frozen=True)
class Reference:
    """What an export was made from, in torch. stages: a clip to every graph's output, as Encoders.stages gives them."""

    stages: Callable[[Waveform], dict[str, NDArray[np.float32]]]
    llm: ReferenceLlm


def clips(n_samples: int) -> dict[str, Waveform]:
    """Real speech and a synthetic clip, neither longer than the model's window of n_samples."""
    with resources.as_file(resources.files("auricle.export") / REAL_CLIP) as path:
        speech = read_audio(path)
    return {"jfk": speech[:n_samples], "synthetic": synthetic_clip(SEED, SECONDS)}


def calibration_clips(n_samples: int) -> list[Waveform]:
    """What quantizers hear: the clips above, the demo's voices one after another, and speech in noise."""
    known = clips(n_samples)
    voices = Path(str(resources.files("auricle.models"))) / "demo" / "clips"
    joined = np.concatenate([read_audio(path) for path in sorted(voices.glob("*.wav"))])
    noise = np.random.default_rng(SEED).standard_normal(n_samples, np.float32)
    noisy = np.add(np.resize(known["jfk"], n_samples), _NOISE * noise, dtype=np.float32)
    return [*known.values(), joined[:n_samples], noisy]


def check_parity(
    directory: Path, manifest: Manifest, reference: Reference, report: Report
) -> tuple[ParityReport, SelfCheck]:
    """Runs both. What is too far from the reference is only measured here: `refuse_beyond_tolerance` judges."""
    options = EngineOptions(OrtOptions(provider="cpu"), LlmOptions(n_gpu_layers=0, kv_type="f32"))
    with Engine(Bundle(directory, manifest), options) as engine:
        stages = _compare_stages(engine, manifest, reference, report)
        agreement, n_tokens = _token_agreement(engine, reference, lambda d, n: report("check language model", d, n))
        check = _self_check(engine, manifest)
    return ParityReport(stages, agreement, n_tokens), check


def refuse_beyond_tolerance(parity: ParityReport, manifest: Manifest) -> None:
    """Raises InputError for the first stage, or the language model, that is too far from the reference."""
    for stage in parity.stages:
        if not stage.relative_rms <= stage.tolerance:
            raise InputError(
                f"{stage.stage} differs from the torch reference by {stage.relative_rms:.2%} on {stage.clip}, "
                f"allowed is {stage.tolerance:.2%} at {manifest.quantization.encoders}: choose a finer --encoders"
            )
    wanted = llm_type(manifest.quantization.llm).agreement
    differing = round((1 - parity.token_agreement) * parity.n_tokens)
    if differing > max(1, (1 - wanted) * parity.n_tokens):  # one may be a near tie
        raise InputError(
            f"only {parity.token_agreement:.0%} of the tokens at {manifest.quantization.llm} are the torch reference's "
            f"and {wanted:.0%} are needed: choose a larger --llm type"
        )


def _compare_stages(engine: Engine, manifest: Manifest, reference: Reference, report: Report) -> tuple[StageError, ...]:
    tolerance = PRECISIONS[manifest.quantization.encoders].tolerance
    errors: list[StageError] = []
    listened = clips(manifest.spec.n_samples)
    tick = counter(report, "check encoders", 2 * len(listened))
    for name, clip in listened.items():
        found = engine.stages(clip)
        tick(1)
        wanted = reference.stages(clip)
        tick(1)
        for stage in found:
            max_abs, relative_rms = compare(found[stage], wanted[stage])
            errors.append(StageError(stage, name, max_abs, relative_rms, tolerance))
    return tuple(errors)


def _token_agreement(engine: Engine, reference: Reference, progress: Callable[[int, int], None]) -> tuple[float, int]:
    """(share, number) of the bundle's greedy tokens that the torch reference, fed the same tokens, would choose too."""
    clip = clips(engine.spec.n_samples)["jfk"][: 10 * SAMPLE_RATE]
    prompt = first_task(engine.prompt)
    audio_tokens = engine.encode(clip).audio_tokens
    ids = greedy_ids(engine, clip, prompt)
    before, tail = engine.llm.prompts.around(prompt)
    logits = reference.llm.logits(before, torch.from_numpy(audio_tokens), [*tail, *ids], progress)
    chosen = logits[len(tail) - 1 :].argmax(-1).tolist()
    stop = [] if len(ids) == N_TOKENS else [engine.prompt.eos_id]
    answer = [*ids, *stop]
    return sum(a == b for a, b in zip(answer, chosen, strict=False)) / len(answer), len(answer)


def _self_check(engine: Engine, manifest: Manifest) -> SelfCheck:
    clip = synthetic_clip(SEED, SECONDS)
    prompt = first_task(engine.prompt)
    tolerance = PRECISIONS[manifest.quantization.encoders].self_check_tolerance
    stages = tuple(expected_stage(name, out, tolerance) for name, out in engine.stages(clip).items())
    return SelfCheck(SEED, SECONDS, stages, prompt, greedy_ids(engine, clip, prompt))
