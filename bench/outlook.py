"""How fast a model that is not here would run on this machine: from its sizes and from what this machine reaches.

Three sources, the best first:
probe     a few layers of the model's own shapes, timed now (bench/probe_encoders.py, bench/probe_llm.py)
record    the shares of this machine's limits that `stages` found with another model
usual     the limits measured now, and the shares found where this was written (SHARES)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from ..models.audio import synthetic_clip
from ..models.beats import INPUT as FBANK
from ..models.salmonn import SalmonnSpec
from ..models.whisper import INPUT as LOG_MEL
from ..runtime.beats import fbank
from ..runtime.whisper import log_mel
from . import physics, probe_encoders, probe_llm
from .clock import repeat
from .limits import Limits
from .physics import ENCODER_BYTES, Work
from .probe_llm import LlmRates
from .record import Record
from .stage_runs import HYPOTHESIS, LIVE
from .stages import Place

N_PREFIX, N_SUFFIX = 8, 21
"""Positions before and after the audio, BOS included, of the transcription prompt with Vicuna's tokenizer."""
SHARES = {
    LOG_MEL: 0.02,
    FBANK: 0.02,
    "whisper": 0.55,
    "whisper fp32": 0.9,
    "beats": 0.35,
    "beats fp32": 0.7,
    "qformer": 0.3,
    "prefill": 0.35,
    "draft": 0.35,
    "decode": 0.75,
}
"""Of this machine's limit, where nothing was measured: two Zen 4 cores, onnxruntime 1.31, llama-cpp-python 0.3.36."""
PROBE_SECONDS = 60.0  # after which the remaining types are taken to be like the last that was probed
Tick = Callable[[], None]


@dataclass(frozen=True)
class EncoderSeconds:
    """Of one segment."""

    log_mel: float
    fbank: float
    whisper: float
    beats: float
    qformer: float

    @property
    def hear(self) -> float:
        """All of it: on a CPU one encoder runs after the other."""
        return self.log_mel + self.fbank + self.whisper + self.beats + self.qformer


@dataclass(frozen=True)
class Outlook:
    """What this machine reaches with one model's shapes; a precision or type that was not looked at is missing."""

    source: str
    encoders: dict[str, EncoderSeconds]
    """By precision of the graphs."""
    llm: dict[str, LlmRates]
    """By type of the weights, on the CPU."""
    offloaded: dict[str, LlmRates]
    """The same on this machine's GPU; empty without one."""


@dataclass(frozen=True)
class Times:
    """Seconds of one answer's parts."""

    encoders: EncoderSeconds
    prefill: float
    decode: float
    """Of one token."""
    draft: float
    """The language model's part of a live update whose draft is right."""
    no_draft: float

    @property
    def first_token(self) -> float:
        """From the end of the segment."""
        return self.encoders.hear + self.prefill

    @property
    def update(self) -> float:
        """One live update."""
        return self.encoders.hear + self.draft


def times(
    outlook: Outlook,
    spec: SalmonnSpec,
    encoders: str,
    llm: str,
    n_new: int = HYPOTHESIS,
    gpu_share: float = 0.0,
    question: tuple[int, int] = (N_PREFIX, N_SUFFIX),
) -> Times | None:
    """Expected times; None where something was not looked at.

    gpu_share: of the language model's layers; without a GPU here their time is left out. question: positions before and
    after the audio.
    """
    heard, rates = outlook.encoders.get(encoders), outlook.llm.get(llm)
    if heard is None or (rates is None and gpu_share < 1):
        return None
    prefix, suffix = question
    n_audio = spec.n_audio_tokens
    asked = physics.prefill(spec.llm, llm, prefix, n_audio, suffix)
    drafted = physics.prefill(spec.llm, llm, prefix, n_audio, suffix, n_new - 1)
    token = physics.decode(spec.llm, llm, prefix + n_audio + suffix + n_new // 2)
    parts = ((rates, 1 - gpu_share), (outlook.offloaded.get(llm), gpu_share))
    prefill = sum(share * asked.flop / r.prefill_gflops / 1e9 for r, share in parts if r)
    draft = sum(share * drafted.flop / r.draft_gflops / 1e9 for r, share in parts if r)
    decode = sum(share * token.bytes / r.decode_gb_s / 1e9 for r, share in parts if r)
    return Times(heard, prefill, decode, draft, prefill + (n_new - 1) * decode)


def by_shares(
    spec: SalmonnSpec, seconds: float, machine: Limits, shares: Mapping[str, float], place: Place, source: str
) -> Outlook:
    """Work over a share of the limits. shares: stage, or "stage precision", -> share; see SHARES."""
    encoders = {
        precision: _shared_encoders(spec, seconds, machine, shares, place, precision) for precision in ENCODER_BYTES
    }
    llm: dict[str, LlmRates] = {}
    for quantization in physics.LLM_TYPES:
        product = machine.product(place.bound("fp32", quantization).prefill)
        rates = shares["decode"] * machine.read, shares["prefill"] * product, shares["draft"] * product
        llm[quantization] = LlmRates(*rates)
    return Outlook(source, encoders, llm, dict(llm) if place.offloaded else {})


def _shared_encoders(
    spec: SalmonnSpec, seconds: float, machine: Limits, shares: Mapping[str, float], place: Place, precision: str
) -> EncoderSeconds:
    def of(stage: str, work: Work, limit: str) -> float:
        share = shares.get(f"{stage} {limit}", shares[stage])
        return work.flop / 1e9 / (share * machine.product(limit))

    limit = place.bound(precision, "f32").encoders
    return EncoderSeconds(
        of(LOG_MEL, physics.log_mel(spec.whisper, seconds), "fp32"),
        of(FBANK, physics.fbank(seconds), "fp32"),
        of("whisper", physics.whisper(spec.whisper, precision), limit),
        of("beats", physics.beats(spec.beats, precision, seconds), limit),
        of("qformer", physics.qformer(spec.qformer, spec.whisper.n_positions, precision), limit),
    )


def shares_of(record: Record) -> dict[str, float]:
    """What `stages` found, for other sizes; where it lacks something, the usual. Each is the median."""
    shares = dict(SHARES)
    for stage in SHARES:
        if found := record.find(stage, "share"):
            shares[stage] = found.value / 100
    for stage in ("whisper", "beats"):
        if record.settings.get("encoders' limit") == "fp32":
            shares[f"{stage} fp32"], shares[stage] = shares[stage], SHARES[stage]
    shares["draft"] = shares["prefill"]
    return shares


def by_probe(
    spec: SalmonnSpec,
    seconds: float,
    precisions: Sequence[str],
    quantizations: Sequence[str],
    place: Place,
    tick: Tick,
) -> Outlook:
    """Time a few layers of each; a minute at most on a machine that could run such a model. Raises RunError."""
    deadline = time.perf_counter() + PROBE_SECONDS
    encoders = _probed_encoders(spec, seconds, precisions, place, tick)
    question = N_PREFIX, spec.n_audio_tokens, N_SUFFIX
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
    return Outlook("probe", encoders, found[0], found[1] if place.offloaded else {})


def _probed_encoders(
    spec: SalmonnSpec, seconds: float, precisions: Sequence[str], place: Place, tick: Tick
) -> dict[str, EncoderSeconds]:
    """A CPU computes float16 as float32: one probe serves both."""
    clip = synthetic_clip(1, seconds)
    mel = median(repeat(lambda: log_mel(clip, spec.whisper), 3).wall_s)
    bank = median(repeat(lambda: fbank(clip), 3).wall_s)
    found: dict[str, EncoderSeconds] = {}
    for precision in precisions:
        if precision == "fp16" and place.provider == "cpu" and "fp32" in found:
            found[precision] = found["fp32"]
            continue
        threads, provider = place.threads, place.provider
        whisper = probe_encoders.whisper(spec.whisper, precision, threads, provider, tick)
        beats = probe_encoders.beats(spec.beats, seconds, precision, threads, provider, tick)
        n = spec.whisper.n_positions
        per_flop = whisper.seconds(spec.whisper.n_layers) / physics.whisper(spec.whisper).flop
        qformer = physics.qformer(spec.qformer, n).flop * per_flop * 2  # its products have few rows: half as fast
        found[precision] = EncoderSeconds(
            mel, bank, whisper.seconds(spec.whisper.n_layers), beats.seconds(spec.beats.n_layers), qformer
        )
    return found


def measured(record: Record) -> dict[str, float]:
    """Median seconds of the stages that a forecast is compared with."""
    stages = (LOG_MEL, FBANK, "whisper", "beats", "qformer", "hear", "prefill", "decode")
    found = {stage: wall.value for stage in stages if (wall := record.find(stage, "wall"))}
    for name in ("draft", "no draft"):
        if wall := record.find(LIVE, name):
            found[f"update, {name}"] = wall.value
    return found


def forecast(expected: Times) -> dict[str, float]:
    """The same stages, expected."""
    heard = expected.encoders
    return {
        LOG_MEL: heard.log_mel,
        FBANK: heard.fbank,
        "whisper": heard.whisper,
        "beats": heard.beats,
        "qformer": heard.qformer,
        "hear": heard.hear,
        "prefill": expected.prefill,
        "decode": expected.decode,
        "update, draft": expected.draft,
        "update, no draft": expected.no_draft,
    }


def same_shape(record: Record, spec: SalmonnSpec) -> bool:
    """Whether a record of `stages` is about a model of these sizes, by the operations it counted."""
    flop, read = record.find("whisper", "flop"), record.find("decode", "bytes")
    if flop is None or read is None or not record.subjects or record.subjects[0].llm not in physics.LLM_TYPES:
        return False
    expected = physics.decode(spec.llm, record.subjects[0].llm, 0).weight_bytes
    same = abs(flop.value / physics.whisper(spec.whisper).flop - 1) < 1e-4  # a record keeps six digits
    return same and 0.99 * expected <= read.value <= 1.2 * expected
