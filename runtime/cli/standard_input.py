"""Standard input: a whole encoded audio file -> a waveform, float32 [n] mono at 16 kHz."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from ...models.audio import Waveform
from ...models.errors import InputError, RunError
from ..audio.decode import is_silent, read_audio
from ..audio.selection import MAIN, Selection
from ..audio.silence import silent_file

NAME = "standard input"


def read_standard_input(selection: Selection = MAIN) -> Waveform:
    """Until its end. Any format that a file may have: it goes to a temporary file, as some must be read out of order.

    Raises InputError for a terminal, AudioError for what is no sound or silent, RunError when the file finds no room.
    """
    if sys.stdin is None or sys.stdin.isatty():
        what = "closed" if sys.stdin is None else "a terminal"
        raise InputError(f"- reads a sound file from standard input, which is {what}: pipe one into it")
    with tempfile.TemporaryDirectory(prefix="auricle-") as folder:
        path = Path(folder) / "clip"
        try:
            with path.open("wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
        except OSError as error:
            raise RunError(f"standard input was not kept ({error.strerror}): make room in {folder}") from None
        waveform = read_audio(path, selection, name=NAME)
        if is_silent(waveform):
            raise silent_file(path, selection, NAME)
        return waveform
