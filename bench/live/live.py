"""`auricle-bench live`: a recording at its own pace, captioned -> how late everything comes.

Every time is read when its result, text, is in host memory: no kernel is still under way, on whatever device. What is
timed is the whole product, from samples to words, on a real conversation's clock. (The one public latency harness for
SALMONN does not wait for the device and times one token, so its numbers are those of launching kernels.)

    audio   ...speech.|  pause  |        the last sample of the segment is spoken at |
    gate              |---------|x       it is sure that speech has ended at x
    model                       |encoders, Q-Former, prefill|decode|
                      |----------- first token -------------|
                      |----------------- final -------------------|
"""

from __future__ import annotations

import argparse
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Literal

from ...models.audio import SAMPLE_RATE
from ...models.errors import InputError
from ...runtime.audio.decode import open_audio
from ...runtime.cli.commands import engine_options
from ...runtime.engine import Engine, EngineOptions, load
from ...runtime.events import Caption, Final, SessionEnded, SpeechStarted, Timings
from ...runtime.live.captions import Live, LiveOptions
from ...runtime.sources.playback import FilePlayback, Pace
from ...runtime.sources.source import Chunk, SourceItem
from ...runtime.system.ort import choose_provider
from ..datasets import Progress, quiet
from ..machine.gpu import gpu_memory_bytes, gpu_name, uses_gpu
from ..machine.timing import resident_bytes
from ..result import Measure, Record, make_record, subject
from ..word_errors import word_errors
from .latency import (
    Moment,
    Screen,
    ShownSegment,
    SpokenWord,
    caption_errors,
    laal,
    matched,
    normalized_erasure,
    read_words,
)
from .table import lines as lines

Better = Literal["lower", "higher", "neither"]
NOTHING = Timings({}, 0.0, 0.0, 0.0, 0, 0)  # that a final took behind its segment's end, where it was ready
_AT_THE_END_S = 0.3  # sooner than a pause can be told from the end


@dataclass
class Seen:
    """One session as somebody in front of the screen saw it."""

    captions: list[tuple[Caption, Moment]] = field(default_factory=list[tuple[Caption, Moment]])
    finals: list[tuple[Final, Moment]] = field(default_factory=list[tuple[Final, Moment]])
    available_s: list[float] = field(default_factory=list[float])
    """By the wall clock, when the last sample of each segment was there."""
    ready: list[bool] = field(default_factory=list[bool])
    """Of each final: it had been computed when its segment ended."""
    segments: list[ShownSegment] = field(default_factory=list[ShownSegment])
    audio_s: float = 0.0
    cpu_s: float = 0.0
    speculated_s: float = 0.0
    """Of work before a pause was over,"""
    wasted_s: float = 0.0
    """and of it for nothing."""

    @property
    def busy_s(self) -> float:
        """Wall time of all updates and finals, those included that nobody saw."""
        updates_ms = sum(caption.work.latency_ms for caption, _ in self.captions)
        finals = zip(self.finals, self.ready, strict=True)
        finals_ms = sum(final.timings.total_ms for (final, _), ready in finals if not ready)
        return (updates_ms + finals_ms) / 1e3 + self.speculated_s

    @property
    def starved(self) -> bool:
        """More than half of the work's time was waited for a core or for the disk."""
        return self.busy_s > 2 * self.cpu_s


class TimedSource:
    """A playback that remembers when its samples were there."""

    def __init__(self, playback: FilePlayback) -> None:
        self.realtime = playback.realtime
        self._playback = playback
        self._started: float | None = None
        self._ends: list[float] = []
        self._came: list[float] = []

    def read(self, timeout_s: float) -> list[SourceItem] | None:
        """See Source; the first call starts the clock."""
        if self._started is None:
            self._started = time.perf_counter()
        items = self._playback.read(timeout_s)
        for item in items or ():
            if isinstance(item, Chunk):
                self._ends.append(item.start_s + len(item.waveform) / SAMPLE_RATE)
                self._came.append(self.now_s)
        return items

    def close(self) -> None:
        """See Source."""
        self._playback.close()

    @property
    def now_s(self) -> float:
        """Wall time since the first sample was spoken."""
        return 0.0 if self._started is None else time.perf_counter() - self._started

    def available_s(self, position_s: float) -> float:
        """When this moment of the recording was spoken; in a hurry, when its chunk was read."""
        if self.realtime:
            return position_s
        at = bisect_left(self._ends, position_s - 0.5 / SAMPLE_RATE)
        return self._came[min(at, len(self._came) - 1)] if self._came else 0.0


def run(arguments: argparse.Namespace, progress: Progress = quiet) -> Record:
    """The command."""
    options = LiveOptions(
        prompt=arguments.task,
        hop_ms=arguments.hop_ms,
        context=arguments.context,
        settle_s=arguments.settle,
        draft=not arguments.no_draft,
        speculate=not arguments.no_speculation,
    )
    where = engine_options(arguments)
    return measure(arguments.bundle, arguments.source, arguments.words, options, arguments.pace, where, progress)


def measure(
    bundle: Path | None,
    source: Path,
    words: Path | None = None,
    options: LiveOptions | None = None,
    pace: Pace = "realtime",
    where: EngineOptions | None = None,
    progress: Progress = quiet,
) -> Record:
    """One session. Raises InputError for a recording without speech, AudioError, RunError."""
    options = options or LiveOptions()
    where = where or EngineOptions()
    seconds = sum(len(chunk) for chunk in open_audio(source)) / SAMPLE_RATE
    spoken = read_words(words, seconds) if words else []
    gpu = gpu_name() if uses_gpu(where) else None
    gpu_before = gpu_memory_bytes() if gpu else None
    with load(bundle, where) as engine:
        seen = watch(engine, source, options, pace, lambda heard_s: progress("playing", int(heard_s), int(seconds)))
        if not seen.finals:
            raise InputError(f"nobody speaks in {source}: give a recording in which somebody does")
        gpu_after = gpu_memory_bytes() if gpu else None
        manifest = engine.bundle.manifest
    measures = [
        *update_measures(seen, options, pace),
        *end_measures(seen),
        *word_measures(seen, spoken, pace),
        *session_measures(seen, gpu_before, gpu_after),
    ]
    settings = {
        "source": source.name,
        "seconds": f"{seconds:.1f}",
        "pace": pace,
        "task": options.prompt,
        "hop_ms": f"{options.hop_ms:g}",
        "context": options.context or "as trained",
        "settle_s": "as fits" if options.settle_s is None else f"{options.settle_s:g}",
        "draft": "yes" if options.draft else "no",
        "speculation": "yes" if options.speculate else "no",
        "provider": choose_provider(where.ort.provider),
        "threads": str(where.ort.threads or "default"),
    }
    return make_record("live", [subject(manifest)], settings, measures, _notes(seen, spoken, options, pace, gpu), gpu)


def watch(
    engine: Engine, source: Path, options: LiveOptions, pace: Pace, tell: Callable[[float], None] = lambda _: None
) -> Seen:
    """Play the recording to live captions and note what comes when; `tell` hears up to which second."""
    seen = Seen()
    screen = Screen()
    timed = TimedSource(FilePlayback(source, pace))
    cpu_0 = time.process_time()
    session = Live(engine, timed, options)
    with closing(iter(session)) as events:
        for event in events:
            wall_s = timed.now_s
            if isinstance(event, SpeechStarted):
                screen = Screen()
            elif isinstance(event, Caption):
                moment = Moment(event.end_s, wall_s)
                seen.captions.append((event, moment))
                screen.show(event.stable.split(), event.unstable.split(), moment)
            elif isinstance(event, Final):
                moment = Moment(session.received_s, wall_s)
                seen.finals.append((event, moment))
                seen.available_s.append(timed.available_s(event.end_s))
                seen.ready.append(session.was_ready)
                seen.segments.append(screen.finish(event.start_s, event.end_s, event.text.split(), moment))
            elif isinstance(event, SessionEnded):
                seen.audio_s = event.captured_s
                seen.speculated_s = event.speculated_s
                seen.wasted_s = event.wasted_s
            tell(session.received_s)
    seen.cpu_s = time.process_time() - cpu_0
    return seen


def update_measures(seen: Seen, options: LiveOptions, pace: Pace) -> list[Measure]:
    """What one update takes, a sample per update; nothing where every segment ended before its first."""
    works = [caption.work for caption, _ in seen.captions]
    if not works:
        return []

    def one(name: str, unit: str, better: Better, *samples: float) -> Measure:
        return Measure("update", name, unit, samples, better)

    n_drafted = sum(work.n_drafted for work in works)
    n_accepted = sum(work.n_accepted for work in works)
    measures = [
        one("latency", "ms", "lower", *(work.latency_ms for work in works)),
        one("encoders", "ms", "lower", *(work.encoders_ms for work in works)),
        one("llm", "ms", "lower", *(work.latency_ms - work.encoders_ms for work in works)),
        one("late", "%", "lower", 100 * fmean(float(work.latency_ms > options.hop_ms) for work in works)),
        one("passes", "", "lower", *(float(work.n_steps) for work in works)),
        one("tokens", "", "neither", *(float(work.n_new_tokens) for work in works)),
        one("audio_tokens", "", "neither", *(float(work.n_audio_tokens) for work in works)),
    ]
    if any(work.n_kept for work in works):
        measures.append(one("kept", "", "higher", *(float(work.n_kept) for work in works)))
    if n_drafted:
        measures.append(one("acceptance", "%", "higher", 100 * n_accepted / n_drafted))
    if pace == "realtime":
        behind = (now.wall_s - caption.work.latency_ms / 1e3 - now.heard_s for caption, now in seen.captions)
        measures.append(one("backlog", "s", "lower", *behind))
    return measures


def end_measures(seen: Seen) -> list[Measure]:
    """From the last sample of a segment to its final words, a sample per segment; Final comes as a whole, and its first
    token is reckoned back from that by the time its decoding took behind the segment's end."""
    ends = zip(seen.finals, seen.available_s, strict=True)
    final = [1e3 * (now.wall_s - spoken_s) for (_, now), spoken_s in ends]
    timings = [NOTHING if ready else event.timings for (event, _), ready in zip(seen.finals, seen.ready, strict=True)]
    samples = {
        "waited": [whole - each.total_ms for whole, each in zip(final, timings, strict=True)],
        "ttft": [each.ttft_ms for each in timings],
        "first_token": [whole - each.decode_ms for whole, each in zip(final, timings, strict=True)],
        "final": final,
    }
    measures = [Measure("speech_end", name, "ms", tuple(values), "lower") for name, values in samples.items()]
    return [*measures, Measure("speech_end", "ready", "%", (100 * fmean(seen.ready),), "higher")]


def word_measures(seen: Seen, spoken: Sequence[SpokenWord], pace: Pace) -> list[Measure]:
    """From a word's end in the recording until it is shown, a sample per word that was heard right; LAAL, a mean over
    segments. `heard_`, `_unaware`: by the audio that had been heard, as if computing took no time. Nothing without word
    times."""
    shown = [word for segment in seen.segments for word in segment.words]
    if not spoken:
        return []

    def one(name: str, unit: str, better: Better, *samples: float) -> Measure:
        return Measure("words", name, unit, samples, better)

    wrong = word_errors(" ".join(each.word for each in spoken), " ".join(word.word for word in shown))
    word_error = one("wer", "%", "lower", 100 * wrong.rate)
    if not (pairs := matched(spoken, shown)):
        return [word_error]
    measures = [
        word_error,
        one("caption_wer", "%", "lower", 100 * caption_errors([each for each, _ in seen.captions], spoken).rate),
        one("heard_unstable", "s", "lower", *(seen_as.unstable.heard_s - word.end_s for word, seen_as in pairs)),
        one("heard_stable", "s", "lower", *(seen_as.stable.heard_s - word.end_s for word, seen_as in pairs)),
        one("laal_unaware", "s", "lower", _laal(seen.segments, spoken, by_wall=False)),
    ]
    if pace == "realtime":
        measures += [
            one("lag_unstable", "s", "lower", *(seen_as.unstable.wall_s - word.end_s for word, seen_as in pairs)),
            one("lag_stable", "s", "lower", *(seen_as.stable.wall_s - word.end_s for word, seen_as in pairs)),
            one("laal", "s", "lower", _laal(seen.segments, spoken, by_wall=True)),
        ]
    return measures


def session_measures(seen: Seen, gpu_before: int | None, gpu_after: int | None) -> list[Measure]:
    """What the whole session took; busy: updates and finals, as Lagging counts."""
    measures = [
        Measure("session", "rtf", "", (seen.busy_s / seen.audio_s,), "lower"),
        Measure("session", "cpu", "s per s", (seen.cpu_s / seen.audio_s,), "lower"),
        Measure("session", "wasted", "%", (100 * seen.wasted_s / seen.busy_s,), "lower"),
        Measure("session", "erasure", "", (normalized_erasure(seen.segments),), "lower"),
    ]
    if peak := resident_bytes():
        measures.append(Measure("session", "memory", "GB", (peak / 1e9,), "lower"))
    if gpu_before is not None and gpu_after is not None:
        measures.append(Measure("session", "gpu_memory", "GB", (max(0, gpu_after - gpu_before) / 1e9,), "lower"))
    return measures


def _laal(segments: Sequence[ShownSegment], spoken: Sequence[SpokenWord], by_wall: bool) -> float:
    """The mean over the segments with words; a word is written when it is stable. Of a segment's audio no more can be
    heard than it has."""
    found: list[float] = []
    for segment in segments:
        if not segment.words:
            continue
        n_reference = sum(segment.start_s < word.end_s <= segment.end_s for word in spoken)
        shown = [word.stable.wall_s if by_wall else min(word.stable.heard_s, segment.end_s) for word in segment.words]
        delays = [at - segment.start_s for at in shown]
        found.append(laal(delays, segment.end_s - segment.start_s, n_reference))
    return fmean(found)


def _notes(seen: Seen, spoken: Sequence[SpokenWord], options: LiveOptions, pace: Pace, gpu: str | None) -> list[str]:
    notes = [
        "end of speech: the segment's last sample; waited: until the gate was sure of the pause and the model was free",
        "an update is from its newest sample to its text; backlog: spoken and not read when an update starts",
        "passes: through the language model after the prefill; without the draft there are as many as tokens",
    ]
    if options.speculate and pace == "realtime":
        notes.append("an update that falls into a pause, and its final, show what was computed when the pause began")
    if pace == "fast":
        notes.append(
            "played as fast as it is read: times behind the end of speech hold no pause, backlog and lag are absent"
        )
    if not spoken:
        notes.append("no word times were given (--words): the lag of words and LAAL are absent")
    elif n_shown := sum(len(segment.words) for segment in seen.segments):
        n_matched = len(matched(spoken, [word for segment in seen.segments for word in segment.words]))
        notes.append(f"words' lag: of {n_matched} words heard right, of {len(spoken)} spoken and {n_shown} shown")
    if seen.finals[-1][0].end_s >= seen.audio_s - _AT_THE_END_S:
        notes.append("the last segment ends with the recording: there was no pause to wait for")
    if seen.starved and gpu is None:
        notes.append(
            f"{seen.busy_s:.1f} s of work got {seen.cpu_s:.1f} s of processor time: other programs or the disk"
            " made it wait, measure again on an idle machine"
        )
    if not seen.captions:
        notes.append(f"no segment was as long as a hop of {options.hop_ms:g} ms: there are no updates")
    return notes
