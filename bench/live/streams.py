"""`auricle-bench streams`: so many people who speak at once, captioned by one engine -> how late, and what it takes.

    talk ─► live captions, a thread for each ─► turns on one engine ─► events, dated by the talk's own clock

Everybody speaks half of the time, at the pace of life. Each number of streams is measured twice in a run, and for each
number of lanes: with the scheduler's order, and with turns in the order of asking.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise, product
from pathlib import Path
from typing import Literal

from ...models.audio import SAMPLE_RATE, Waveform
from ...models.errors import AudioError, AuricleError, InputError, RunError
from ...runtime.audio.decode import read_audio
from ...runtime.cli.commands import engine_options
from ...runtime.engine import Engine, load
from ...runtime.events import AudioDropped, Caption, Final, SpeechStarted
from ...runtime.live.captions import LiveOptions, captions
from ...runtime.live.estimate import measure_costs
from ...runtime.scheduler import Cancelled, EngineStream, Order, Priority, Scheduler, first_come, most_urgent
from ...runtime.stream_load import LIMIT, LONGEST_HOP_SECONDS, Load
from ...runtime.system.heap import share_heap
from ...runtime.system.machine import usable_cores
from ...runtime.system.ort import choose_provider
from ..datasets import Progress, quiet
from ..machine.timing import resident_bytes
from ..result import Measure, Record, make_record, subject
from .streams_table import lines as lines
from .talk import TalkSource, talk

CLIPS = ("command", "reminder", "weather", "sum", "shopping", "unseen-voice")
"""Of the bundle's own, those in which somebody speaks."""
MAX_STREAMS = 500
LEFT_SECONDS = 30.0
"""For what is still decoded when everybody has spoken."""
Better = Literal["lower", "higher", "neither"]
ORDERS: dict[str, Order] = {"": most_urgent, ", first come": first_come}
"""What follows a group's name, and who goes first there."""


@dataclass
class Seen:
    """One stream as its listener saw it."""

    final_ms: list[float] = field(default_factory=list[float])
    """From the segment's last sample to its text."""
    latency_ms: list[float] = field(default_factory=list[float])
    """From an update's newest sample to its text."""
    interval_s: list[float] = field(default_factory=list[float])
    """Between two updates of a segment."""
    dropped_s: float = 0.0
    given_up: bool = False
    """It was still behind when the others had long ended."""
    error: Exception | None = None


@dataclass
class Turns:
    """What a scheduler's turns took, in seconds, by priority."""

    waited: dict[Priority, list[float]] = field(default_factory=lambda: {each: [] for each in Priority})
    held: dict[Priority, list[float]] = field(default_factory=lambda: {each: [] for each in Priority})

    def add(self, priority: Priority, waited_s: float, held_s: float) -> None:
        """As Scheduler observes them."""
        self.waited[priority].append(waited_s)
        self.held[priority].append(held_s)


@dataclass
class Measured:
    """So many streams, for so long."""

    seen: list[Seen]
    turns: Turns
    audio_s: float
    wall_s: float
    cpu_s: float
    resident: int
    """Bytes, when all had spoken for the whole time."""
    n_lanes: int


def run(arguments: argparse.Namespace, progress: Progress = quiet) -> Record:
    """The command."""
    share_heap()  # as `auricle serve` does, or memory would be that of a heap for each thread
    options = LiveOptions(prompt=arguments.task, hop_ms=arguments.hop_ms)
    with load(arguments.bundle, engine_options(arguments)) as engine:
        clips = read_clips(engine, arguments.recording)
        costs = [calibrate(engine, clips, options, n) for n in arguments.lanes or [engine.usual_lanes]]
        counts = [number_for(costs[0], each) for each in arguments.load] if arguments.load else arguments.streams
        seconds = 60.0 * arguments.minutes
        measures = sweep(engine, costs, clips, options, counts, arguments.admission, seconds, progress)
        manifest = engine.bundle.manifest
    settings = {
        "recordings": ", ".join(path.name for path in arguments.recording) or "the bundle's clips",
        "minutes": f"{arguments.minutes:g}",
        "task": options.prompt,
        "hop_ms": f"{options.hop_ms:g}",
        "lanes": ",".join(str(each.n_lanes) for each in costs),
        "admission": "yes" if arguments.admission else "no",
        "load": ",".join(f"{each:g}" for each in arguments.load or ()) or "by number",
        "provider": choose_provider(arguments.provider),
        "threads": str(arguments.threads or "default"),
    }
    return make_record("streams", [subject(manifest)], settings, measures, _notes(options))


def sweep(
    engine: Engine,
    costs: Sequence[Load],
    clips: Sequence[Waveform],
    options: LiveOptions,
    counts: Sequence[int],
    admission: bool,
    seconds: float,
    progress: Progress = quiet,
) -> list[Measure]:
    """A group for each number of streams, each of `costs` and each order; what is refused is told, not measured.

    costs: as calibrated, one for each number of lanes.
    """
    measures: list[Measure] = []
    resident: dict[int, dict[int, int]] = {each.n_lanes: {} for each in costs}
    for n, load_of in product(dict.fromkeys(counts), costs):
        share = load_of.of(n)
        admitted = admitted_of(load_of, n) if admission else n
        before = resident[load_of.n_lanes]
        known = admitted in before
        lanes_suffix = f", {load_of.n_lanes} lane{'s' if load_of.n_lanes > 1 else ''}" if len(costs) > 1 else ""
        for suffix, order in ORDERS.items():
            group = f"{n} stream{'s' if n > 1 else ''}{lanes_suffix}{suffix}"
            measures.append(Measure(group, "load", "", (share,)))
            measures.append(Measure(group, "refused", "", (float(n - admitted),)))
            if known:
                continue  # so many were measured
            found = measure(engine, load_of, order, clips, options, admitted, seconds, progress)
            measures.append(Measure(group, "load_after", "", (load_of.of(admitted),)))
            measures += stream_measures(group, found)
            if not suffix:
                fewest, least = next(iter(before.items()), (admitted, 0))
                before[admitted] = found.resident
                if admitted > fewest:
                    further = (found.resident - least) / (admitted - fewest) / 1e6
                    measures.append(Measure(group, "memory", "MB", (further,), "lower"))
    return measures


def read_clips(engine: Engine, recordings: Sequence[Path]) -> list[Waveform]:
    """What is spoken: recordings, or the clips that come with the bundle. Raises InputError, AudioError."""
    paths = recordings or [engine.bundle.directory / "clips" / f"{name}.wav" for name in CLIPS]
    if missing := [path for path in paths if not recordings and not path.is_file()]:
        raise InputError(f"{missing[0]} is not there: give recordings in which somebody speaks with --recording")
    clips = [read_audio(path) for path in paths]
    if short := [path for path, clip in zip(paths, clips, strict=True) if len(clip) < SAMPLE_RATE]:
        raise AudioError(f"{short[0]} is shorter than a second: give recordings in which somebody speaks")
    return clips


def calibrate(engine: Engine, clips: Sequence[Waveform], options: LiveOptions, n_lanes: int = 1) -> Load:
    """What updates and finals of these clips take when as many speak as there are lanes. Raises InputError."""
    scheduler = Scheduler(engine, n_lanes=n_lanes)
    measure_costs(engine, scheduler, clips, options)
    if scheduler.load.final.value is None:
        raise InputError("nobody speaks in the recordings: give some in which somebody does with --recording")
    return scheduler.load


def number_for(costs: Load, share: float) -> int:
    """How many streams are nearest to this load; at least one. Raises InputError for more than can be measured."""
    n = max(1, round(share / costs.of(1)))
    if n > MAX_STREAMS:
        raise InputError(
            f"a load of {share:g} is {n} streams, of which at most {MAX_STREAMS} are measured: ask for less"
        )
    return n


def admitted_of(costs: Load, n: int) -> int:
    """How many of n that come one after the other are let in."""
    admitted = 0
    while admitted < n and costs.admits(admitted):
        admitted += 1
    return admitted


def measure(
    engine: Engine,
    costs: Load,
    order: Order,
    clips: Sequence[Waveform],
    options: LiveOptions,
    n: int,
    seconds: float,
    progress: Progress = quiet,
) -> Measured:
    """n streams at once; LEFT_SECONDS after the last word what is not decoded is given up. Raises RunError."""
    turns = Turns()
    scheduler = Scheduler(engine, turns.add, order, costs.n_lanes)
    scheduler.load = costs
    sources = [TalkSource(talk(clips, seconds, seed)) for seed in range(n)]
    seen = [Seen() for _ in sources]
    threads = [
        threading.Thread(target=_listen, args=(engine, scheduler.stream(), source, options, each), daemon=True)
        for source, each in zip(sources, seen, strict=True)
    ]
    cpu_0 = time.process_time()
    started = time.monotonic()
    try:
        for thread in threads:
            thread.start()
        while (wall_s := time.monotonic() - started) < seconds and any(thread.is_alive() for thread in threads):
            progress(f"{n} streams", int(wall_s), int(seconds))
            time.sleep(min(1.0, seconds - wall_s))
        resident = resident_bytes("VmRSS") or 0
        longest_s = 4 * max(len(clip) for clip in clips) / SAMPLE_RATE  # a clip and the pauses around it
        deadline = time.monotonic() + longest_s + LEFT_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
    finally:
        scheduler.close()
        for thread in threads:
            thread.join()  # at the next pass: nobody uses the engine any more
    if error := next((each.error for each in seen if each.error is not None), None):
        raise error if isinstance(error, AuricleError) else RunError(f"a stream failed: {error!r}") from error
    audio_s = sum(source.n_read for source in sources) / SAMPLE_RATE
    return Measured(
        seen, turns, audio_s, time.monotonic() - started, time.process_time() - cpu_0, resident, costs.n_lanes
    )


def _listen(engine: Engine, stream: EngineStream, source: TalkSource, options: LiveOptions, seen: Seen) -> None:
    shown_s: list[float] = []
    try:
        with closing(captions(source, engine, options, stream)) as events:
            for event in events:
                now_s = source.now_s
                if isinstance(event, SpeechStarted):
                    shown_s = []
                elif isinstance(event, Caption):
                    seen.latency_ms.append(1e3 * (now_s - event.end_s))
                    shown_s.append(now_s)
                elif isinstance(event, Final):
                    seen.final_ms.append(1e3 * (now_s - event.end_s))
                    seen.interval_s += [after - before for before, after in pairwise(shown_s)]
                elif isinstance(event, AudioDropped):
                    seen.dropped_s += event.seconds
    except Cancelled:
        seen.given_up = True
    except Exception as error:
        seen.error = error


def stream_measures(group: str, found: Measured) -> list[Measure]:
    """A sample per event, of all streams together; what no stream had is left out."""
    turns = found.turns
    busy_s = sum(map(sum, turns.held.values()))
    final, update = Priority.FINAL, Priority.UPDATE
    samples: list[tuple[str, str, list[float], Better]] = [
        ("final", "ms", [ms for each in found.seen for ms in each.final_ms], "lower"),
        ("final_waited", "ms", [1e3 * s for s in turns.waited[final]], "lower"),
        ("final_held", "ms", [1e3 * s for s in turns.held[final]], "lower"),
        ("interval", "s", [s for each in found.seen for s in each.interval_s], "lower"),
        ("latency", "ms", [ms for each in found.seen for ms in each.latency_ms], "lower"),
        ("update_waited", "ms", [1e3 * s for s in turns.waited[update]], "lower"),
        ("update_held", "ms", [1e3 * s for s in turns.held[update]], "lower"),
        ("rtf", "", [busy_s / found.audio_s], "lower"),
        ("engine", "%", [100 * busy_s / found.wall_s / found.n_lanes], "neither"),
        ("cpu", "%", [100 * found.cpu_s / found.wall_s / usable_cores()], "neither"),
        ("dropped", "s", [sum(each.dropped_s for each in found.seen)], "lower"),
        ("given_up", "", [float(sum(each.given_up for each in found.seen))], "lower"),
    ]
    return [Measure(group, name, unit, tuple(values), better) for name, unit, values, better in samples if values]


def _notes(options: LiveOptions) -> list[str]:
    wait_ms = options.gate.min_silence_ms - options.gate.speech_pad_ms
    return [
        f"end of speech: the segment's last sample; {wait_ms:g} ms after it the gate is sure of the pause",
        f"load: finals, and updates every {LONGEST_HOP_SECONDS:g} s, in shares of the engine, from what they took in"
        f" this run, before and after it; {LIMIT:g} is admitted",
        "first come: the same streams, turns in the order of asking; waited: for a turn; engine: share of the time that"
        " it worked, of all lanes",
        "memory: what resident memory grew by for each stream more than in the first row",
    ]
