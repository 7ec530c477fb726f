"""Live sessions on the command line: options -> an opened source; signals and errors around `listen` and `assist`."""

from __future__ import annotations

import errno
import json
import math
import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from ....models.dataclass_json import encode
from ....models.errors import InputError, RunError
from ....models.interruption import interrupt, on_signals
from ...sources.microphone import Microphone
from ...sources.playback import FilePlayback, RawInput, Source
from ...sources.portaudio import choose_device, list_devices
from ...sources.system_sound import SystemSound

SOURCES = {
    "a microphone": ("source", "device"),
    "what this computer plays": ("source",),
    "a sound file": ("pace",),
    "raw PCM": ("rate", "channels", "sample_format", "pace"),
}


@dataclass(frozen=True)
class SourceOptions:
    """Where a session's sound comes from; None: not given, as the source itself would have it."""

    audio: str | None = None  # a file; "-": raw PCM from standard input; None: a microphone
    source: str | None = None  # "microphone", or "system": what this computer plays
    device: str | None = None  # a part of a microphone's name, or its number
    pace: str | None = None  # "realtime" or "fast", of a file or raw PCM
    rate: int | None = None  # Hz, of raw PCM
    channels: int | None = None  # of raw PCM
    sample_format: str | None = None  # "s16le" or "f32le", of raw PCM


def output_error(error: OSError, remedy: str) -> BrokenPipeError | RunError:
    """What to raise where standard output fails: BrokenPipeError when its reader or its terminal is gone."""
    if error.errno in (errno.EPIPE, errno.EIO):
        return BrokenPipeError()
    return RunError(f"standard output takes no more ({error.strerror}): {remedy}")


@contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Generator[None]:
    """Ctrl-C, SIGTERM and a closed terminal end the session; a second Ctrl-C does not wait for it."""
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked and number == signal.SIGINT:
            interrupt(number, frame)
        asked = True
        threading.Thread(target=stop, name="stop", daemon=True).start()  # what it locks may be held right here

    with on_signals(handle):
        yield


def open_source(options: SourceOptions) -> Source:
    """Opened: a microphone records from here on. Raises InputError, AudioError, RunError."""
    recorded = "what this computer plays" if options.source == "system" else "a microphone"
    kind = recorded if options.audio is None else "raw PCM" if options.audio == "-" else "a sound file"
    for other, names in SOURCES.items():
        foreign = tuple(name for name in names if name not in SOURCES[kind])
        if useless := given_options(options, foreign):
            raise InputError(f"{flag(next(iter(useless)))} is for {other}, but sound comes from {kind}: leave it out")
    given = given_options(options, SOURCES[kind])
    if options.audio is None:
        return SystemSound() if given.pop("source", None) == "system" else Microphone(**given)
    if options.audio != "-":
        return FilePlayback(Path(options.audio), **given)
    if sys.stdin is None or sys.stdin.isatty():
        what = "closed" if sys.stdin is None else "a terminal"
        raise InputError(f"- reads raw PCM from standard input, which is {what}: pipe sound into it")
    return RawInput(sys.stdin.buffer, given.pop("rate", 16_000), **given)


def given_options(options: object, names: tuple[str, ...]) -> dict[str, Any]:
    """Those of the named options that were given. Raises InputError for inf and nan."""
    values = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{flag(name)} {value} is no number to work with: give a finite one")
    return values


def flag(name: str) -> str:
    """An option's name as it is written on the command line."""
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
