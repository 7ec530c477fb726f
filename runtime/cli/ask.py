"""What each `auricle` command does; runtime/__main__.py says which options it has."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ...models.errors import InputError
from ...models.prompt import nonempty
from ..bundle import open_bundle
from ..events import AnswerEvent
from .answers import name_what_was_cut, print_json, print_text, timing_line
from .options import check_prompts, generation_of, open_engine, use_keywords

if TYPE_CHECKING:
    pass


def ask(arguments: Namespace) -> int:
    """One prompt, one clip or those that it names; the words appear as they are decoded."""
    *clips, question = arguments.words or [""]
    if arguments.text_only and clips:
        raise InputError(f"--text-only asks without a clip: leave {clips[0]} out")
    if not arguments.text_only and not clips:
        raise InputError(f"there is no clip to ask {question!r} about: write auricle ask AUDIO PROMPT_OR_TASK")
    if clips and os.path.isfile(question):
        raise InputError(f"the last word, {question}, is a file: write the prompt or the task behind the clips")
    if not arguments.text_only:
        check_prompts(arguments, question)
    elif question.partition(":")[0] in open_bundle(arguments.bundle).manifest.prompt.tasks:
        raise InputError(f"--text-only hears nothing, and {question} is a task about sound: ask in words")
    with open_engine(arguments) as engine:
        use_keywords(arguments, engine)
        generation = generation_of(arguments, engine)
        if arguments.text_only:
            prompt = nonempty(question)
            events: Iterable[AnswerEvent] = engine.stream_text(prompt, generation)
        else:
            prompt = engine.prompt.prompt_for(question)
            events = engine.stream([Path(clip) for clip in clips], prompt, generation, arguments.mix)
        said = print_json(events, prompt, engine.keywords) if arguments.json else print_text(events)
    if arguments.timings:
        for final in said.finals:
            print(timing_line(final), file=sys.stderr)
    half = [final for final in said.finals if name_what_was_cut(final, arguments)]
    if said.stopped is not None:
        raise said.stopped
    return 1 if half else 0
