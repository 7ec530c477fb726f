"""`auricle chat AUDIO`: questions about one clip, a line each, from the terminal or a pipe."""

from __future__ import annotations

import io
import json
import os
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

from ...models.dataclass_json import encode
from ...models.errors import InputError
from ..chat import Chat
from ..events import Final, Piece
from ..output.cues import harmless
from ..output.remarks import was_cut
from .answers import name_what_was_cut
from .options import generation_of, open_engine, use_keywords, with_keywords

HINT = "ask about the clip; an empty line or Ctrl-D ends"


def chat(arguments: Namespace) -> int:
    """Answers until the questions end. One that cannot be put is said so, and the next one asked; then status 2."""
    if not arguments.words:
        raise InputError("there is no clip to chat about: write auricle chat AUDIO")
    audio, *given = arguments.words
    if clips := [word for word in given if os.path.isfile(word)]:
        raise InputError(f"a chat is about one clip, but {clips[0]} is a file too: start another for it")
    with open_engine(arguments) as engine:
        use_keywords(arguments, engine)
        talk = Chat(engine, Path(audio), arguments.system, arguments.mix)
        generation = generation_of(arguments, engine)
        talk.require(generation)
        status = 0
        for question in _questions(given):
            try:
                for event in talk.ask(question, generation):
                    _show(event, question, arguments.json, engine.keywords)
                    if isinstance(event, Final) and name_what_was_cut(event, arguments):
                        status = 1
            except InputError as error:
                print(f"auricle: {error}", file=sys.stderr)
                status = error.exit_status
    return status


def _questions(given: list[str]) -> Iterator[str]:
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
