"""`auricle assist`: a conversation by voice -> its answers on standard output and to a TTS command.

source opened ─► model opened ─► assistant ─► answers as they are decoded, or with --json-schema a line of JSON each
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

from ...assistant import Assistant
from ...assistant_options import AssistantOptions
from ...events import Answered, AssistantEvent, Piece, SessionEnded, SpeechEnded, SpeechStarted
from ...output.cues import harmless
from ...output.remarks import clock, remark, was_cut
from ...output.transcript import event_line
from ...sources.until_error import UntilError
from ...system.heap import heap_trimmed
from ..answers import half_json
from ..options import ModelOptions, check_prompts, open_engine
from .session import SourceOptions, open_source, output_error, stopped_by_signals


@dataclass(frozen=True)
class AssistCommand:
    """What `auricle assist` is told."""

    source: SourceOptions = field(default_factory=SourceOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    assistant: AssistantOptions = field(default_factory=AssistantOptions)
    as_json: bool = False  # every event, a line each


def assist(command: AssistCommand) -> int:
    """A conversation until the source ends or someone ends it; status 1 when an answer's JSON was cut."""
    check_prompts(command.model.bundle, command.assistant.prompt)
    answers = AnswerLines(command.assistant.json_schema is not None, command.as_json)
    with ExitStack() as stack:
        source = stack.enter_context(closing(UntilError(open_source(command.source))))
        engine = stack.enter_context(open_engine(command.model))
        assistant = Assistant(engine, command.assistant)
        events = stack.enter_context(closing(assistant.run(source)))
        stack.enter_context(stopped_by_signals(assistant.stop))
        if command.source.audio is None:
            print("listening; Ctrl-C ends", file=sys.stderr)
        for event in heap_trimmed(events):
            try:
                answers.show(event)
            except OSError as error:
                raise output_error(error, "make room") from error
    if source.error is not None:
        raise source.error
    return 1 if answers.n_cut else 0


class AnswerLines:
    """Answers as they are decoded; with a schema only whole JSON, a line each; or every event as a line of JSON."""

    def __init__(self, with_schema: bool, every_event: bool) -> None:
        self._with_schema = with_schema
        self._every_event = every_event
        self.n_cut = 0
        """Answers whose JSON was cut."""

    def show(self, event: AssistantEvent) -> None:
        """The next event."""
        if isinstance(event, Answered) and not event.complete:
            self._name_half_json(event)
        elif isinstance(event, Answered) and not event.confident:
            support = "" if event.support is None else f", support {event.support:.2f}"
            _notice(f"[{clock(event.start_s)}] not sure ({event.avg_logprob or 0:.2f}{support}): nothing was done")
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
        if not event.interrupted and event.finish_reason != "end":
            self.n_cut += 1
            _notice(f"[{clock(event.start_s)}] {half_json(event.finish_reason, len(event.token_ids))}")


def _show_json(event: Answered | Piece | SpeechEnded) -> None:
    if isinstance(event, Answered) and event.complete and event.confident:
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
