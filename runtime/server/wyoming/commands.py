"""Commands: sound that a client sends -> live text that only grows, and the whole at the end, in a session's thread.

transcribe ─► audio-start ─► audio-chunk ... ─► audio-stop, or with our own voice detection the first pause
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from ....models.audio import SAMPLE_RATE, Waveform
from ....models.errors import InputError
from ....models.prompt import PromptInfo, ResolvedPrompt, read_keywords
from ...audio.resample import Resampler
from ...events import Caption, Final
from ...live.captions import Live, LiveOptions
from ...live.gate import GateOptions
from ...sources.pushed import PushedSource
from ...sources.source import Chunk, SourceItem
from ..errors import ApiError
from ..languages import transcription_task
from ..service import Service
from .framing import bad_event
from .pcm import PcmDecoder, PcmFormat

MAX_SECONDS = 300.0
"""Of one command; Home Assistant waits no longer."""
PAUSES_MS = {"default": 700.0, "relaxed": 1250.0, "aggressive": 250.0}
"""What ends a command where the client does not, by vad_sensitivity: Home Assistant's own."""
HELD_PAUSE_MS = 2000.0
"""A pause inside a command that the client ends: no sentence is torn apart by it."""


@dataclass(frozen=True)
class CommandRequest:
    """What a client wants of the sound that follows."""

    language: str
    prompt: ResolvedPrompt
    keywords: tuple[str, ...]
    pause_ms: float


@dataclass(frozen=True)
class Heard:
    """A command's whole text."""

    text: str
    sound: Waveform | None
    """From its first word to its last; None where it does not fit the model's window or is not kept."""


def command_request(service: Service, data: Mapping[str, Any], names: Sequence[str] = ()) -> CommandRequest:
    """From transcribe's data; names: listened for behind those that the client gives. Raises ApiError."""
    info = service.engine.prompt
    if (model := _text(data, "name")) not in (None, service.model.name):
        raise ApiError(404, f"The model '{model}' is not served here.", "model_not_found")
    language, prompt = transcription_task(info, [given] if (given := _text(data, "language")) else [])
    pause_ms = PAUSES_MS.get(_text(data, "vad_sensitivity") or "default")
    if pause_ms is None:
        raise bad_event(f"vad_sensitivity is one of {', '.join(PAUSES_MS)}")
    words = [*_texts(data, "transcript_names"), *_texts(data, "transcript_terms"), *names]
    return CommandRequest(language, prompt, _keywords(info, words), pause_ms)


class Command:
    """One command: sound is pushed, and `stop` ends it, in the event loop; a thread iterates over `hear`, once."""

    def __init__(self, service: Service, request: CommandRequest, own_vad: bool, keeps_sound: bool) -> None:
        self.request = request
        self.stream = service.stream()
        self.stream.keywords = request.keywords
        self._service = service
        self._own_vad = own_vad
        self._keeps_sound = keeps_sound
        self._source = PushedSource()
        self._decoder = PcmDecoder()
        self._resampler = Resampler()
        self._seconds = 0.0
        self._most = min(MAX_SECONDS, service.options.max_seconds)

    def push(self, payload: bytes, form: PcmFormat) -> None:
        """The next chunk; behind an early answer it is counted only. Raises ApiError."""
        self._seconds += len(payload) / form.frame / form.rate
        if self._seconds > self._most:
            raise ApiError(413, f"A command lasts {self._most:g} s at most.", "too_long")
        self._source.push(self._resampler.push(self._decoder.push(payload, form), form.rate))

    def stop(self) -> None:
        """No more sound comes. Twice is fine."""
        self._source.push(self._resampler.flush())
        self._source.finish()

    def hear(self) -> Iterator[str | Heard]:
        """New text as it becomes stable, to be joined, and Heard last. Raises InputError, RunError; Cancelled."""
        pause_ms = self.request.pause_ms if self._own_vad else HELD_PAUSE_MS
        options = LiveOptions(self.request.prompt, gate=GateOptions(min_silence_ms=pause_ms))
        tape = _Tape(self._source, 2 * self._service.engine.spec.seconds if self._keeps_sound else 0.0)
        live = Live(self._service.engine, tape, options, self.stream)
        shown = _Shown()
        finals: list[Final] = []
        with closing(iter(live)) as events:
            for event in events:
                if isinstance(event, Caption | Final):
                    self._service.metrics.live(event, self._source.age_s(event.end_s))
                    if grown := shown.add(event):
                        yield grown
                if isinstance(event, Final) and event.text:
                    finals.append(event)
                    if self._own_vad and not live.full:
                        break
        text = " ".join(final.text for final in finals)
        yield Heard(text, self._spoken(tape, finals))

    def _spoken(self, tape: _Tape, finals: Sequence[Final]) -> Waveform | None:
        if not finals or finals[-1].end_s - finals[0].start_s > self._service.engine.spec.seconds:
            return None
        return tape.between(finals[0].start_s, finals[-1].end_s)


class _Tape:
    """A source that keeps what was read of it, up to so many seconds."""

    realtime = True

    def __init__(self, source: PushedSource, seconds: float) -> None:
        self._source = source
        self._room = int(seconds * SAMPLE_RATE)
        self._kept: list[Waveform] = []

    def read(self, timeout_s: float) -> list[SourceItem] | None:
        """See Source."""
        items = self._source.read(timeout_s)
        for item in items or ():
            if isinstance(item, Chunk) and self._room > 0:
                self._kept.append(item.waveform)
                self._room -= len(item.waveform)
        return items

    def close(self) -> None:
        """See Source."""
        self._source.close()

    def between(self, start_s: float, end_s: float) -> Waveform | None:
        """What was said there, if all of it was kept."""
        start, end = round(start_s * SAMPLE_RATE), round(end_s * SAMPLE_RATE)
        kept = np.concatenate([np.zeros(0, np.float32), *self._kept])
        return kept[start:end].copy() if end <= len(kept) else None


class _Shown:
    """Text that was sent; what is sent is never taken back, so that after a revision no more is sent of a segment."""

    def __init__(self) -> None:
        self._finals: list[str] = []
        self._sent = ""

    def add(self, event: Caption | Final) -> str:
        """What follows the text that was sent."""
        newest = event.stable if isinstance(event, Caption) else event.text
        text = " ".join(filter(None, [*self._finals, newest]))
        if isinstance(event, Final):
            self._finals.append(newest)
        if not text.startswith(self._sent):
            return ""
        grown = text[len(self._sent) :]
        self._sent = text
        return grown


def _keywords(info: PromptInfo, words: Sequence[str]) -> tuple[str, ...]:
    """The first that have room; a name that cannot be listed is no reason to hear nothing."""
    found: dict[str, str] = {}
    for word in words:
        if len(found) >= info.max_keywords:
            break
        try:
            found |= {each.casefold(): each for each in read_keywords([word])}
        except InputError:
            continue
    return tuple(found.values())[: info.max_keywords]


def _text(data: Mapping[str, Any], name: str) -> str | None:
    value = data.get(name)
    if value is not None and not isinstance(value, str):
        raise bad_event(f"{name} must be a text")
    return value


def _texts(data: Mapping[str, Any], name: str) -> list[str]:
    value = data.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in cast(list[Any], value)):
        raise bad_event(f"{name} must be a list of texts")
    return cast(list[str], value)
