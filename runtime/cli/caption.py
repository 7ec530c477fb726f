"""`auricle caption`: audio files -> plain text, subtitles or JSON lines, one file after the other."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...models.errors import AudioError, AuricleError, InputError
from ...models.interruption import signals_wait
from ...models.program import tell
from ..batch import require_batch, stream_in_batches
from ..engine import Engine
from ..events import AnswerEvent, Final
from ..llm.sampling import Generation
from ..output.remarks import clock
from ..output.subtitles import TimedText, format_captions, write_captions
from ..output.targets import partial_of, require_targets
from ..output.terminal import Spinner, waiting
from ..system.machine import require_lanes
from .answers import Collected, collect, report_cut
from .options import ClipOptions, check_prompts, open_engine, tells_support, use_keywords


@dataclass(frozen=True)
class CaptionCommand:
    """What `auricle caption` is told."""

    clips: tuple[Path, ...]
    task: str = "asr"  # a task or a prompt
    options: ClipOptions = field(default_factory=ClipOptions)
    format: str = "txt"  # one of FORMATS
    by_word: bool = False  # vtt, srt and jsonl: the times of single words
    batch: int = 1  # segments of a clip that are decoded together
    lanes: int | None = None  # of the engine, each for a segment or a batch of its own; None: Engine.usual_lanes
    out: Path | None = None  # a directory, for a file per clip; None: standard output

    def check(self) -> None:
        """Before anything large is opened. Raises InputError, BundleError."""
        check_prompts(self.options.model.bundle, self.task)
        require_lanes(self.lanes)
        if self.by_word and self.format == "txt":
            raise InputError("--words are times, and txt has none: give --format vtt, srt or jsonl")

    def lanes_of(self, engine: Engine) -> int:
        """How many are used."""
        return self.lanes or engine.usual_lanes

    def generation(self, engine: Engine, prompt: str) -> Generation:
        """How each answer is decoded. Cues are cut at the times of words wherever there are any. Raises InputError."""
        times = engine.times_words and engine.prompt.transcribes(prompt) and self.format in ("srt", "vtt")
        generation = replace(self.options.decoding.generation(engine.defaults), words=times or self.by_word)
        return tells_support(generation, prompt, engine) if self.format == "jsonl" else generation


def caption(command: CaptionCommand) -> int:
    """Captions of each clip; one that cannot be read or written does not stop the others, but the status tells.

    A signal ends the clip that is decoded, never the writing of what was.
    """
    options = command.options
    command.check()
    targets = _caption_targets(command)
    status = 0
    with open_engine(options.model) as engine, signals_wait():
        use_keywords(options.keywords, engine)
        prompt = engine.prompt.prompt_for(command.task)
        generation = command.generation(engine, prompt)
        require_batch(command.batch, generation)
        for clip, target in zip(command.clips, targets, strict=True):
            with waiting(clip.name) as spinner:
                events = stream_in_batches(
                    engine, clip, prompt, command.batch, generation, options.selection, command.lanes_of(engine)
                )
                collected = collect(events, _progress(spinner, clip))
            rows = timed_rows(collected, prompt, clip)
            if not _put_captions(rows, target, command, clip, whole=collected.interruption is None):
                status = 1
            if any([report_cut(final, options.decoding.schema) for final in collected.finals]):
                status = 1
            if isinstance(collected.interruption, AudioError):
                tell(f"auricle: {collected.interruption}")
                status = collected.interruption.exit_status
            elif collected.interruption is not None:
                raise collected.interruption
    return status


def timed_rows(collected: Collected, prompt: str, clip: Path) -> list[TimedText]:
    """The captions of a clip, those without text left out."""
    return [TimedText(*row[:3], prompt, str(clip), *row[3:]) for row in collected.rows() if row[2]]


def _progress(spinner: Spinner, clip: Path) -> Callable[[AnswerEvent], None]:
    def show(event: AnswerEvent) -> None:
        if isinstance(event, Final):
            spinner.update(f"{clip.name}: {clock(event.end_s)} done")

    return show


def _put_captions(
    rows: list[TimedText], target: Path | None, command: CaptionCommand, audio: Path, whole: bool
) -> bool:
    """To a file or to standard output; False: to standard output because the file could not be written."""
    kept = target is not None and _keep(rows, target, command, audio, whole)
    if not kept:
        sys.stdout.write(format_captions(rows, command.format, command.by_word))
        sys.stdout.flush()
    return kept or target is None


def _keep(rows: list[TimedText], target: Path, command: CaptionCommand, audio: Path, whole: bool) -> bool:
    """Whether it could be written; half a clip's captions never take the name of a whole one's."""
    if not whole and not rows:
        return True
    try:
        named = target if whole else partial_of(target)
        path = write_captions(named, rows, command.format, command.by_word, audio)
    except AuricleError as error:
        tell(f"auricle: {error}; what was decoded of {audio} is on standard output")
        return False
    if not whole:
        tell(f"auricle: what was decoded of {audio} so far is in {path}")
        return True
    with contextlib.suppress(OSError):  # whoever reads the names is gone; the files are still wanted
        print(path, flush=True)
    return True


def _caption_targets(command: CaptionCommand) -> list[Path | None]:
    """Where each clip's captions go. Raises InputError where they cannot, or two would go to one place."""
    n = len(command.clips)
    if command.out is None and n > 1 and command.format in ("srt", "vtt"):
        raise InputError(f"{n} clips make {n} {command.format} files: give --out")
    if command.out is None:
        return [None] * n
    targets = [command.out / f"{clip.stem}.{command.format}" for clip in command.clips]
    require_targets(targets, command.clips)
    return list(targets)
