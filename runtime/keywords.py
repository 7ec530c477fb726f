"""Words to listen for: given ones, and those of a file that is read again when it changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..models.errors import InputError
from ..models.prompt import read_keywords
from .engine import Engine
from .events import KeywordsRead


class Keywords:
    """texts: comma-separated words, before those of the file. Raises InputError when either cannot be read.

    Each word counts once, in the order given; of more than a model reads the first ones are used.
    """

    def __init__(self, texts: Sequence[str] = (), file: Path | None = None) -> None:
        self._texts, self._file = tuple(texts), file
        self._seen: tuple[int, int] | None = None
        self._words = read_keywords(self._texts)
        if file is not None:
            self._seen, self._words = self._stamp(file), self._read(file)
        self._new = bool(self._words)

    def use(self, engine: Engine, at_s: float = 0.0) -> KeywordsRead | None:
        """Let the engine listen for them, if anything is new since the last call: from its next question on.

        A file that can no longer be read changes nothing, and the event says so. InputError, the first time only.
        """
        problem = self._reread()
        if not self._new and problem is None:
            return None
        most, first = engine.prompt.max_keywords, self._new
        self._new = False
        if first:
            try:
                engine.keywords = self._words[:most]
            except InputError as error:
                if at_s == 0.0:
                    raise
                problem = str(error)
        return KeywordsRead(at_s, engine.keywords, tuple(self._words[most:]), problem)

    def _reread(self) -> str | None:
        if self._file is None:
            return None
        try:
            stamp = self._stamp(self._file)
            if stamp == self._seen:
                return None
            self._seen = stamp
            self._words, self._new = self._read(self._file), True
        except InputError as error:
            said, self._seen = None if self._seen is None else str(error), None
            return said
        return None

    def _read(self, file: Path) -> tuple[str, ...]:
        try:
            return read_keywords([*self._texts, file.read_text(encoding="utf-8-sig")])
        except OSError as error:
            raise _unreadable(file, error) from None
        except UnicodeDecodeError as error:
            raise InputError(f"{file} is not UTF-8 text at byte {error.start}: save it as UTF-8") from None

    def _stamp(self, file: Path) -> tuple[int, int]:
        try:
            status = file.stat()
        except OSError as error:
            raise _unreadable(file, error) from None
        return status.st_mtime_ns, status.st_size


def _unreadable(file: Path, error: OSError) -> InputError:
    return InputError(f"{file} cannot be read ({error.strerror}): give a file of words, one in a line")
