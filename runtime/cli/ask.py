"""`auricle ask`: clips and one question -> the answer, as text while it is decoded or as one JSON object."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...models.errors import InputError
from ...models.interruption import signals_wait
from ...models.prompt import nonempty
from ..bundle import open_bundle
from ..events import AnswerEvent
from .answers import print_json, print_text, report_cut, timing_line
from .options import ClipOptions, check_prompts, is_task, open_engine, tells_support, use_keywords
from .standard_input import read_standard_input


@dataclass(frozen=True)
class AskCommand:
    """What `auricle ask` is told."""

    clips: tuple[str, ...]  # files; "-": one from standard input
    question: str  # a task or a prompt
    options: ClipOptions = field(default_factory=ClipOptions)
    text_only: bool = False  # no clip: the language model without its LoRA
    as_json: bool = False
    by_word: bool = False  # also when each word was said
    timings: bool = False  # a line about each segment on standard error


def ask(command: AskCommand) -> int:
    """One question about one clip or those that it names; status 1 when a JSON answer was cut."""
    _check(command)
    options = command.options
    clips = [read_standard_input(options.selection) if clip == "-" else Path(clip) for clip in command.clips]
    with open_engine(options.model) as engine, signals_wait():
        use_keywords(options.keywords, engine)
        generation = replace(options.decoding.generation(engine.defaults), words=command.by_word)
        if command.text_only:
            prompt = nonempty(command.question)
            events: Iterable[AnswerEvent] = engine.stream_text(prompt, generation)
        else:
            prompt = engine.prompt.prompt_for(command.question)
            if command.as_json:
                generation = tells_support(generation, prompt, engine)
            events = engine.stream([*clips], prompt, generation, options.selection)
        held = options.decoding.min_support is not None
        collected = print_json(events, prompt, engine.keywords) if command.as_json else print_text(events, held)
    if command.timings:
        for final in collected.finals:
            print(timing_line(final), file=sys.stderr)
    cut = [final for final in collected.finals if report_cut(final, options.decoding.schema)]
    if collected.interruption is not None:
        raise collected.interruption
    return 1 if cut else 0


def _check(command: AskCommand) -> None:
    """Before anything large is opened. Raises InputError, BundleError."""
    clips = command.clips
    question = command.question
    bundle = command.options.model.bundle
    if command.text_only:
        if command.options.decoding.min_support is not None:
            raise InputError("--min-support is about what was said, and --text-only hears none: give one of them")
        if command.by_word:
            raise InputError("--words is when words were said, and --text-only hears none: give one of them")
        if clips:
            raise InputError(f"--text-only asks without a clip: leave {clips[0]} out")
        if is_task(bundle, question):
            raise InputError(f"--text-only hears nothing, and {question} is a task about sound: ask in words")
        manifest = open_bundle(bundle).manifest
        if not manifest.llm.chats:
            raise InputError(
                f"{manifest.name} cannot chat, it only knows about sound: give --bundle with a model that can"
            )
        return
    is_file = os.path.isfile(question) and not is_task(bundle, question)
    if not clips and (is_file or question == "-"):
        example = f"auricle ask {shlex.quote(question)}"
        raise InputError(f'a prompt is missing: write {example} asr, or {example} "Please describe the audio."')
    if not clips:
        raise InputError(f"there is no clip to ask {question!r} about: write auricle ask AUDIO PROMPT_OR_TASK")
    if is_file:
        raise InputError(f"the last word, {question}, is a file: write the prompt or the task behind the clips")
    if clips.count("-") > 1:
        raise InputError("standard input is one clip: write - once")
    check_prompts(bundle, question)
