"""`auricle-bench fit`: a model and this machine -> which quantizations it can hold, and how fast they would be.

    memory    weights + KV cache + encoders + what they work with, from the model's sizes
    speed     work (bench/flops.py) over what this machine reaches (bench/speed/forecast.py), with a KV cache of f16

A live update is in time when it is done within its hop of half a second; a whole answer, when it takes no longer than
the segment it is about. Given a record of `stages` for a model of the same sizes, every expected time stands beside the
measured one.

A device that is not here (--device): its public figures (bench/machine/devices.py) in the place of this machine's
limits, and of each the share that was reached here. Nothing was run on it: all of that is a forecast.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...models.errors import InputError
from ...models.families.registry import RELEASED, FamilySpec
from ...models.llm import KV_BYTES, LLM_TYPES
from ...models.precision import PRECISIONS
from ...runtime.bundle import open_bundle
from ...runtime.engine import EngineOptions
from ...runtime.live.captions import LiveOptions
from ...runtime.llm.context_size import LEAST, STEP, SUFFIX
from ...runtime.llm.options import LlmOptions
from ...runtime.system.ort import OrtOptions
from ..families.registry import family_of
from ..machine import limits
from ..machine.devices import DEVICES, FORECAST
from ..machine.limits import Limits
from ..result import Measure, Record, make_record, read_record
from .forecast import SHARES, Forecast, Times, by_probe, by_shares, forecast, measured, same_shape, shares_of
from .forecast import times as expected_times
from .stages import Place

DEMO = "demo"
MODELS = (*RELEASED, DEMO)
HOP_S = LiveOptions().hop_ms / 1e3
AIM = 20.0  # per cent that an expected time may be off
BASE_BYTES = 200_000_000  # Python, numpy, onnxruntime and llama.cpp, before any weight
LLM_WORK_BYTES = 150_000_000  # llama.cpp's buffers for a batch
GPU_WORK_BYTES = 600_000_000  # the same on a GPU, and its driver's
Progress = Callable[[str, int, int], None]
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT]i?)?B")
_UNITS = {None: 0, "K": 1, "M": 2, "G": 3, "T": 4}


@dataclass(frozen=True)
class Options:
    """What is asked. Raises InputError for an impossible value."""

    model: str
    memory_bytes: float
    gpu_bytes: float = 0.0
    seconds: float = 30.0
    n_new_tokens: int = 20
    n_ctx: int | None = None
    """None: what the runtime opens with."""
    kv_type: str = "f16"
    """Of the key-value cache: one of KV_BYTES."""
    threads: int | None = None
    stages: Path | None = None
    probe: bool = True
    device: str | None = None  # one of DEVICES: nothing is measured here

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise InputError(f"{self.model!r} is not a model whose shapes are known: choose {', '.join(MODELS)}")
        if self.kv_type not in KV_BYTES:
            raise InputError(f"kv_type={self.kv_type!r} is not possible: it must be one of {', '.join(KV_BYTES)}")
        if self.device and self.threads:
            raise InputError("--threads says nothing of a --device that is not here: its figures are of all its cores")
        for name, least in (("seconds", 1), ("n_new_tokens", 1), ("n_ctx", 1)):
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise InputError(f"{name}={value} is not possible: it must be at least {least}")

    @property
    def n_positions(self) -> int:
        """Of the key-value cache."""
        family = family_of(self.spec)
        needed = family.question[0] + self.spec.n_audio_tokens + SUFFIX + family.max_new_tokens
        return self.n_ctx or max(LEAST, -(-needed // STEP) * STEP)

    @property
    def spec(self) -> FamilySpec:
        """The model's sizes."""
        return RELEASED.get(self.model) or open_bundle().manifest.spec


@dataclass(frozen=True)
class Row:
    """One way to export the model."""

    llm: str
    encoders: str
    memory_bytes: float
    """Of the machine's own memory."""
    gpu_layers: int
    fits: bool
    times: Times | None
    answer_s: float

    def live(self) -> bool:
        """Whether captions keep up."""
        return self.fits and self.times is not None and self.times.update <= HOP_S

    def in_time(self, seconds: float) -> bool:
        """Whether an answer takes no longer than what it is about."""
        return self.fits and self.times is not None and self.answer_s <= seconds


def run(arguments: argparse.Namespace, progress: Progress | None = None) -> Record:
    """The command: model, memory, gpu, seconds, new_tokens, n_ctx, kv_type, threads, stages, probe."""
    options = Options(
        arguments.model,
        _memory_of(arguments.memory, arguments.device),
        parse_size("gpu", arguments.gpu) if arguments.gpu else 0.0,
        arguments.seconds,
        arguments.new_tokens,
        arguments.n_ctx,
        arguments.kv_type,
        arguments.threads,
        arguments.stages,
        arguments.probe and not arguments.device,
        arguments.device,
    )
    return measure(options, progress)


def _memory_of(given: str | None, device: str | None) -> float:
    """As given; else what a program can have of the device's. Raises InputError."""
    if given:
        return parse_size("memory", given)
    if not device:
        raise InputError("how much memory is there? Give --memory SIZE, such as 8GB, or a known --device")
    return DEVICES[device].usable_bytes


def parse_size(name: str, text: str) -> float:
    """Bytes of "8GB" (thousands) or "6GiB" (1024s). Raises InputError."""
    match = _SIZE.fullmatch(text.strip())
    size = 0.0
    if match:
        unit = match[2]
        base = 1024 if unit and unit.endswith("i") else 1000
        size = float(match[1]) * base ** _UNITS[unit.removesuffix("i") if unit else None]
    if not size:
        raise InputError(f"{name} {text!r} is no size: write a number and a unit, for example 8GB, 6GiB or 512MB")
    return size


def measure(options: Options, progress: Progress | None = None) -> Record:
    """The forecast, and beside what was measured where a record is given. Raises InputError, RunError."""
    stored = read_record(options.stages) if options.stages else None
    if stored and stored.command != "stages":
        raise InputError(f"{options.stages} is a record of {stored.command}: give one of auricle-bench stages")
    spec = options.spec
    known = stored is not None and same_shape(stored, spec)
    if stored and known:
        options = replace(options, seconds=float(stored.settings.get("seconds", options.seconds)))
    n_steps = 4 + 4 + 2 * len(LLM_TYPES)
    done = iter(range(1, n_steps))

    def tick() -> None:
        if progress:
            progress(f"fit {options.model}", next(done, n_steps - 1), n_steps)

    place, machine = _where(options, spec, tick)
    ahead = look_ahead(options, spec, machine, place, stored, tick)
    if progress:
        progress(f"fit {options.model}", n_steps, n_steps)
    rows = make_rows(options, spec, ahead)
    measures = [m for row in rows for m in _row_measures(row)]
    notes = _notes(options, rows, ahead)
    if stored and known:
        compared, off = compare(ahead, spec, stored)
        measures += compared
        notes.append(off)
    settings = {
        "model": options.model,
        "memory": f"{options.memory_bytes / 1e9:.4g} GB",
        "gpu": f"{options.gpu_bytes / 1e9:g} GB",
        "seconds": f"{options.seconds:g}",
        "new tokens": str(options.n_new_tokens),
        "n_ctx": str(options.n_positions),
        "kv type": options.kv_type,
        "source": ahead.source,
        "threads": str(place.threads),
        "llm threads": str(place.llm_threads),
    }
    if options.device:
        settings["device"] = DEVICES[options.device].title
        notes = [*DEVICES[options.device].notes(), *notes]
    return make_record("fit", [], settings, [*measures, *machine.measures()], notes, place.gpu)


def _where(options: Options, spec: FamilySpec, tick: Callable[[], None]) -> tuple[Place, Limits]:
    """Of the device that is named, by the table; of this machine, by measuring."""
    if options.device:
        device = DEVICES[options.device]
        return Place("cpu", False, device.cores, device.cores, 0), device.limits()
    engine = EngineOptions(OrtOptions(threads=options.threads), LlmOptions(n_threads=options.threads))
    place = Place.of(engine, spec.llm.weight_bytes("q8_0"))
    return place, place.limits(tick)


def look_ahead(
    options: Options, spec: FamilySpec, machine: Limits, place: Place, stored: Record | None, tick: Callable[[], None]
) -> Forecast:
    """From a probe; from another model's record where one is given; from the usual shares without a probe."""
    seconds = min(options.seconds, spec.seconds)
    if stored and not same_shape(stored, spec):
        name = stored.subjects[0].name if stored.subjects else "another model"
        return by_shares(spec, seconds, machine, shares_of(stored), place, f"shares of {name}")
    if not options.probe:
        return by_shares(spec, seconds, machine, SHARES, place, "usual shares")
    types = [q for q in reversed(LLM_TYPES) if any(_memory(options, spec, q, e)[2] for e in PRECISIONS)]
    able = [e for e in PRECISIONS if place.provider == "cpu" or not PRECISIONS[e].integer]
    precisions = [e for e in able if any(_memory(options, spec, q, e)[2] for q in types)]
    if stored:  # what it measured is wanted, whether it fits or not
        precisions = list(dict.fromkeys([*precisions, stored.subjects[0].encoders]))
        types = list(dict.fromkeys([stored.subjects[0].llm, *types]))
    return by_probe(spec, seconds, precisions, types, place, tick)


def make_rows(options: Options, spec: FamilySpec, ahead: Forecast) -> list[Row]:
    """Every quantization with every precision of the encoders, most precise first."""
    rows: list[Row] = []
    for llm in LLM_TYPES:
        for encoders in PRECISIONS:
            needed, gpu_layers, fits = _memory(options, spec, llm, encoders)
            share = gpu_layers / spec.llm.n_layers
            times = expected_times(ahead, spec, encoders, llm, options.n_new_tokens, share)
            answer = times.first_token + options.n_new_tokens * times.decode if times else 0.0
            rows.append(Row(llm, encoders, needed, gpu_layers, fits, times, answer))
    return rows


def memory(
    spec: FamilySpec, llm: str, encoders: str, n_ctx: int, seconds: float, kv_type: str = "f16"
) -> dict[str, float]:
    """Bytes by what they hold. `work`: what the graphs compute in, kept for the next clip, and buffers."""
    family = family_of(spec)
    return {
        "weights": float(spec.llm.weight_bytes(llm)),
        "kv": float(spec.llm.kv_bytes(min(n_ctx, spec.llm.max_positions), kv_type)),
        "encoders": float(family.params(spec) * PRECISIONS[encoders].weight_bytes),
        "work": BASE_BYTES
        + min(LLM_WORK_BYTES, spec.llm.hidden * 40_000.0)
        + family.scratch(spec, encoders, min(seconds, spec.seconds)),
    }


def best(rows: Sequence[Row], seconds: float) -> Row | None:
    """The most precise that fits and keeps up live; else that answers in time; None where none does."""
    live = next((row for row in rows if row.live()), None)
    return live or next((row for row in rows if row.in_time(seconds)), None)


def compare(ahead: Forecast, spec: FamilySpec, stored: Record) -> tuple[list[Measure], str]:
    """Expected and measured seconds of every stage, and how far off they are, as measures and in a sentence."""
    subject = stored.subjects[0]
    asked = stored.find("prefill", "tokens")
    prefix, suffix = family_of(spec).question
    question = prefix, int(asked.value) - ahead.n_audio if asked else suffix
    drafted = stored.find("live update", "drafted")
    n_new = int(drafted.value) + 1 if drafted else 1
    expected = expected_times(ahead, spec, subject.encoders, subject.llm, n_new, question=question)
    if expected is None:
        raise InputError(f"{subject.name} (encoders {subject.encoders}, llm {subject.llm}) was not looked at: probe it")
    found = forecast(expected)
    real = measured(stored, list(found))
    measures: list[Measure] = []
    errors: dict[str, float] = {}
    for stage in found.keys() & real.keys():
        errors[stage] = 100 * (found[stage] / real[stage] - 1)
    for stage in (stage for stage in found if stage in errors):
        measures.append(Measure(f"forecast {stage}", "expected", "s", (found[stage],)))
        measures.append(Measure(f"forecast {stage}", "measured", "s", (real[stage],)))
        measures.append(Measure(f"forecast {stage}", "error", "%", (errors[stage],)))
    worst = max(errors, key=lambda stage: abs(errors[stage]))
    inside = sum(abs(error) <= AIM for error in errors.values())
    return measures, (
        f"{inside} of {len(errors)} expected times are within {AIM:g} % of what stages measured; "
        f"the worst is {worst}, {errors[worst]:+.0f} %"
    )


def _memory(options: Options, spec: FamilySpec, llm: str, encoders: str) -> tuple[float, int, bool]:
    """Bytes of the machine's own memory, layers on the GPU, and whether it fits; the encoders are not moved."""
    parts = memory(spec, llm, encoders, options.n_positions, options.seconds, options.kv_type)
    layer = (parts["weights"] + parts["kv"]) / (spec.llm.n_layers + 1)  # the head counts as one
    free = max(0.0, options.gpu_bytes - GPU_WORK_BYTES)
    n_layers = min(spec.llm.n_layers, int(free / layer)) if free else 0
    everything = free >= parts["weights"] + parts["kv"]
    moved = parts["weights"] + parts["kv"] if everything else n_layers * layer
    needed = sum(parts.values()) - moved
    return needed, n_layers, needed <= options.memory_bytes


def _row_measures(row: Row) -> list[Measure]:
    group = f"{row.llm} {row.encoders}"
    found = [
        Measure(group, "memory", "GB", (row.memory_bytes / 1e9,)),
        Measure(group, "gpu layers", "", (float(row.gpu_layers),)),
        Measure(group, "fits", "", (float(row.fits),)),
    ]
    if row.times and row.times.decode:  # nothing is known of a GPU that is not here
        found += [
            Measure(group, "ttft", "s", (row.times.first_token,), "lower"),
            Measure(group, "speed", "tokens/s", (1 / row.times.decode,), "higher"),
            Measure(group, "update", "s", (row.times.update,), "lower"),
            Measure(group, "answer", "s", (row.answer_s,), "lower"),
        ]
    return found


def _notes(options: Options, rows: Sequence[Row], ahead: Forecast) -> list[str]:
    notes = [f"expected times come from: {ahead.source}"]
    chosen = best(rows, min(options.seconds, options.spec.seconds))
    if chosen is None:
        reason = "answers in time" if any(row.fits for row in rows) else "fits"
        notes.append(f"nothing {reason}: give more memory, a GPU, or a smaller model")
    else:
        how = "keeps up live" if chosen.live() else "answers in time, but is too slow for live captions"
        notes.append(f"best: --llm {chosen.llm} --encoders {chosen.encoders}, which {how}")
    if any(row.gpu_layers for row in rows) and not ahead.offloaded:
        notes.append("no GPU was found here: the time of layers on one is left out, so these are at best")
    if options.kv_type != "f16":
        notes.append("expected times are those of a key-value cache of f16")
    return notes + _smaller_caches(options, rows, chosen)


def _smaller_caches(options: Options, rows: Sequence[Row], chosen: Row | None) -> list[str]:
    """What fits only with a smaller key-value cache, and how much more of the best the GPU would hold."""
    notes: list[str] = []
    missing = [row for row in rows if not row.fits]
    n_layers = chosen.gpu_layers if chosen else 0
    for kv_type in [name for name in KV_BYTES if KV_BYTES[name] < KV_BYTES[options.kv_type]]:
        smaller = replace(options, kv_type=kv_type)
        if fitting := [row for row in missing if _memory(smaller, options.spec, row.llm, row.encoders)[2]]:
            named = ", ".join(f"--llm {row.llm} --encoders {row.encoders}" for row in fitting)
            notes.append(f"with --kv-type {kv_type} more fits: {named}")
            missing = [row for row in missing if row not in fitting]
        n = _memory(smaller, options.spec, chosen.llm, chosen.encoders)[1] if chosen else 0
        if n > n_layers:
            notes.append(f"with --kv-type {kv_type} the GPU holds {n} layers of the best, not {n_layers}")
            n_layers = n
    return notes


def lines(record: Record) -> list[str]:
    """The table of a record that `fit` made."""
    s = record.settings
    head = f"{'llm':<8}{'encoders':<10}{'memory GB':>10}{'fits':>6}{'GPU layers':>12}{'first token s':>15}"
    best = next((note for note in record.notes if note.startswith("best:")), "")
    chosen: list[str] = re.findall(r"--(?:llm|encoders) (\w+)", best)
    found = [
        f"{s['model']}: {s['memory']} of memory, {s['gpu']} on a GPU, {s['seconds']} s of audio, "
        f"{s['new tokens']} new tokens, {s['n_ctx']} positions of {s.get('kv type', 'f16')}",
        head + f"{'tokens/s':>10}{'update s':>10}{'answer s':>10}",
    ]
    for group in (group for group in record.groups if record.find(group, "fits")):
        found.append(_line(record, group) + ("  <- best" if group.split() == chosen else ""))
    if compared := [group for group in record.groups if group.startswith("forecast ")]:
        found.append(f"{'stage':<20}{'expected ms':>13}{'measured ms':>13}{'error':>8}")
        found += [_compared(record, group) for group in compared]
    machine = [m for m in record.measures if m.group == limits.GROUP]
    found.append(
        f"{s.get('device', 'this machine')}: " + ", ".join(f"{m.name} {max(m.samples):.4g} {m.unit}" for m in machine)
    )
    forecasts = [note for note in record.notes if note.startswith(FORECAST)]
    return [*forecasts, *found, *(note for note in record.notes if note not in forecasts)]


def _line(record: Record, group: str) -> str:
    def value(name: str, form: str, width: int) -> str:
        found = record.find(group, name)
        return f"{format(found.value, form) if found else '-':>{width}}"

    llm, encoders = group.split()
    fits = record.find(group, "fits")
    return (
        f"{llm:<8}{encoders:<10}{value('memory', '.2f', 10)}{'yes' if fits and fits.value else 'no':>6}"
        f"{value('gpu layers', '.0f', 12)}{value('ttft', '.3g', 15)}{value('speed', '.3g', 10)}"
        f"{value('update', '.3g', 10)}{value('answer', '.3g', 10)}"
    )


def _compared(record: Record, group: str) -> str:
    expected, real, error = (record.find(group, name) for name in ("expected", "measured", "error"))
    assert expected and real and error
    stage = group.removeprefix("forecast ")
    return f"{stage:<20}{expected.value * 1e3:>13.2f}{real.value * 1e3:>13.2f}{error.value:>+7.0f}%"
