"""`auricle-bench stages`: a bundle -> every stage by itself: time, work, and how near to this machine's limit it is.

front ends, encoders, prefill    GFLOP/s of what bench/flops.py counts, against a product of matrices
decode                           GB/s of weights and KV cache, against reading memory
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...models.precision import PRECISIONS
from ...runtime.bundle import Bundle, open_bundle
from ...runtime.cli.commands import engine_options
from ...runtime.engine import Engine, EngineOptions
from ...runtime.llm.llama import can_offload
from ...runtime.system.machine import default_threads, llm_threads
from ...runtime.system.ort import choose_provider
from ..families.registry import family_of
from ..machine import kernels, limits
from ..machine.kernels import Kernels
from ..machine.limits import Limits
from ..machine.timing import reset_peak, resident_bytes
from ..result import Measure, Record, make_record, subject
from .stage_runner import LIVE, SETTLE_S, Bound, Options, StageRuns

Progress = Callable[[str, int, int], None]
CACHES = 1 << 28  # weights smaller than this may never leave a large machine's caches


def run(arguments: argparse.Namespace, progress: Progress | None = None) -> Record:
    """The command: bundle, runs, warmup, seconds, new_tokens, prompt, device options."""
    options = Options(
        runs=arguments.runs,
        warmup=arguments.warmup,
        seconds=arguments.seconds,
        n_new_tokens=arguments.new_tokens,
        prompt=arguments.prompt,
        engine=engine_options(arguments),
    )
    return measure(arguments.bundle, options, progress)


def measure(bundle: Path | str | None, options: Options, progress: Progress | None = None) -> Record:
    """Measure all stages of a bundle, the demo by default. Raises InputError, RunError when work was not done."""
    opened = open_bundle(bundle)
    opened.manifest.prompt.prompt_for(options.prompt)  # or say now that it cannot be asked
    precision = opened.manifest.quantization
    place = Place.of(options.engine, opened.path(opened.manifest.llm.file).stat().st_size)
    n_stages = len(family_of(opened.manifest.spec).works(opened.manifest.spec, precision.encoders, options.seconds)) + 3
    n_steps = n_stages * (options.runs + options.warmup) + options.runs + len(opened.manifest.graphs) + 8
    tell = _Tell(progress, n_steps)
    machine = place.limits(lambda: tell("machine"))
    reset_peak()
    start = time.perf_counter()
    with Engine(opened, options.engine) as engine:
        open_s = time.perf_counter() - start
        runs = StageRuns(engine, options, place.bound(precision.encoders, precision.llm), tell)
        stages = runs.stages()
        live = runs.live_update()
        memory = _memory(opened, engine)
    ran = {name: _profile(opened, name, runs, place, tell) for name in opened.manifest.graphs}
    machine = limits.together(machine, place.limits(lambda: tell("machine")))
    tell.finish()
    measures = [
        *(measure for stage in stages for measure in stage.measures(machine)),
        *live,
        Measure("open", "wall", "s", (open_s,), "lower"),
        *memory,
        *machine.measures(),
        *(Measure(f"{graph} kernels", name, "", (float(n),)) for graph in ran for name, n in ran[graph].calls.items()),
    ]
    notes = kernel_notes(ran, precision.encoders)
    if stages[-1].work.bytes < CACHES:
        notes.append("decode: so small a language model stays in the caches; its share of the read limit says little")
    settings = {
        "seconds": f"{runs.seconds:g}",
        "new tokens": str(options.n_new_tokens),
        "prompt": options.prompt,
        "runs": str(options.runs),
        **place.settings(precision.encoders, precision.llm),
    }
    return make_record("stages", [subject(opened.manifest)], settings, measures, notes, place.gpu)


def kernel_notes(ran: Mapping[str, Kernels], encoders: str) -> list[str]:
    """Which kernels took the time, and a call-out for each quantized graph that multiplied no integers."""
    notes = [f"{graph} ran {found.sentence()}" for graph, found in ran.items()]
    return notes + [
        f"NO INTEGER KERNEL RAN in {graph}, which the bundle calls {encoders}: it computes in float, several times "
        "slower than it could; look at how it was exported"
        for graph, found in ran.items()
        if PRECISIONS[encoders].integer and not found.integer
    ]


@dataclass(frozen=True)
class Place:
    """Devices and threads, as an engine with these options chooses them."""

    provider: str
    offloaded: bool
    """The language model lies in a GPU's memory, at least partly."""
    threads: int
    llm_threads: int
    n_gpu_layers: int

    @staticmethod
    def of(options: EngineOptions, llm_bytes: int) -> Place:
        """For a language model of so large a file. Raises InputError for a provider that does not start."""
        return Place(
            choose_provider(options.ort.provider),
            can_offload() and options.llm.n_gpu_layers != 0,
            options.ort.threads or default_threads(),
            options.llm.n_threads or llm_threads(llm_bytes),
            options.llm.n_gpu_layers,
        )

    @property
    def gpu(self) -> str | None:
        """What a record says about it."""
        used = [] if self.provider == "cpu" else [f"encoders on {self.provider}"]
        return ", ".join(used + ["language model offloaded"] * self.offloaded) or None

    def limits(self, tick: Callable[[], None]) -> Limits:
        """A few seconds."""
        return limits.measure(self.threads, self.llm_threads, self.provider, self.offloaded, tick=tick)

    def bound(self, encoders: str, llm: str) -> Bound:
        """A GPU multiplies in float16 unless a graph is fp32; on a CPU llama.cpp multiplies quantized weights as
        integers, and float16 is computed as float32."""
        if self.provider == "cpu":
            graphs = "int8" if PRECISIONS[encoders].integer else "fp32"
        else:
            graphs = "fp32" if encoders == "fp32" else "fp16"
        if self.offloaded:
            return Bound(graphs, "fp16" if self.provider in ("cuda", "tensorrt") else "fp32")
        return Bound(graphs, "fp32" if llm.startswith("f") else "int8")

    def settings(self, encoders: str, llm: str) -> dict[str, str]:
        """What changes the result, and which limits the shares are of."""
        bound = self.bound(encoders, llm)
        return {
            "provider": self.provider,
            "threads": str(self.threads),
            "llm threads": str(self.llm_threads),
            "gpu layers": str(self.n_gpu_layers) if self.offloaded else "0",
            "encoders' limit": bound.encoders,
            "prefill's limit": bound.prefill,
        }


def _memory(bundle: Bundle, engine: Engine) -> list[Measure]:
    """The peak since the engine was opened, and what it consists of; `rest` is all that is neither file nor cache."""
    files = sum(entry.size for entry in bundle.manifest.files)
    kv = engine.spec.llm.kv_bytes(engine.llm.context.n_ctx, engine.llm.options.kv_type)
    found = [Measure("memory", "files", "GB", (files / 1e9,)), Measure("memory", "kv", "GB", (kv / 1e9,))]
    if peak := resident_bytes():
        found.insert(0, Measure("memory", "peak", "GB", (peak / 1e9,), "lower"))
        found.append(Measure("memory", "rest", "GB", ((peak - files - kv) / 1e9,), "lower"))
    return found


def _profile(bundle: Bundle, name: str, runs: StageRuns, place: Place, tell: _Tell) -> Kernels:
    path = bundle.path(bundle.manifest.graphs[name].file)
    found = kernels.profile(path, runs.feeds[name], place.provider, place.threads)
    tell("profile")
    return found


class _Tell:
    """Progress over all that is run."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._done = 0
        self._total = total

    def __call__(self, stage: str) -> None:
        self._done = min(self._done + 1, self._total - 1)
        if self._progress:
            self._progress(stage, self._done, self._total)

    def finish(self) -> None:
        if self._progress:
            self._progress("done", self._total, self._total)


def lines(record: Record) -> list[str]:
    """The table of a record that `stages` made."""
    title = ", ".join(f"{s.name} (encoders {s.encoders}, llm {s.llm})" for s in record.subjects)
    settings = record.settings
    head = f"{'stage':<12}{'median ms':>11}{'p95 ms':>11}{'CPU ms':>11}{'tokens':>8}"
    rows = [_row(record, group) for group in record.groups if record.find(group, "share")]
    return [
        f"{title}: {settings.get('seconds')} s of audio, {settings.get('provider')}, "
        f"{settings.get('threads')} threads for encoders, {settings.get('llm threads')} for the language model",
        head + f"{'work':>15}{'rate':>17}{'of limit':>16}",
        *rows,
        *_summary(record),
        *record.notes,
    ]


def _row(record: Record, group: str) -> str:
    wall, cpu, rate, share = (_found(record, group, name) for name in ("wall", "cpu", "rate", "share"))
    traffic = rate.unit == "GB/s"
    amount = _found(record, group, "bytes" if traffic else "flop").value
    work = f"{amount / 1e9:.3g} {'GB' if traffic else 'GFLOP'}"
    limit = "read" if traffic else _limit(record, group)
    return (
        f"{group:<12}{wall.value * 1e3:>11.2f}{wall.percentile(0.95) * 1e3:>11.2f}{cpu.value * 1e3:>11.2f}"
        f"{_found(record, group, 'tokens').value:>8.0f}{work:>15}{f'{rate.value:.4g} {rate.unit}':>17}"
        f"{f'{share.value:.1f} % {limit}':>16}"
    )


def _limit(record: Record, group: str) -> str:
    if not _found(record, group, "bytes").value:  # a front end
        return "fp32"
    return record.settings.get("prefill's limit" if group == "prefill" else "encoders' limit", "")


def _summary(record: Record) -> list[str]:
    """Machine, live update, decoding speed, memory."""
    machine = [m for m in record.measures if m.group == limits.GROUP]
    found = ["this machine: " + ", ".join(f"{m.name} {max(m.samples):.4g} {m.unit}" for m in machine)]
    if decode := record.find("decode", "wall"):
        found.append(f"decoding: {1 / decode.value:.1f} tokens/s")
    if ratio := record.find(LIVE, "ratio"):
        draft, plain = (_found(record, LIVE, name).value * 1e3 for name in ("draft", "no draft"))
        kept, of = (_found(record, LIVE, name).value for name in ("accepted", "drafted"))
        found.append(
            f"live update, language model alone: {draft:.1f} ms with a draft of {of:.0f} tokens ({kept:.0f} accepted), "
            f"{plain:.1f} ms without: {ratio.value:.2f}"
        )
    if (settled := record.find(LIVE, "settled")) and (kept := record.find(LIVE, "kept")):
        found.append(
            f"  with the draft and {kept.value:.0f} audio tokens kept, all that are older than {SETTLE_S:g} s: "
            f"{settled.value * 1e3:.1f} ms"
        )
    if memory := [m for m in record.measures if m.group == "memory"]:
        found.append("memory: " + ", ".join(f"{m.name} {m.value:.3f} {m.unit}" for m in memory))
    if wall := record.find("open", "wall"):
        found.append(f"opened in {wall.value * 1e3:.0f} ms")
    return found


def _found(record: Record, group: str, name: str) -> Measure:
    measure = record.find(group, name)
    assert measure is not None, f"{group} has no {name}"
    return measure
