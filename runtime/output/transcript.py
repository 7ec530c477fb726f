"""Transcript: live events -> a file, as they happen; each entry is one write at its end, and stays.

    Final ─► its cues (srt, vtt), a line of text with its answers below it (txt), a JSON line (jsonl)

jsonl also has what happened between the segments: AudioDropped, DeviceLost, DeviceFound, DeviceMuted and, last, the
balance of SessionEnded. A session that was killed leaves a whole file up to its last entry.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from types import TracebackType

from ...models.dataclass_json import encode
from ...models.errors import InputError, RunError
from ..events import (
    AssistantEvent,
    AudioDropped,
    DeviceFound,
    DeviceLost,
    DeviceMuted,
    Final,
    LiveEvent,
    SessionEnded,
    TimedWord,
    Word,
)
from .cues import VTT_HEAD, Cue, also_lines, cues, plain, srt_block, vtt_block, word_cues
from .subtitles import FORMATS, json_line
from .timed_cues import timed_cues

KEPT = (Final, AudioDropped, DeviceLost, DeviceFound, DeviceMuted, SessionEnded)


class Transcript:
    """One file of one session. Close it, or use it as a context manager: what fails before an entry leaves no file."""

    def __init__(self, path: str | os.PathLike[str], format: str | None = None) -> None:
        """format: from the file's suffix when None. Raises InputError; a file that holds something is left alone."""
        self.path = Path(path)
        self._format = format or self.path.suffix.removeprefix(".").lower()
        if self._format not in FORMATS:
            raise InputError(f"{self.path} does not end in one of .{', .'.join(FORMATS)}: name it after its format")
        self._n_cues = self._n_entries = 0
        self._head = VTT_HEAD.encode() if self._format == "vtt" else b""
        self._file, self._created = _open(self.path)
        self._size = 0
        try:
            self._begin()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise

    def add(self, event: LiveEvent) -> None:
        """Append what the event says, if this format has a place for it. Raises RunError, the file whole as before."""
        entry = self._entry(event)
        if entry:
            self._append(entry.encode("utf-8", "replace"))
            self._n_entries += 1
            self._n_cues += len(final_cues(event)) if isinstance(event, Final) else 0

    def close(self) -> None:
        """Twice is fine."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Transcript:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        if kind is not None and self._created and not self._n_entries:
            self.path.unlink(missing_ok=True)

    def _begin(self) -> None:
        """Take what is empty, or holds no more than the head of a session without a Final."""
        state = os.fstat(self._file)
        if stat.S_ISREG(state.st_mode):
            self._size = state.st_size
            if self._size > len(self._head) or (self._size and self.path.read_bytes() != self._head):
                raise InputError(f"{self.path} holds something already: choose another name, or remove it")
        if self._head and not self._size:
            self._append(self._head)

    def _entry(self, event: LiveEvent) -> str:
        if self._format == "jsonl":
            return f"{event_line(event)}\n" if isinstance(event, KEPT) else ""
        if not isinstance(event, Final) or not plain(event.text) or not event.supported:
            return ""
        if self._format == "txt":
            return "".join(f"{line}\n" for line in (plain(event.text), *also_lines(event.also)))
        if self._format == "vtt":
            return "".join(f"\n{vtt_block(cue)}" for cue in final_cues(event))
        blocks = [srt_block(number, cue) for number, cue in enumerate(final_cues(event), self._n_cues + 1)]
        return ("\n" if self._n_cues else "") + "\n".join(blocks)

    def _append(self, data: bytes) -> None:
        """All of it or nothing; one write, unless the system takes only a part."""
        done = 0
        try:
            while done < len(data):
                done += os.write(self._file, data[done:])
        except OSError as error:
            with contextlib.suppress(OSError):  # no file but a pipe
                os.ftruncate(self._file, self._size)
            raise RunError(
                f"{self.path} takes no more ({error.strerror}); what came before is in it: make room, start again"
            ) from error
        self._size += len(data)


def event_line(event: LiveEvent | AssistantEvent) -> str:
    """One line of JSON: "event", the class's name, and its fields."""
    return json_line({"event": type(event).__name__, **encode(event)})


def final_cues(final: Final) -> list[Cue]:
    """By the times of its words, where they are known; none for what nobody is taken to have said."""
    if not final.supported:
        return []
    if timed := [word for word in final.words if isinstance(word, TimedWord)]:
        return timed_cues(timed, final.text)
    if heard := [word for word in final.words if isinstance(word, Word)]:
        return word_cues(final.start_s, final.end_s, heard)
    return cues(final.start_s, final.end_s, final.text)


def _open(path: Path) -> tuple[int, bool]:
    """The file, and whether it was made just now."""
    flags = os.O_RDWR | os.O_APPEND | getattr(os, "O_BINARY", 0)
    try:
        with contextlib.suppress(FileExistsError):
            return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666), True
        return os.open(path, flags), False
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): choose another place") from None
