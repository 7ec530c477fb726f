"""`auricle chat`: one clip and questions, a line each from a terminal or a pipe -> their answers, a line each."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from ...models.dataclass_json import encode
from ...models.errors import InputError
from ..chat import Chat
from ..events import Final, Piece
from ..output.cues import harmless
from ..output.remarks import was_cut
from .answers import report_cut
from .options import ClipOptions, is_task, open_engine, use_keywords, with_keywords

HINT = "ask about the clip; an empty line or Ctrl-D ends"


@dataclass(frozen=True)
class ChatCommand:
    """What `auricle chat` is told."""

    clip: str
    questions: tuple[str, ...] = ()  # none: lines of standard input
    options: ClipOptions = field(default_factory=ClipOptions)
    system: str | None = None  # stands before the conversation
    as_json: bool = False  # an answer a line


def chat(command: ChatCommand) -> int:
    """Answers until the questions end. One that is refused is reported, and the next one asked; then status 2."""
    options = command.options
    bundle = options.model.bundle
    if clips := [word for word in command.questions if os.path.isfile(word) and not is_task(bundle, word)]:
        raise InputError(f"a chat is about one clip, but {clips[0]} is a file too: start another for it")
    with open_engine(options.model) as engine:
        use_keywords(options.keywords, engine)
        conversation = Chat(engine, Path(command.clip), command.system, options.selection)
        generation = options.decoding.generation(engine.defaults)
        conversation.require(generation)
        status = 0
        for question in _questions(command.questions):
            try:
                for event in conversation.ask(question, generation):
                    _show(event, question, command.as_json, engine.keywords)
                    if isinstance(event, Final) and report_cut(event, options.decoding.schema):
                        status = 1
            except InputError as error:
                print(f"auricle: {error}", file=sys.stderr)
                status = error.exit_status
    return status


def _questions(given: Sequence[str]) -> Iterator[str]:
    """Those on the command line, else lines of standard input until an empty one or its end."""
    if given:
        yield from given
        return
    if sys.stdin is None:
        raise InputError("there is nowhere to read questions from: write them behind the clip")
    lines = sys.stdin
    if isinstance(lines, io.TextIOWrapper):
        typed = cast("io.TextIOWrapper[io.BufferedReader]", lines)
        typed.reconfigure(errors="surrogateescape")  # what is no text is refused, and the next line asked
    interactive = lines.isatty()
    if interactive:
        print(HINT, file=sys.stderr)
    while True:
        try:
            line = input("> ") if interactive else lines.readline()
        except EOFError:
            return
        if not line.strip():
            return
        yield line.strip()


def _show(event: Piece | Final, question: str, as_json: bool, keywords: Sequence[str]) -> None:
    if as_json:
        if isinstance(event, Final):
            answer = with_keywords({"question": question.strip(), **encode(event)}, keywords)
            print(json.dumps(answer, ensure_ascii=False), flush=True)
    elif isinstance(event, Piece):
        print(harmless(event.text), end="", flush=True)
    else:
        print(" ..." if was_cut(event.finish_reason) else "", flush=True)
