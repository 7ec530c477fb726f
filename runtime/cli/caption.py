"""`caption`: audio files -> plain text, subtitles or JSON lines, one file after the other."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ...models.errors import AudioError, InputError
from ..events import AnswerEvent, Final
from ..output.remarks import clock
from ..output.subtitles import Caption, format_captions, write_captions
from ..output.terminal import waiting
from .answers import collect, name_what_was_cut
from .options import check_prompts, generation_of, open_engine, use_keywords

if TYPE_CHECKING:
    from rich.status import Status


def caption(arguments: Namespace) -> int:
    """Captions of each clip; one that cannot be heard does not stop the others, but counts in the exit status."""
    check_prompts(arguments, arguments.task)
    targets = _caption_targets(arguments)
    status = 0
    with open_engine(arguments) as engine:
        use_keywords(arguments, engine)
        prompt = engine.prompt.prompt_for(arguments.task)
        generation = generation_of(arguments, engine)
        for audio, target in zip(arguments.audio, targets, strict=True):
            with waiting(audio.name) as spinner:
                said = collect(engine.stream(audio, prompt, generation, arguments.mix), _seconds_heard(spinner, audio))
            if any([name_what_was_cut(final, arguments) for final in said.finals]):
                status = 1
            rows = [Caption(*row[:3], prompt, str(audio), row[3]) for row in said.rows() if row[2]]
            _put_captions(rows, target, arguments.format, audio, whole=said.stopped is None)
            if isinstance(said.stopped, AudioError):
                print(f"auricle: {said.stopped}", file=sys.stderr)
                status = said.stopped.exit_status
            elif said.stopped is not None:
                raise said.stopped
    return status


def _seconds_heard(spinner: Status, audio: Path) -> Callable[[AnswerEvent], None]:
    def show(event: AnswerEvent) -> None:
        if isinstance(event, Final):
            spinner.update(f"{audio.name}: {clock(event.end_s)} heard")

    return show


def _put_captions(rows: list[Caption], target: Path | None, format: str, audio: Path, whole: bool) -> None:
    """To standard output or to a file; half a clip's captions never take the name of a whole one's."""
    if target is None:
        sys.stdout.write(format_captions(rows, format))
    elif whole:
        print(write_captions(target, rows, format, audio=audio))
    elif rows:
        part = write_captions(target.with_stem(target.stem + ".partial"), rows, format, audio=audio)
        print(f"auricle: what was said of {audio} so far is in {part}", file=sys.stderr)


def _caption_targets(arguments: Namespace) -> list[Path | None]:
    if arguments.out is None and len(arguments.audio) > 1 and arguments.format in ("srt", "vtt"):
        raise InputError(
            f"{len(arguments.audio)} clips make {len(arguments.audio)} {arguments.format} files: give --out"
        )
    if arguments.out is None:
        return [None] * len(arguments.audio)
    targets = [arguments.out / f"{audio.stem}.{arguments.format}" for audio in arguments.audio]
    doubled = sorted({t.name for t in targets if targets.count(t) > 1})
    if doubled:
        raise InputError(f"two clips would both be written to {doubled[0]}: caption them into different directories")
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{arguments.out} cannot be made ({error.strerror}): choose another --out") from None
    return list(targets)
