"""`earshot listen`: live captions from a microphone, a file or a pipe, to the terminal and to a file.

source opened ─► model opened ─► events ─► transcript ─► view
     (sound is kept meanwhile)      ▲
                 keys: other tasks ─┘     q, Ctrl-C, SIGTERM: the segment is finished, then the end
"""

from __future__ import annotations

import errno
import json
import math
import signal
import sys
import threading
from argparse import Namespace
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from ...models.dataclass_json import encode
from ...models.errors import EarshotError, InputError, RunError
from ..live.captions import Live, LiveOptions
from ..live.gate import GateOptions
from ..output.terminal import JsonLines, Meter, PlainLines, Screen, View
from ..output.transcript import Transcript
from ..sources.microphone import Microphone
from ..sources.playback import FilePlayback, RawInput, Source
from ..sources.portaudio import choose_device, list_devices
from ..sources.source import Heard
from .keyboard import Keys, keys_work
from .options import check_prompts, form_of, keywords_of, open_engine

GATE = ("threshold", "min_speech_ms", "min_silence_ms", "speech_pad_ms", "max_segment_s")
LIVE = ("hop_ms", "agreement", "context", "settle_s", "max_new_tokens", "max_seconds")
SOURCES = {
    "a microphone": ("device",),
    "a sound file": ("pace",),
    "raw PCM": ("rate", "channels", "sample_format", "pace"),
}
MENU_KEYS = "123456789abcdefgijklmnoprstuvwxyz"  # h and q mean something else
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


class UntilError:
    """A source whose failure ends the session as its end would, so that what was heard is finished; kept in `error`."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.error: EarshotError | None = None

    @property
    def realtime(self) -> bool:
        """See Source."""
        return self._source.realtime

    def read(self, timeout_s: float) -> list[Heard] | None:
        """See Source."""
        try:
            return None if self.error else self._source.read(timeout_s)
        except EarshotError as error:
            self.error = error
            return None

    def close(self) -> None:
        """See Source."""
        self._source.close()


class Menu:
    """Keys that ask something else from the next segment on; the first is what was asked for at the start."""

    def __init__(self, live: Live, view: View, options: LiveOptions) -> None:
        self._live, self._view, self._also = live, view, options.also
        named = [name for name, prompt in live.tasks.items() if "{}" not in prompt and name != options.prompt]
        self.tasks = dict(zip(MENU_KEYS, [options.prompt, *named], strict=False))

    def press(self, key: str) -> None:
        """One key; unknown ones do nothing."""
        if key in "qQ\x04":
            self._live.stop()
        elif key in "?hH":
            self._view.notice(
                "\n".join(f"{key}  {task}" for key, task in self.tasks.items()) + "\n+ -  LoRA scale\nq  quit"
            )
        elif key in "+-":
            self._rescale(1 if key == "+" else -1)
        elif key in self.tasks:
            self._live.ask(self.tasks[key], self._also)
            self._view.notice(f"from the next segment on: {self.tasks[key]}")

    def _rescale(self, direction: int) -> None:
        """The LoRA's scale up or down by a tenth of the trained one."""
        step = self._live.trained_scale / 10
        try:
            self._live.set_lora_scale(round(self._live.lora_scale / step + direction) * step)
            self._view.notice(f"from the next segment on: LoRA scale {self._live.lora_scale:.3g}")
        except InputError as error:
            self._view.notice(str(error))


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


def output_error(error: OSError, remedy: str) -> BrokenPipeError | RunError:
    """What to raise where standard output fails: BrokenPipeError when its reader or its terminal is gone."""
    if error.errno in (errno.EPIPE, errno.EIO):
        return BrokenPipeError()
    return RunError(f"standard output takes no more ({error.strerror}): {remedy}")


def _view(as_json: bool, meter: Meter, with_keys: bool) -> View:
    if as_json:
        return JsonLines(sys.stdout)
    if not sys.stdout.isatty():
        return PlainLines(sys.stdout)
    from rich.console import Console

    return Screen(Console(), meter, HINT if with_keys else "Ctrl-C ends")


@contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Generator[None]:
    """Ctrl-C, SIGTERM and a closed terminal end the session; a second Ctrl-C does not wait for it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked = True
        threading.Thread(target=stop, name="stop", daemon=True).start()  # what it locks may be held right here

    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if handler not in (None, signal.SIG_IGN):  # ignored under nohup and in a shell's background
            signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


def _options(arguments: Namespace) -> LiveOptions:
    """What the command line says; the defaults are LiveOptions' and GateOptions'. Raises InputError."""
    gate = given_options(arguments, GATE)
    if arguments.no_vad and (useless := [name for name in gate if name != "max_segment_s"]):
        raise InputError(f"{_flag(useless[0])} is for the speech gate, which --no-vad leaves out: give one of them")
    return LiveOptions(
        prompt=arguments.task,
        also=tuple(arguments.also),
        vad=not arguments.no_vad,
        gate=GateOptions(**gate),
        stop=tuple(arguments.stop),
        gbnf=form_of(arguments),
        keywords=keywords_of(arguments),
        **given_options(arguments, LIVE),
    )


def open_source(arguments: Namespace) -> Source:
    """Opened: a microphone records from here on. Raises InputError, AudioError, RunError."""
    kind = {None: "a microphone", "-": "raw PCM"}.get(arguments.audio, "a sound file")
    for other, names in SOURCES.items():
        foreign = tuple(name for name in names if name not in SOURCES[kind])
        if useless := given_options(arguments, foreign):
            raise InputError(f"{_flag(next(iter(useless)))} is for {other}, but sound comes from {kind}: leave it out")
    given = given_options(arguments, SOURCES[kind])
    if kind == "a microphone":
        return Microphone(**given)
    if kind == "a sound file":
        return FilePlayback(Path(arguments.audio), **given)
    if sys.stdin is None or sys.stdin.isatty():
        what = "closed" if sys.stdin is None else "a terminal"
        raise InputError(f"- reads raw PCM from standard input, which is {what}: pipe sound into it")
    return RawInput(sys.stdin.buffer, given.pop("rate", 16_000), **given)


def given_options(arguments: Namespace, names: tuple[str, ...]) -> dict[str, Any]:
    """Those of the named options that the command line has. Raises InputError for inf and nan."""
    values = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{_flag(name)} {value} is no number to work with: give a finite one")
    return values


def _flag(name: str) -> str:
    return "--" + ("settle" if name == "settle_s" else name.replace("_", "-"))


def print_devices(as_json: bool) -> int:
    """Every microphone, a line each. Raises RunError when there is none."""
    devices = list_devices()
    choose_device(devices, None)  # raises RunError when there is none
    for device in devices:
        if as_json:
            print(json.dumps(encode(device), ensure_ascii=False))
        else:
            mark = "*" if device.default else " "
            print(f"{mark}{device.number:>3}  {device.label} ({device.channels} channels, {device.sample_rate} Hz)")
    return 0
