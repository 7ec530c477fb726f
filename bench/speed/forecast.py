"""Forecast: a model's sizes and what this machine reaches -> how fast it would run, without having it.

Three sources, the best first:
probe     a few layers of the model's own shapes, timed now (bench/machine/probe_encoders.py and probe_llm.py)
record    the shares of this machine's limits that `stages` found with another model
usual     the limits measured now, and the shares found where this was written (SHARES)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ...models.families.registry import FamilySpec
from ...models.precision import PRECISIONS
from .. import flops
from ..families.base import is_front_end
from ..families.registry import FAMILIES, family_of
from ..flops import Work
from ..machine import probe_llm
from ..machine.limits import Limits
from ..machine.probe_llm import LlmRates
from ..result import Record
from .stage_runner import HYPOTHESIS, LIVE
from .stages import Place

SHARES: dict[str, float] = {
    **{stage: share for family in FAMILIES.values() for stage, share in family.shares.items()},
    "prefill": 0.35,
    "draft": 0.35,
    "decode": 0.75,
}
"""Of this machine's limit, where nothing was measured: two Zen 4 cores, onnxruntime 1.31, llama-cpp-python 0.3.36."""
PROBE_SECONDS = 60.0  # after which the remaining types are taken to be like the last that was probed
Tick = Callable[[], None]
Hearing = dict[str, float]
"""Seconds of one segment, by stage: on a CPU one runs after the other."""


@dataclass(frozen=True)
class Forecast:
    """What this machine reaches with one model's shapes; a precision or type that was not looked at is missing."""

    source: str
    n_audio: int
    """Audio tokens of the segment that is looked at."""
    encoders: dict[str, Hearing]
    """By precision of the graphs."""
    llm: dict[str, LlmRates]
    """By type of the weights, on the CPU."""
    offloaded: dict[str, LlmRates]
    """The same on this machine's GPU; empty without one."""


@dataclass(frozen=True)
class Times:
    """Seconds of one answer's parts."""

    encoders: Hearing
    prefill: float
    decode: float
    """Of one token."""
    draft: float
    """The language model's part of a live update whose draft is right."""
    no_draft: float

    @property
    def hear(self) -> float:
        """All between a segment and its audio tokens."""
        return sum(self.encoders.values())

    @property
    def first_token(self) -> float:
        """From the end of the segment."""
        return self.hear + self.prefill

    @property
    def update(self) -> float:
        """One live update."""
        return self.hear + self.draft


def times(
    ahead: Forecast,
    spec: FamilySpec,
    encoders: str,
    llm: str,
    n_new: int = HYPOTHESIS,
    gpu_share: float = 0.0,
    question: tuple[int, int] | None = None,
) -> Times | None:
    """Expected times; None where something was not looked at.

    gpu_share: of the language model's layers; without a GPU here their time is left out. question: positions before and
    after the audio; those of a transcription when None.
    """
    encoded = ahead.encoders.get(encoders)
    rates = ahead.llm.get(llm)
    if encoded is None or (rates is None and gpu_share < 1):
        return None
    prefix, suffix = question or family_of(spec).question
    n_audio = ahead.n_audio
    asked = flops.prefill(spec.llm, llm, prefix, n_audio, suffix)
    drafted = flops.prefill(spec.llm, llm, prefix, n_audio, suffix, n_new - 1)
    token = flops.decode(spec.llm, llm, prefix + n_audio + suffix + n_new // 2)
    parts = ((rates, 1 - gpu_share), (ahead.offloaded.get(llm), gpu_share))
    prefill = sum(share * asked.flop / r.prefill_gflops / 1e9 for r, share in parts if r)
    draft = sum(share * drafted.flop / r.draft_gflops / 1e9 for r, share in parts if r)
    decode = sum(share * token.bytes / r.decode_gb_s / 1e9 for r, share in parts if r)
    return Times(encoded, prefill, decode, draft, prefill + (n_new - 1) * decode)


def by_shares(
    spec: FamilySpec, seconds: float, machine: Limits, shares: Mapping[str, float], place: Place, source: str
) -> Forecast:
    """Work over a share of the limits. shares: stage, or "stage precision", -> share; see SHARES."""
    family = family_of(spec)

    def stage(name: str, work: Work, precision: str) -> float:
        limit = "fp32" if is_front_end(work) else place.bound(precision, "f32").encoders
        share = shares.get(f"{name} {precision}", shares.get(f"{name} {limit}", shares[name]))
        return work.flop / 1e9 / (share * machine.product(limit))

    encoders = {
        precision: {name: stage(name, work, precision) for name, work in family.works(spec, precision, seconds).items()}
        for precision in PRECISIONS
    }
    llm: dict[str, LlmRates] = {}
    for quantization in flops.LLM_TYPES:
        product = machine.product(place.bound("fp32", quantization).prefill)
        rates = shares["decode"] * machine.read, shares["prefill"] * product, shares["draft"] * product
        llm[quantization] = LlmRates(*rates)
    n_audio = family.n_audio_tokens(spec, seconds)
    return Forecast(source, n_audio, encoders, llm, dict(llm) if place.offloaded else {})


def shares_of(record: Record) -> dict[str, float]:
    """What `stages` found, for other sizes; where it lacks something, the usual. Each is the median."""
    shares = dict(SHARES)
    for stage in SHARES:
        if found := record.find(stage, "share"):
            shares[stage] = found.value / 100
    int4 = any(subject.encoders == "int4" for subject in record.subjects)
    kind = "int4" if int4 else record.settings.get("encoders' limit")
    for stage in [stage for stage in SHARES if f"{stage} {kind}" in SHARES]:
        shares[f"{stage} {kind}"], shares[stage] = shares[stage], SHARES[stage]
    shares["draft"] = shares["prefill"]
    return shares


def by_probe(
    spec: FamilySpec,
    seconds: float,
    precisions: Sequence[str],
    quantizations: Sequence[str],
    place: Place,
    tick: Tick,
) -> Forecast:
    """Time a few layers of each; a minute at most on a machine that could run such a model. Raises RunError."""
    deadline = time.perf_counter() + PROBE_SECONDS
    encoders = _probed_encoders(spec, seconds, precisions, place, tick)
    family = family_of(spec)
    prefix, suffix = family.question
    question = prefix, family.n_audio_tokens(spec, seconds), suffix
    found: list[dict[str, LlmRates]] = []
    for n_gpu_layers in (0, -1)[: 1 + place.offloaded]:
        rates: dict[str, LlmRates] = {}
        for quantization in quantizations:
            if rates and time.perf_counter() > deadline:
                rates[quantization] = next(reversed(rates.values()))
                continue
            threads = place.llm_threads
            rates[quantization] = probe_llm.rates(
                spec.llm, quantization, threads, n_gpu_layers, question, HYPOTHESIS - 1, tick
            )
        found.append(rates)
    return Forecast("probe", question[1], encoders, found[0], found[1] if place.offloaded else {})


def _probed_encoders(
    spec: FamilySpec, seconds: float, precisions: Sequence[str], place: Place, tick: Tick
) -> dict[str, Hearing]:
    """A CPU computes float16 as float32: one probe serves both."""
    family = family_of(spec)
    found: dict[str, Hearing] = {}
    for precision in precisions:
        if precision == "fp16" and place.provider == "cpu" and "fp32" in found:
            found[precision] = found["fp32"]
        else:
            found[precision] = family.probe(spec, seconds, precision, place.threads, place.provider, tick)
    return found


def measured(record: Record, names: Sequence[str]) -> dict[str, float]:
    """Median seconds of the stages that a forecast is compared with, as far as the record has them."""
    found = {stage: wall.value for stage in names if (wall := record.find(stage, "wall"))}
    for name in ("draft", "no draft"):
        if wall := record.find(LIVE, name):
            found[f"update, {name}"] = wall.value
    return found


def forecast(expected: Times) -> dict[str, float]:
    """The same stages, expected."""
    return {
        **expected.encoders,
        "hear": expected.hear,
        "prefill": expected.prefill,
        "decode": expected.decode,
        "update, draft": expected.draft,
        "update, no draft": expected.no_draft,
    }


def same_shape(record: Record, spec: FamilySpec) -> bool:
    """Whether a record of `stages` is about a model of these sizes, by the operations it counted."""
    read = record.find("decode", "bytes")
    seconds = float(record.settings.get("seconds", spec.seconds))
    if read is None or not record.subjects or record.subjects[0].llm not in flops.LLM_TYPES:
        return False
    works = family_of(spec).works(spec, "fp32", min(seconds, spec.seconds))
    pairs = [(flop, work) for name, work in works.items() if (flop := record.find(name, "flop"))]
    if not [work for _, work in pairs if not is_front_end(work)]:
        return False
    expected = flops.decode(spec.llm, record.subjects[0].llm, 0).weight_bytes
    same = all(abs(flop.value / work.flop - 1) < 1e-4 for flop, work in pairs)  # a record keeps six digits
    return same and 0.99 * expected <= read.value <= 1.2 * expected
