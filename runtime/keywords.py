"""Keywords: words and a file of them in, an engine's list out; the file is read again when it changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..models.errors import InputError
from ..models.prompt import first_task, read_keywords
from .engine import Engine
from .events import KeywordsRead


class Keywords:
    """texts: comma-separated words, before those of the file. Raises InputError when either cannot be read.

    Each word counts once, in the order given; of more than a model reads the first ones are used.
    """

    def __init__(self, texts: Sequence[str] = (), file: Path | None = None) -> None:
        self._texts = tuple(texts)
        self._file = file
        self._seen = None if file is None else self._stamp(file)
        """The file as it was looked at last; None: it was not there."""
        self._words = read_keywords(self._texts) if file is None else self._read(file)
        self._refused: tuple[str, ...] | None = None
        self._used = False

    @property
    def words(self) -> tuple[str, ...]:
        """All of them, as they were read last."""
        return self._words

    @property
    def may_change(self) -> bool:
        """Whether they come from a file, which is to be looked at again."""
        return self._file is not None

    def is_used(self, engine: Engine) -> bool:
        """Whether `use` has nothing to do: the file is the one that was read last, and the engine listens for them."""
        wanted = self._words[: engine.prompt.max_keywords]
        return not self._has_changed() and wanted in (engine.keywords, self._refused)

    def use(self, engine: Engine, at_s: float = 0.0, fits: Callable[[], object] = lambda: None) -> KeywordsRead | None:
        """Let the engine listen for them, if it does not yet: from its next question on. None: nothing is new.

        fits: raises InputError when a question with them has no room. A list that cannot be read or used changes
        nothing, and the event says so, once; the first time InputError is raised.
        """
        problem = None if self._file is None else self._look_again(self._file)
        most, old = engine.prompt.max_keywords, engine.keywords
        wanted = self._words[:most]
        if wanted != old and wanted != self._refused:
            try:
                engine.keywords = wanted
                self._require_room(engine, fits)
            except InputError as error:
                engine.keywords, self._refused, problem = old, wanted, str(error)
                if not self._used:
                    raise
        elif problem is None:
            return None
        self._used = True
        return KeywordsRead(at_s, engine.keywords, tuple(self._words[most:]), problem)

    def _require_room(self, engine: Engine, fits: Callable[[], object]) -> None:
        """For the shortest answer to the longest clip, whatever the command asks further."""
        try:
            engine.llm.require_positions(first_task(engine.prompt), engine.spec.n_audio_tokens, 1)
            fits()
        except InputError as error:
            raise InputError(f"{len(engine.keywords)} keywords leave no room ({error}): shorten the list") from None

    def _has_changed(self) -> bool:
        try:
            return self._file is not None and self._stamp(self._file) != self._seen
        except InputError:
            return self._seen is not None

    def _look_again(self, file: Path) -> str | None:
        """Take in what has changed; returns why it could not be read."""
        try:
            stamp = self._stamp(file)
            absent = None
        except InputError as error:
            stamp = None
            absent = str(error)
        if stamp == self._seen:
            return None
        self._seen = stamp
        if absent is not None:
            return absent
        try:
            self._words = self._read(file)
            self._refused = None
        except InputError as error:
            return str(error)
        return None

    def _read(self, file: Path) -> tuple[str, ...]:
        try:
            return read_keywords(self._texts, file.read_text(encoding="utf-8-sig"))
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
