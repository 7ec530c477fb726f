"""`auricle listen`: a microphone, a file or a pipe -> live captions on the terminal and in a file.

source opened ─► model opened ─► events ─► transcript ─► view
     (sound is kept meanwhile)      ▲
                 keys: other tasks ─┘     q, Ctrl-C, SIGTERM: the segment is finished, then the end
"""

from __future__ import annotations

import sys
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from ....models.errors import RunError
from ....models.interruption import interruptible, signals_wait
from ...engine import Engine
from ...events import Final, LiveEvent
from ...live.captions import Live, LiveOptions
from ...llm.grammar.json_schema import JsonSchema
from ...output.remarks import clock
from ...output.terminal import JsonLines, Meter, PlainLines, Screen, View
from ...output.transcript import Transcript
from ...sources.until_error import UntilError
from ...system.heap import heap_trimmed
from ..answers import half_json
from ..options import ModelOptions, check_prompts, open_engine, tells_support
from .keyboard import Keys, Menu, keys_work
from .session import SourceOptions, open_source, output_error, stopped_by_signals

HINT = "? tasks, q quits"


@dataclass(frozen=True)
class ListenCommand:
    """What `auricle listen` is told."""

    source: SourceOptions = field(default_factory=SourceOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    live: LiveOptions = field(default_factory=LiveOptions)
    out: Path | None = None  # a file that the captions are written to as well
    as_json: bool = False  # every event, a line each
    schema: JsonSchema | None = None  # what every answer is held to, by live.generation


def listen(command: ListenCommand) -> int:
    """Live captions until the source ends or someone ends them; status 1 when an answer's JSON was cut."""
    check_prompts(command.model.bundle, command.live.prompt, *command.live.also)
    with ExitStack() as stack:
        transcript = stack.enter_context(Transcript(command.out)) if command.out else None
        source = stack.enter_context(closing(UntilError(open_source(command.source))))
        engine = stack.enter_context(open_engine(command.model))
        n_cut = _run(Live(engine, source, _telling(command, engine)), transcript, command)
    if source.error is not None:
        raise source.error
    return 1 if n_cut else 0


def _telling(command: ListenCommand, engine: Engine) -> LiveOptions:
    """JSON tells support too, wherever that can be told."""
    if not command.as_json:
        return command.live
    generation = command.live.generation or engine.greedy_defaults
    prompt = engine.prompt.prompt_for(command.live.prompt)
    return replace(command.live, generation=tells_support(generation, prompt, engine))


def _run(live: Live, transcript: Transcript | None, command: ListenCommand) -> int:
    """The session; how many answers are half JSON.

    What one output does not take, the file or the view, the other still does; then raises for it.
    """
    with_keys = command.source.audio != "-" and keys_work(sys.stdin)
    full: RunError | None = None
    blind: OSError | None = None
    n_cut = 0
    with ExitStack() as stack:
        view = stack.enter_context(_view(command.as_json, live, with_keys))
        stack.enter_context(stopped_by_signals(live.stop))
        if with_keys:
            stack.enter_context(Keys(sys.stdin, Menu(live, view, command.live).press))
        stack.enter_context(signals_wait())
        for event in heap_trimmed(interruptible(live)):
            try:
                if transcript is not None:
                    transcript.add(event)
            except RunError as error:
                with suppress(OSError):
                    if full is None:
                        view.notice(f"auricle: captions are shown here alone: {error}")
                full = error
            try:
                if blind is None:
                    view.show(event)
                for notice in _half_json(event, command.schema):
                    n_cut += 1
                    view.notice(notice)
            except OSError as error:
                blind = error
                live.stop()
    if blind is not None:
        raise output_error(blind, "make room, or use --out") from blind
    if full is not None:
        raise full
    return n_cut


def _half_json(event: LiveEvent, schema: JsonSchema | None) -> list[str]:
    """A sentence for each answer of a final that does not hold the schema."""
    if schema is None or not isinstance(event, Final):
        return []
    cut = 0 if schema.is_held(event.text, event.finish_reason) else 1
    cut += sum(not schema.is_held(text) for _, text in event.also)
    why = half_json(event.finish_reason, len(event.token_ids))
    return [f"[{clock(event.start_s)}-{clock(event.end_s)}] {why}"] * cut


def _view(as_json: bool, meter: Meter, with_keys: bool) -> View:
    if as_json:
        return JsonLines(sys.stdout)
    if not sys.stdout.isatty():
        return PlainLines(sys.stdout)
    from rich.console import Console

    return Screen(Console(), meter, HINT if with_keys else "Ctrl-C ends")
