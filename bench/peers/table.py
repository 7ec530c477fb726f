"""The result of a race -> a record, and the record -> a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...models.bundle import read_manifest
from ..machine.gpu import gpu_name
from ..quality.table import wer
from ..result import OURS, Measure, Record, make_record, subject
from . import recordings
from .race import Race, Sample
from .task import Contestant, Task, output_file

IDLE_SHARE = 0.02  # of a core: a contestant that burns more while it waits disturbs the others
SPIN_DOWN_S = 0.3  # of processor time: what a thread pool may spin after its own run, while nobody else runs
_REFERENCES = ("torch fp32", "torch fp32, plain", "onnxruntime fp32")
"""Whose output the others are compared with: the first that took part."""


def to_record(task: Task, team: Mapping[str, Contestant], found: Race, rounds: int) -> Record:
    """Every sample, and the ratios ours / peer of each round."""
    samples = {name: list(found.samples[name]) for name in team if name in found.samples}
    notes = [*_versions(found), *found.notes, *_idle_notes(samples), *_token_notes(task, found)]
    if line := _extrapolate(task, samples):
        notes.append(line)
    errors = _errors(task, team, samples)
    measures: list[Measure] = []
    for name, runs in samples.items():
        measures += _measures(task, name, runs, samples.get(OURS, []))
        if task.part == "recordings":
            measures += recordings.measures(task, name, found.ready[name].texts)
        if name in errors:
            measures.append(Measure(name, "error", "%", (100 * errors[name],), "lower"))
    settings = {"part": task.part, "rounds": str(rounds), "threads": str(task.threads), **_settings(task)}
    subjects = () if task.bundle is None else (subject(read_manifest(task.bundle)),)
    return make_record("peers", subjects, settings, measures, notes, gpu_name() if task.n_gpu_layers else None)


def lines(record: Record) -> list[str]:
    """The table: medians, and for the ratios the smallest and largest too."""
    heard = record.settings["part"] == "recordings"
    columns = ("wall s", "cpu s", "GB", "word error %" if heard else "error %", "ours/peer: wall", "cpu", "memory")
    width = max(12, *(len(group) for group in record.groups))
    rows = [" " * width + "".join(f"{column:>20}" for column in columns)]
    for group in record.groups:
        plain = [_median(record.find(group, name)) for name in ("wall", "cpu", "memory")]
        plain.append(wer(record, group) if heard else _median(record.find(group, "error")))
        ratios = [_spread(record.find(group, f"ratio_{name}")) for name in ("wall", "cpu", "memory")]
        rows.append(f"{group:<{width}}" + "".join(f"{cell:>20}" for cell in (*plain, *ratios)))
    rates = [(g, m) for g in record.groups if (m := record.find(g, "rate")) is not None]
    rows += [f"{group:<{width}}{measure.value:>20.4g} {measure.unit}" for group, measure in rates]
    return [*rows, *record.notes]


def _measures(task: Task, name: str, runs: Sequence[Sample], ours: Sequence[Sample]) -> list[Measure]:
    wall = tuple(s.wall_s for s in runs)
    cpu = tuple(s.cpu_s for s in runs)
    found = [
        Measure(name, "wall", "s", wall, "lower"),
        Measure(name, "cpu", "s", cpu, "lower"),
        Measure(name, "memory", "GB", (max(s.peak for s in runs) / 1e9,), "lower"),
    ]
    if task.part == "decode":
        found.append(Measure(name, "rate", "tokens/s", tuple((task.tokens - 1) / s for s in wall), "higher"))
    if task.part == "prefill":
        found.append(Measure(name, "rate", "positions/s", tuple(task.positions / s for s in wall), "higher"))
    if name != OURS and ours:
        pairs = list(zip(ours, runs, strict=False))
        found += [
            Measure(name, "ratio_wall", "", tuple(a.wall_s / b.wall_s for a, b in pairs), "lower"),
            Measure(name, "ratio_cpu", "", tuple(a.cpu_s / b.cpu_s for a, b in pairs), "lower"),
            Measure(name, "ratio_memory", "", (max(s.peak for s in ours) / max(s.peak for s in runs),), "lower"),
        ]
    return found


def _errors(task: Task, team: Mapping[str, Contestant], samples: Mapping[str, object]) -> dict[str, float]:
    """Relative rms against the reference's output, of all that compute with the same weights."""
    reference = next((name for name in _REFERENCES if name in samples and name in team), None)
    if reference is None or not output_file(task, reference).is_file():
        return {}
    wanted = _output(output_file(task, reference))
    errors: dict[str, float] = {}
    for name in samples:
        path = output_file(task, name)
        own = name == OURS and (task.graph is not None or task.bundle is not None)
        if name == reference or own or not path.is_file():
            continue
        errors[name] = float(np.sqrt(np.mean((_output(path) - wanted) ** 2) / np.mean(wanted**2)))
    return errors


def _output(path: Path) -> NDArray[np.float64]:
    values: NDArray[np.float32] = np.load(path)
    return values.reshape(-1).astype(np.float64)


def _extrapolate(task: Task, samples: dict[str, list[Sample]]) -> str | None:
    """Adds the whole language model from the two that were measured: the time and memory of a layer, times the rest."""
    measured = sorted((int(name.split()[-2]), name) for name in samples if name.endswith(" layers"))
    if len(measured) != 2 or task.bundle is None:
        return None
    (few, less), (many, more) = measured
    whole = read_manifest(task.bundle).spec.llm.n_layers
    times = (whole - many) / (many - few)
    name = f"{less.split(',')[0]}, all {whole}"
    samples[name] = [
        Sample(
            b.wall_s + times * (b.wall_s - a.wall_s),
            b.cpu_s + times * (b.cpu_s - a.cpu_s),
            round(b.peak + times * (b.peak - a.peak)),
        )
        for a, b in zip(samples[less], samples[more], strict=False)
    ]
    return (
        f"{name} layers is extrapolated: what {many - few} layers of the language model cost between {few} and {many}, "
        f"for the {whole - many} that are missing; the encoders are whole in both"
    )


def _versions(found: Race) -> list[str]:
    versions = {package: version for ready in found.ready.values() for package, version in ready.versions.items()}
    return [", ".join(f"{package} {version}" for package, version in sorted(versions.items()))] if versions else []


def _idle_notes(samples: Mapping[str, Sequence[Sample]]) -> list[str]:
    """Who burned processor time while it should have slept, as a share of the others' running time."""
    notes: list[str] = []
    for name, runs in samples.items():
        others = sum(s.wall_s for other, r in samples.items() if other != name for s in r)
        idle = sum(s.idle_cpu_s for s in runs)
        if idle > IDLE_SHARE * others + SPIN_DOWN_S * len(runs):
            notes.append(f"{name} used {idle:.1f} s of processor time while it waited: it slowed the others down")
    return notes


def _token_notes(task: Task, found: Race) -> list[str]:
    """Whether the same tokens came out, where the weights are the same."""
    ours = found.ready.get(OURS)
    if ours is None or not ours.tokens or (task.part == "answer" and task.checkpoint is None):
        return []
    notes: list[str] = []
    for name, ready in found.ready.items():
        if name == OURS or not ready.tokens:
            continue
        pairs = list(zip(ours.tokens, ready.tokens, strict=False))
        same = next((n for n, (a, b) in enumerate(pairs) if a != b), len(pairs))
        if same == len(ours.tokens) == len(ready.tokens):
            notes.append(f"{name} gave the same {same} tokens as {OURS}")
        else:
            notes.append(
                f"{name} gave {len(ready.tokens)} tokens and {OURS} {len(ours.tokens)}, the first {same} the same"
            )
    return notes


def _settings(task: Task) -> dict[str, str]:
    if task.part in ("whisper", "fastconformer"):
        return {"layers": str(task.layers)} if task.whisper is None else {"whisper": task.whisper.name}
    if task.part == "recordings":
        return {"data": str(task.data), "recordings": str(len(recordings.items(task)))}
    settings = {"tokens": str(task.tokens)} if task.part in ("decode", "answer") else {}
    return settings | ({"gpu layers": str(task.n_gpu_layers)} if task.n_gpu_layers else {})


def _median(measure: Measure | None) -> str:
    return "" if measure is None else f"{measure.value:.3g}"


def _spread(measure: Measure | None) -> str:
    if measure is None:
        return ""
    if len(measure.samples) == 1:
        return f"{measure.value:.3f}"
    return f"{measure.value:.3f} ({min(measure.samples):.2f}-{max(measure.samples):.2f})"
