"""`earshot chat AUDIO`: questions about one clip, a line each, from the terminal or a pipe."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Iterator

from ..models.codec import encode
from ..models.errors import InputError
from .chat import Chat
from .commands import generation_of, use_keywords
from .cues import harmless
from .events import Final, Piece
from .opening import open_engine

HINT = "ask about the clip; an empty line or Ctrl-D ends"


def chat(arguments: Namespace) -> int:
    """Answers until the questions end. A question that cannot be answered is said so, and the next one asked."""
    with open_engine(arguments) as engine:
        use_keywords(arguments, engine)
        talk = Chat(engine, arguments.audio, arguments.system, arguments.mix)
        generation = generation_of(arguments, engine)
        status = 0
        for question in _questions(arguments.prompt):
            try:
                for event in talk.ask(question, generation):
                    _show(event, question, arguments.json)
                status = 0
            except InputError as error:
                print(f"earshot: {error}", file=sys.stderr)
                status = error.exit_status
    return status


def _questions(given: list[str]) -> Iterator[str]:
    """Those on the command line, else lines of standard input until an empty one or its end."""
    if given:
        yield from given
        return
    if sys.stdin is None:
        raise InputError("there is nowhere to read questions from: write them behind the clip")
    interactive = sys.stdin.isatty()
    if interactive:
        print(HINT, file=sys.stderr)
    while True:
        try:
            line = input("> ") if interactive else sys.stdin.readline()
        except EOFError:
            return
        if not line.strip():
            return
        yield line


def _show(event: Piece | Final, question: str, as_json: bool) -> None:
    if as_json:
        if isinstance(event, Final):
            print(json.dumps({"question": question.strip(), **encode(event)}, ensure_ascii=False), flush=True)
    elif isinstance(event, Piece):
        print(harmless(event.text), end="", flush=True)
    else:
        print(" ..." if event.stopped not in (None, "stop") else "", flush=True)
