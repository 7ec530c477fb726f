"""`auricle listen`: live captions from a microphone, a file or a pipe, to the terminal and to a file.

source opened ─► model opened ─► events ─► transcript ─► view
     (sound is kept meanwhile)      ▲
                 keys: other tasks ─┘     q, Ctrl-C, SIGTERM: the segment is finished, then the end
"""

from __future__ import annotations

import sys
from argparse import Namespace
from contextlib import ExitStack, closing

from ...models.errors import InputError
from ..live.captions import Live, LiveOptions
from ..live.gate import GateOptions
from ..output.terminal import JsonLines, Meter, PlainLines, Screen, View
from ..output.transcript import Transcript
from .keyboard import Keys, Menu, keys_work
from .options import check_prompts, form_of, keywords_of, open_engine
from .session import (
    GATE,
    UntilError,
    flag,
    given_options,
    live_generation,
    open_source,
    output_error,
    print_devices,
    stopped_by_signals,
)

LIVE = ("hop_ms", "agreement", "context", "settle_s")
HINT = "? tasks, q quits"


def listen(arguments: Namespace) -> int:
    """Live captions until the source ends or someone ends them."""
    if arguments.list_devices:
        return print_devices(arguments.json)
    options = _options(arguments)
    check_prompts(arguments, options.prompt, *options.also)
    with ExitStack() as stack:
        transcript = stack.enter_context(Transcript(arguments.out)) if arguments.out else None
        source = stack.enter_context(closing(UntilError(open_source(arguments))))
        engine = stack.enter_context(open_engine(arguments))
        _run(Live(engine, source, options), options, transcript, arguments)
    if source.error is not None:
        raise source.error
    return 0


def _run(live: Live, options: LiveOptions, transcript: Transcript | None, arguments: Namespace) -> None:
    """The session. Where standard output ends before it, the rest still goes to the file. Raises as it would alone."""
    with_keys = arguments.audio != "-" and keys_work(sys.stdin)
    blind: OSError | None = None
    with ExitStack() as stack:
        view = stack.enter_context(_view(arguments.json, live, with_keys))
        stack.enter_context(stopped_by_signals(live.stop))
        if with_keys:
            stack.enter_context(Keys(sys.stdin, Menu(live, view, options).press))
        for event in live:
            if transcript is not None:
                transcript.add(event)
            try:
                if blind is None:
                    view.show(event)
            except OSError as error:
                blind = error
                live.stop()
    if blind is not None:
        raise output_error(blind, "make room, or use --out") from blind


def _view(as_json: bool, meter: Meter, with_keys: bool) -> View:
    if as_json:
        return JsonLines(sys.stdout)
    if not sys.stdout.isatty():
        return PlainLines(sys.stdout)
    from rich.console import Console

    return Screen(Console(), meter, HINT if with_keys else "Ctrl-C ends")


def _options(arguments: Namespace) -> LiveOptions:
    """What the command line says; the defaults are LiveOptions' and GateOptions'. Raises InputError."""
    gate = given_options(arguments, GATE)
    if arguments.no_vad and (useless := [name for name in gate if name != "max_segment_s"]):
        raise InputError(f"{flag(useless[0])} is for the speech gate, which --no-vad leaves out: give one of them")
    return LiveOptions(
        prompt=arguments.task,
        also=tuple(arguments.also),
        vad=not arguments.no_vad,
        gate=GateOptions(**gate),
        generation=live_generation(arguments, form_of(arguments)),
        keywords=keywords_of(arguments),
        **given_options(arguments, LIVE),
    )
