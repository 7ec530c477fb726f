"""`auricle caption`: audio files -> plain text, subtitles or JSON lines, one file after the other."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ...models.errors import AudioError, InputError
from ..events import AnswerEvent, Final
from ..output.remarks import clock
from ..output.subtitles import TimedText, format_captions, write_captions
from ..output.terminal import waiting
from .answers import collect, report_cut
from .options import ClipOptions, check_prompts, open_engine, use_keywords

if TYPE_CHECKING:
    from rich.status import Status


@dataclass(frozen=True)
class CaptionCommand:
    """What `auricle caption` is told."""

    clips: tuple[Path, ...]
    task: str = "asr"  # a task or a prompt
    options: ClipOptions = field(default_factory=ClipOptions)
    format: str = "txt"  # one of FORMATS
    out: Path | None = None  # a directory, for a file per clip; None: standard output


def caption(command: CaptionCommand) -> int:
    """Captions of each clip; one that cannot be read does not stop the others, but counts in the exit status."""
    options = command.options
    check_prompts(options.model.bundle, command.task)
    targets = _caption_targets(command)
    status = 0
    with open_engine(options.model) as engine:
        use_keywords(options.keywords, engine)
        prompt = engine.prompt.prompt_for(command.task)
        generation = options.decoding.generation(engine.defaults)
        for clip, target in zip(command.clips, targets, strict=True):
            with waiting(clip.name) as spinner:
                events = engine.stream(clip, prompt, generation, options.selection)
                collected = collect(events, _progress(spinner, clip))
            if any([report_cut(final, options.decoding.schema) for final in collected.finals]):
                status = 1
            rows = [TimedText(*row[:3], prompt, str(clip), row[3]) for row in collected.rows() if row[2]]
            _put_captions(rows, target, command.format, clip, whole=collected.interruption is None)
            if isinstance(collected.interruption, AudioError):
                print(f"auricle: {collected.interruption}", file=sys.stderr)
                status = collected.interruption.exit_status
            elif collected.interruption is not None:
                raise collected.interruption
    return status


def _progress(spinner: Status, clip: Path) -> Callable[[AnswerEvent], None]:
    def show(event: AnswerEvent) -> None:
        if isinstance(event, Final):
            spinner.update(f"{clip.name}: {clock(event.end_s)} done")

    return show


def _put_captions(rows: list[TimedText], target: Path | None, format: str, audio: Path, whole: bool) -> None:
    """To standard output or to a file; half a clip's captions never take the name of a whole one's."""
    if target is None:
        sys.stdout.write(format_captions(rows, format))
    elif whole:
        print(write_captions(target, rows, format, audio=audio))
    elif rows:
        part = write_captions(target.with_stem(target.stem + ".partial"), rows, format, audio=audio)
        print(f"auricle: what was decoded of {audio} so far is in {part}", file=sys.stderr)


def _caption_targets(command: CaptionCommand) -> list[Path | None]:
    """Where each clip's captions go. Raises InputError where two would go to one place."""
    n = len(command.clips)
    if command.out is None and n > 1 and command.format in ("srt", "vtt"):
        raise InputError(f"{n} clips make {n} {command.format} files: give --out")
    if command.out is None:
        return [None] * n
    targets = [command.out / f"{clip.stem}.{command.format}" for clip in command.clips]
    doubled = sorted({t.name for t in targets if targets.count(t) > 1})
    if doubled:
        raise InputError(f"two clips would both be written to {doubled[0]}: caption them into different directories")
    try:
        command.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{command.out} cannot be made ({error.strerror}): choose another --out") from None
    return list(targets)
