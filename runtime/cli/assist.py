"""`auricle assist`: a conversation by voice, its answers on standard output and to a text-to-speech command.

source opened ─► model opened ─► assistant ─► answers as they are decoded, or with --json-schema a line of JSON each
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from contextlib import ExitStack, closing

from ..assistant import Assistant, AssistantOptions
from ..events import Answered, AssistantEvent, Piece, SessionEnded, SpeechEnded, SpeechStarted
from ..live.gate import GateOptions
from ..llm.grammar import read_schema
from ..llm.stopping import REMEDIES
from ..output.cues import harmless
from ..output.remarks import clock, remark, was_cut
from ..output.transcript import event_line
from .options import check_prompts, form_of, keywords_of, open_engine
from .session import (
    GATE,
    UntilError,
    given_options,
    live_generation,
    open_source,
    output_error,
    print_devices,
    stopped_by_signals,
)


def assist(arguments: Namespace) -> int:
    """A conversation until the source ends or someone ends it; status 1 when an answer's JSON was cut."""
    if arguments.list_devices:
        return print_devices(arguments.json)
    options = _options(arguments)
    check_prompts(arguments, options.prompt)
    answers = Answers(options.json_schema is not None, arguments.json)
    with ExitStack() as stack:
        source = stack.enter_context(closing(UntilError(open_source(arguments))))
        engine = stack.enter_context(open_engine(arguments))
        assistant = Assistant(engine, options)
        events = stack.enter_context(closing(assistant.run(source)))
        stack.enter_context(stopped_by_signals(assistant.stop))
        if arguments.audio is None:
            print("listening; Ctrl-C ends", file=sys.stderr)
        for event in events:
            try:
                answers.show(event)
            except OSError as error:
                raise output_error(error, "make room") from error
    if source.error is not None:
        raise source.error
    return 1 if answers.n_cut else 0


class Answers:
    """What is said, as it comes; with a schema only whole JSON, a line each; or every event as a line of JSON."""

    def __init__(self, with_schema: bool, every_event: bool) -> None:
        self._with_schema = with_schema
        self._every_event = every_event
        self.n_cut = 0
        """Answers whose JSON was cut."""

    def show(self, event: AssistantEvent) -> None:
        """The next event."""
        if self._with_schema and isinstance(event, Answered) and event.intent is None:
            self._name_half_json(event)
        if self._every_event:
            print(event_line(event), flush=True)
        elif isinstance(event, Answered | Piece | SpeechEnded):
            if self._with_schema:
                _show_json(event)
            else:
                _show_text(event)
        elif not isinstance(event, SpeechStarted | SessionEnded):
            _notice(remark(event))

    def _name_half_json(self, event: Answered) -> None:
        if event.finish_reason in REMEDIES:
            self.n_cut += 1
            half = f"the JSON is not complete after {len(event.token_ids)} tokens: {REMEDIES[event.finish_reason]}"
            _notice(f"[{clock(event.start_s)}] {half}")


def _show_json(event: Answered | Piece | SpeechEnded) -> None:
    if isinstance(event, Answered) and event.intent is not None:
        print(json.dumps(event.intent, ensure_ascii=False), flush=True)


def _show_text(event: Answered | Piece | SpeechEnded) -> None:
    if isinstance(event, Piece):
        print(harmless(event.text), end="", flush=True)
    elif isinstance(event, SpeechEnded):
        print(f"[{clock(event.start_s)}-{clock(event.end_s)}] ", end="", flush=True)
    else:
        print(" ..." if was_cut(event.finish_reason) else "", flush=True)


def _notice(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _options(arguments: Namespace) -> AssistantOptions:
    """What the command line says. Raises InputError."""
    return AssistantOptions(
        prompt=arguments.task,
        system=arguments.system,
        remember=not arguments.no_memory,
        json_schema=None if arguments.json_schema is None else read_schema(arguments.json_schema),
        generation=live_generation(arguments, None if arguments.grammar is None else form_of(arguments)),
        keywords=keywords_of(arguments),
        speak=arguments.speak,
        barge_in=not arguments.no_barge_in,
        gate=GateOptions(**given_options(arguments, GATE)),
    )
