"""Live sessions on the command line: source, signals and errors around `listen` and `assist`."""

from __future__ import annotations

import errno
import json
import math
import signal
import sys
import threading
from argparse import Namespace
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from ...models.dataclass_json import encode
from ...models.errors import AuricleError, InputError, RunError
from ..bundle import open_bundle
from ..llm.sampling import Generation
from ..sources.microphone import Microphone
from ..sources.playback import FilePlayback, RawInput, Source
from ..sources.portaudio import choose_device, list_devices
from ..sources.source import Heard

LIMITS = ("max_new_tokens", "max_seconds")
GATE = ("threshold", "min_speech_ms", "min_silence_ms", "speech_pad_ms", "max_segment_s")


SOURCES = {
    "a microphone": ("device",),
    "a sound file": ("pace",),
    "raw PCM": ("rate", "channels", "sample_format", "pace"),
}


class UntilError:
    """A source whose failure ends the session as its end would, so that what was heard is finished; kept in `error`."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.error: AuricleError | None = None

    @property
    def realtime(self) -> bool:
        """See Source."""
        return self._source.realtime

    def read(self, timeout_s: float) -> list[Heard] | None:
        """See Source."""
        try:
            return None if self.error else self._source.read(timeout_s)
        except AuricleError as error:
            self.error = error
            return None

    def close(self) -> None:
        """See Source."""
        self._source.close()


def output_error(error: OSError, remedy: str) -> BrokenPipeError | RunError:
    """What to raise where standard output fails: BrokenPipeError when its reader or its terminal is gone."""
    if error.errno in (errno.EPIPE, errno.EIO):
        return BrokenPipeError()
    return RunError(f"standard output takes no more ({error.strerror}): {remedy}")


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


def open_source(arguments: Namespace) -> Source:
    """Opened: a microphone records from here on. Raises InputError, AudioError, RunError."""
    kind = {None: "a microphone", "-": "raw PCM"}.get(arguments.audio, "a sound file")
    for other, names in SOURCES.items():
        foreign = tuple(name for name in names if name not in SOURCES[kind])
        if useless := given_options(arguments, foreign):
            raise InputError(f"{flag(next(iter(useless)))} is for {other}, but sound comes from {kind}: leave it out")
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
            raise InputError(f"{flag(name)} {value} is no number to work with: give a finite one")
    return values


def live_generation(arguments: Namespace, gbnf: str | None) -> Generation:
    """The decoding options of `listen` and `assist`, the rest as the bundle says. Raises InputError, BundleError."""
    given = Generation(stop=tuple(arguments.stop), gbnf=gbnf, **given_options(arguments, LIMITS))
    if arguments.max_new_tokens is not None:
        return given
    return replace(given, max_new_tokens=open_bundle(arguments.bundle).manifest.generation.max_new_tokens)


def flag(name: str) -> str:
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
