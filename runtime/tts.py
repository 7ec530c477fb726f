"""TTS: answers read out while they are decoded; each sentence to a text-to-speech command of its own."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from contextlib import ExitStack, suppress

from ..models.errors import InputError, RunError

_END = re.compile(r"[.!?]+(?=\s)|[\u3002\uff01\uff1f]|\n")  # "3.5" goes on: what follows the full stop decides


class Sentences:
    """Text in pieces, given back in whole sentences."""

    def __init__(self) -> None:
        self._text = ""

    def add(self, piece: str) -> list[str]:
        """The sentences that end in this piece, stripped."""
        self._text += piece
        whole: list[str] = []
        while end := _END.search(self._text):
            whole.append(self._text[: end.end()].strip())
            self._text = self._text[end.end() :]
        return [sentence for sentence in whole if sentence]

    def finish(self) -> list[str]:
        """The rest, if there is one."""
        rest = self._text.strip()
        self._text = ""
        return [rest] if rest else []


def speech_command(command: str) -> list[str]:
    """Its words, as a shell would split them. Raises InputError when there is no such command."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError(f"the command to speak, {command!r}, cannot be read ({error}): check its quotes") from None
    if not words or shutil.which(words[0]) is None:
        name = words[0] if words else command
        raise InputError(f"the command to speak, {name!r}, is not there: install it, or name another one")
    return words


class Speaker:
    """A command that reads a text on its standard input and speaks it; no shell is involved. Any thread may use it.

    Close it. Raises InputError when there is no such command.
    """

    def __init__(self, command: str) -> None:
        self._words = speech_command(command)
        self._changed = threading.Condition()
        self._waiting: deque[str] = deque()
        self._voice: _Voice | None = None
        self._failure: str | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="auricle-speaker", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Something is being spoken, or waits to be."""
        with self._changed:
            return bool(self._waiting or self._voice)

    def say(self, sentence: str) -> None:
        """Speak this after what waits already. Raises RunError when the command has failed before."""
        with self._changed:
            if self._failure is not None:
                raise RunError(self._failure)
            self._waiting.append(sentence)
            self._changed.notify_all()

    def stop(self) -> None:
        """Be silent at once; what waits is not spoken."""
        with self._changed:
            self._waiting.clear()
            if self._voice is not None:
                self._voice.kill()
            self._voice = None
            self._changed.notify_all()

    def finish(self, timeout_s: float | None = None) -> bool:
        """Wait until everything was spoken; False when it takes longer. Raises RunError when the command failed."""
        with self._changed:
            silent = self._changed.wait_for(lambda: not (self._waiting or self._voice), timeout_s)
            if self._failure is not None:
                raise RunError(self._failure)
            return silent

    def close(self) -> None:
        """Silence, and the end of the thread. Twice is fine."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self.stop()
        self._thread.join()

    def _work(self) -> None:
        """The thread: one sentence after the other."""
        while (started := self._start_next()) is not None:
            sentence, voice = started
            failure = voice.speak(sentence)
            with self._changed:
                if self._voice is voice:  # else it was told to stop
                    self._voice = None
                    if failure is not None:
                        self._fail(failure)
                self._changed.notify_all()

    def _start_next(self) -> tuple[str, _Voice] | None:
        """The next sentence and the voice that will speak it; None at the end."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return None
                sentence = self._waiting.popleft()
                try:
                    self._voice = _Voice(self._words)
                    return sentence, self._voice
                except OSError as error:
                    self._fail(error.strerror or str(error))
                    self._changed.notify_all()

    def _fail(self, reason: str) -> None:
        self._failure = f"{self._words[0]} does not speak ({reason}): try `echo hello | {shlex.join(self._words)}`"
        self._waiting.clear()


class _Voice:
    """A process that speaks one text. Raises OSError when it cannot be started.

    In a session of its own: Ctrl-C is ours, and what it starts itself can be ended with it. What it complains of goes
    to a file: a pipe may be kept open by what it has left running.
    """

    def __init__(self, words: list[str]) -> None:
        with ExitStack() as stack:
            self._complaints = stack.enter_context(tempfile.TemporaryFile())
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._complaints,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
            stack.pop_all()

    def speak(self, text: str) -> str | None:
        """To its end; returns why it failed. Once."""
        with self._complaints as complaints:
            self._process.communicate(text)
            if not self._process.returncode:
                return None
            complaints.seek(max(0, complaints.seek(0, os.SEEK_END) - 1000))
            complaint = complaints.read(1000).decode("utf-8", "replace").strip()[-200:]
        return f"status {self._process.returncode}: {complaint or 'it does not say why'}"

    def kill(self) -> None:
        """At once, from any thread; nothing when it has ended."""
        if self._process.poll() is not None:
            return
        with suppress(ProcessLookupError, PermissionError):  # it ends meanwhile; macOS says the latter then
            if sys.platform == "win32":
                self._process.kill()
            else:
                os.killpg(self._process.pid, signal.SIGKILL)
