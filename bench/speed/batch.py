"""`auricle-bench batch`: recordings by segments, several decoded at a time -> what that gains, and what it changes.

Every round captions all segments once in each way, one after the other: so many in the same passes, or side by side on
so many lanes of the engine. Ratios are between neighbours. Batches round otherwise than segments alone, lanes do not:
how many answers have other words is counted.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...models.audio import SAMPLE_RATE
from ...models.errors import InputError
from ...runtime.audio.split import Segment
from ...runtime.batch import MAX_BATCH, answer_segments, require_batch
from ...runtime.cli.commands import engine_options
from ...runtime.engine import Engine, load
from ...runtime.events import Final
from ...runtime.llm.sampling import Generation
from ...runtime.system.ort import choose_provider
from ..datasets import Progress, quiet
from ..result import Measure, Record, make_record, subject

STAGES = ("encoders", "prefill", "decode")


@dataclass(frozen=True)
class Way:
    """How segments are decoded."""

    batch: int = 1
    lanes: int = 1

    @property
    def group(self) -> str:
        """What its row is called."""
        if self.lanes > 1:
            return f"{self.lanes} lanes"
        return "one at a time" if self.batch == 1 else f"{self.batch} together"


@dataclass(frozen=True)
class Pass:
    """All segments captioned once."""

    wall_s: float
    stages_s: tuple[float, float, float]
    """By STAGES."""
    texts: tuple[str, ...]


def run(arguments: argparse.Namespace, progress: Progress = quiet) -> Record:
    """The command: bundle, recordings, sizes, new_tokens, rounds, device options. Raises InputError, RunError."""
    sizes = sorted({1, *arguments.sizes})
    if sizes[-1] > MAX_BATCH:
        raise InputError(f"at most {MAX_BATCH} segments are decoded together: ask for less than {sizes[-1]}")
    with load(arguments.bundle, engine_options(arguments)) as engine:
        segments = [each for path in arguments.recording for each in engine.segments(path) if not each.silent]
        if len(segments) < 2:
            raise InputError(f"there is {len(segments)} segment with sound: give longer recordings, or several")
        prompt = engine.prompt.prompt_for(arguments.task)
        generation = engine.greedy_defaults
        if arguments.new_tokens is not None:
            generation = replace(generation, max_new_tokens=arguments.new_tokens, ignore_eos=True, guard=False)
        lanes = arguments.lanes or [engine.usual_lanes]
        ways = [Way(), *(Way(lanes=n) for n in sorted({*lanes} - {1})), *(Way(batch=size) for size in sizes[1:])]
        measures = measure(engine, segments, prompt, generation, ways, arguments.rounds, progress)
        manifest = engine.bundle.manifest
    seconds = sum(len(segment.waveform) for segment in segments) / SAMPLE_RATE
    settings = {
        "recordings": ", ".join(path.name for path in arguments.recording),
        "segments": str(len(segments)),
        "seconds": f"{seconds:.1f}",
        "task": arguments.task,
        "new tokens": "as the model ends" if arguments.new_tokens is None else str(arguments.new_tokens),
        "rounds": str(arguments.rounds),
        "provider": choose_provider(arguments.provider),
        "threads": str(arguments.threads or "default"),
    }
    notes = [
        "other words: segments whose text is not that of one at a time, in the first round",
        "together: in the same passes; lanes: side by side, where stages of several overlap and each takes longer",
    ]
    return make_record("batch", [subject(manifest)], settings, measures, notes)


def measure(
    engine: Engine,
    segments: Sequence[Segment],
    prompt: str,
    generation: Generation,
    ways: Sequence[Way],
    rounds: int,
    progress: Progress = quiet,
) -> list[Measure]:
    """A group for each way, one segment at a time the first of them. Raises InputError, RunError."""
    require_batch(max(way.batch for way in ways), generation)
    found: dict[Way, list[Pass]] = {way: [] for way in ways}
    kv: dict[Way, int] = {}
    for turn in range(-1, rounds):
        for n, way in enumerate(ways):
            progress(way.group, (turn + 1) * len(ways) + n, (rounds + 1) * len(ways))
            at_once = way.batch * way.lanes
            once = _caption(engine, segments[:at_once] if turn < 0 else segments, prompt, generation, way)
            if turn < 0:  # one batch warms up, and the cache has grown for no larger one yet
                kv[way] = sum(
                    engine.spec.llm.kv_bytes(lane.llm.context.n_ctx, lane.llm.options.kv_type)
                    for lane in engine.lanes(way.lanes)
                )
            else:
                found[way].append(once)
    seconds = sum(len(segment.waveform) for segment in segments) / SAMPLE_RATE
    measures: list[Measure] = []
    for way in ways:
        cache = Measure(way.group, "kv", "MB", (kv[way] / 1e6,), "lower")
        measures += [*_measures(way.group, found[way], found[ways[0]], seconds), cache]
    return measures


def lines(record: Record) -> list[str]:
    """A row for each way, medians."""
    bundle, s = record.subjects[0], record.settings
    titles = ("x real time", "x faster", *(f"{stage}, s" for stage in STAGES), "other words", "KV, MB")
    names = ("speed", "gain", *STAGES, "changed", "kv")
    head = f"batch: {bundle.name}, {bundle.encoders}/{bundle.llm}, {s['segments']} segments, {s['seconds']} s of sound"
    rows = [head, "", f"{'':<14}" + "".join(f"{title:>13}" for title in titles)]
    for group in record.groups:
        cells = (f"{measure.value:.3g}" if (measure := record.find(group, name)) else "" for name in names)
        rows.append(f"{group:<14}" + "".join(f"{cell:>13}" for cell in cells))
    return [*rows, "", *(f"- {note}" for note in record.notes)]


def _caption(engine: Engine, segments: Sequence[Segment], prompt: str, generation: Generation, way: Way) -> Pass:
    start = time.perf_counter()
    events = answer_segments(engine, segments, prompt, generation, way.batch, way.lanes)
    finals = [event for event in events if isinstance(event, Final)]
    wall_s = time.perf_counter() - start
    took = [final.timings for final in finals]
    ms = (
        sum(each.encoders_ms for each in took),
        sum(each.prefill_ms for each in took),
        sum(each.decode_ms for each in took),
    )
    return Pass(wall_s, (ms[0] / 1e3, ms[1] / 1e3, ms[2] / 1e3), tuple(final.text for final in finals))


def _measures(group: str, passes: Sequence[Pass], alone: Sequence[Pass], seconds: float) -> list[Measure]:
    gains = tuple(one.wall_s / each.wall_s for one, each in zip(alone, passes, strict=True))
    changed = sum(a != b for a, b in zip(alone[0].texts, passes[0].texts, strict=True))
    return [
        Measure(group, "wall", "s", tuple(each.wall_s for each in passes), "lower"),
        Measure(group, "speed", "x real time", tuple(seconds / each.wall_s for each in passes), "higher"),
        Measure(group, "gain", "", gains, "higher"),
        *(
            Measure(group, stage, "s", tuple(each.stages_s[n] for each in passes), "lower")
            for n, stage in enumerate(STAGES)
        ),
        Measure(group, "changed", "", (float(changed),), "lower"),
    ]
