"""`auricle-bench device`: this machine, with the bundles that come along -> one record to keep, share and compare.

    stages    every stage of each bundle, and the machine's own limits      a process of its own
    live      some of the demo's clips at their own pace, captioned         a process of its own, whose memory is told
    idle      silence at its own pace through what `auricle listen` runs    processor time a minute

Needs neither torch nor anything to be downloaded. Two such records stand side by side in `auricle-bench compare`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import wave
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...models.audio import SAMPLE_RATE, Waveform
from ...models.bundle import SHIPPED, shipped_bundle
from ...models.errors import RunError
from ...runtime.audio.decode import read_audio
from ...runtime.bundle import open_bundle
from ...runtime.cli.commands import engine_options
from ...runtime.engine import load
from ...runtime.system.ort import choose_provider
from ..datasets import Progress, quiet
from ..live.idle import idle_cpu_s
from ..machine import limits
from ..report.numbers import number
from ..result import Measure, Record, make_record, read_record, subject

CLIPS = ("command", "reminder", "weather", "shopping")
"""Of the demo: what both families hear."""
PAUSE_S = 1.2
"""Behind each: the gate is sure of it."""
SECONDS = 10.0
"""Of audio, for the stages: the window of the bundles that come along."""
_ROWS = (
    ("opened", "open", "wall"),
    (f"all of hearing, {SECONDS:g} s of sound", "hear", "wall"),
    ("prefill", "prefill", "wall"),
    ("decode, a token", "decode", "wall"),
    ("live update, newest sample to text", "update", "latency"),
    ("end of speech to final", "speech_end", "final"),
    ("real-time factor, live", "session", "rtf"),
    ("processor time, live", "session", "cpu"),
    ("peak memory, live", "session", "memory"),
    ("processor time of silence", "idle", "cpu"),
)
_UNSPOKEN = ("share", "rate", "ratio", "accepted", "acceptance", "wasted", "erasure", "ready", "late", "passes")
"""Of the machine's limits or of the model's words: nothing to compare devices by."""


def run(arguments: argparse.Namespace, progress: Progress = quiet) -> Record:
    """The command: bundles, runs, silence, device options. Raises InputError, RunError."""
    bundles = [open_bundle(each) for each in arguments.bundles or SHIPPED]
    where = engine_options(arguments)
    options = forwarded(arguments)
    measures: list[Measure] = []
    machine: list[Measure] = []
    notes: list[str] = []
    gpu: str | None = None
    with tempfile.TemporaryDirectory(prefix="auricle-device-") as folder:
        talk = write_talk(Path(folder) / "talk.wav")
        for at, bundle in enumerate(bundles):
            name, path = bundle.manifest.name, str(bundle.directory)
            progress(f"stages of {name}", 3 * at, 3 * len(bundles))
            runs = ["--runs", str(arguments.runs), "--seconds", f"{SECONDS:g}"]
            stages = measure_apart(["stages", path, *runs, *options], Path(folder))
            progress(f"live captions of {name}", 3 * at + 1, 3 * len(bundles))
            live = measure_apart(["live", path, "--source", str(talk), *options], Path(folder))
            progress(f"silence through {name}", 3 * at + 2, 3 * len(bundles))
            with load(bundle.directory, where) as engine:
                idle = Measure("idle", "cpu", "s a minute", (idle_cpu_s(engine, arguments.silence),), "lower")
            measures += of_bundle(name, [*stages.measures, *live.measures, idle])
            machine = together(machine, [each for each in stages.measures if each.group == limits.GROUP])
            notes += [f"{name}: {note}" for note in stages.notes if "NO INTEGER KERNEL" in note]
            gpu = gpu or stages.machine.gpu or live.machine.gpu
    notes.append(f"live: {', '.join(CLIPS)} of the demo's clips, each with a pause of {PAUSE_S:g} s behind it")
    notes.append("silence: noise of a quiet room from a file; a microphone's own driver comes on top")
    settings = {
        "runs": str(arguments.runs),
        "silence": f"{arguments.silence:g}",
        "provider": choose_provider(arguments.provider),
        "threads": str(arguments.threads or "default"),
    }
    subjects = [subject(bundle.manifest) for bundle in bundles]
    return make_record("device", subjects, settings, [*measures, *machine], notes, gpu)


def forwarded(arguments: argparse.Namespace) -> list[str]:
    """The device options, for another command's line."""
    names = ("provider", "threads", "n_gpu_layers", "n_ctx", "kv_type")
    given = {name: getattr(arguments, name) for name in names}
    return [f"--{name.replace('_', '-')}={value}" for name, value in given.items() if value is not None]


def measure_apart(command: Sequence[str], folder: Path) -> Record:
    """Another command's record, from a process of its own that tells its progress and its faults by itself."""
    output = folder / "output.txt"
    with output.open("wb") as file:
        done = subprocess.run([sys.executable, "-m", "auricle.bench", *command], stdout=file)
    if done.returncode:
        message = f"{command[0]} of {command[1]} ended with status {done.returncode}: its own message says what to do"
        raise RunError(message)
    return read_record(output)


def write_talk(path: Path) -> Path:
    """A wav file of CLIPS with pauses behind them, mono, 16 kHz, 16 bits."""
    pause = np.zeros(round(PAUSE_S * SAMPLE_RATE), np.float32)
    pieces: list[Waveform] = []
    for name in CLIPS:
        pieces += [read_audio(shipped_bundle() / "clips" / f"{name}.wav"), pause]
    pcm = (np.clip(np.concatenate(pieces), -1, 1) * 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(pcm.tobytes())
    return path


def of_bundle(name: str, measures: Sequence[Measure]) -> list[Measure]:
    """What says how fast and how large, in groups that name the bundle."""
    kept = [m for m in measures if m.better != "neither" and m.name not in _UNSPOKEN and m.group != limits.GROUP]
    return [replace(measure, group=f"{name}: {measure.group}") for measure in kept]


def together(first: Sequence[Measure], second: Sequence[Measure]) -> list[Measure]:
    """The machine's limits as two processes saw them."""
    before = {measure.name: measure.samples for measure in first}
    return [replace(measure, samples=before.get(measure.name, ()) + measure.samples) for measure in second]


def lines(record: Record) -> list[str]:
    """The table of a record that `device` made: a column a bundle, medians and, where it matters, 95 %."""
    where = record.machine
    packages = ", ".join(f"{name} {version}" for name, version in where.packages.items())
    names = [each.name for each in record.subjects]
    width = max(26, *(len(name) + 2 for name in names))
    found = [
        f"{where.cpu}, {where.cores} core{'s' if where.cores != 1 else ''}, {number(where.memory_gb)} GB of memory",
        f"{where.system}, {packages}" + (f", {where.gpu}" if where.gpu else ""),
        "",
        " " * 38 + "".join(f"{name:>{width}}" for name in names),
    ]
    for title, group, name in _ROWS:
        cells = [_cell(record.find(f"{each}: {group}", name)) for each in names]
        found.append(f"{title:<38}" + "".join(f"{cell:>{width}}" for cell in cells))
    machine = [m for m in record.measures if m.group == limits.GROUP]
    found.append("this machine: " + ", ".join(f"{m.name} {max(m.samples):.4g} {m.unit}" for m in machine))
    return [*found, *record.notes]


def _cell(measure: Measure | None) -> str:
    if measure is None:
        return "-"
    scale, unit = (1e3, "ms") if measure.unit == "s" else (1.0, measure.unit)
    text = f"{number(scale * measure.value)} {unit}".rstrip()
    return text if len(measure.samples) < 5 else f"{text} (95 %: {number(scale * measure.percentile(0.95))})"
