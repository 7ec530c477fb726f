"""Live session: sound that a client pushes -> events of live captions, for any protocol.

    push ─► backlog ─► a thread with Live, in turns with everybody else ─► events()
    cut  ─► what was pushed is finished, StretchEnded comes; what follows may be heard otherwise

Who pushes never waits: what is not heard within BACKLOG_SECONDS is dropped, and AudioDropped says so. The stretches
between two cuts follow each other on one line of time, that of the session.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import aclosing, closing
from dataclasses import dataclass, field, replace
from queue import SimpleQueue

from ...models.audio import SAMPLE_RATE, Waveform
from ...models.errors import AuricleError
from ..engine import Engine
from ..events import (
    AudioDropped,
    Caption,
    Final,
    Lagging,
    LiveEvent,
    SegmentComplete,
    SessionEnded,
)
from ..live.captions import Live, LiveOptions
from ..scheduler import Cancelled
from ..sources.pushed import PushedSource
from .jobs import in_thread
from .service import Service


@dataclass(frozen=True)
class LiveSetup:
    """How a stretch is heard."""

    options: LiveOptions = field(default_factory=LiveOptions)
    keywords: tuple[str, ...] = ()
    lora_scale: float | None = None
    """None: the engine's."""

    def require_room(self, engine: Engine) -> None:
        """Raises InputError when the model cannot be asked so."""
        prompt = engine.prompt.prompt_for(self.options.prompt)
        engine.llm.require_positions(prompt, engine.spec.n_audio_tokens, engine.defaults.max_new_tokens, self.keywords)


@dataclass(frozen=True)
class StretchEnded:
    """All that was pushed before a cut, or before the end, is done with."""

    ledger: SessionEnded
    """Where its sound went; what was heard until a segment failed counts as dropped."""


@dataclass(frozen=True)
class SegmentFailed:
    """A segment could not be decoded. What was pushed since is heard."""

    start_s: float
    """Until here everything was heard."""
    error: Exception


LiveSessionEvent = LiveEvent | SegmentFailed | StretchEnded


@dataclass
class _Stretch:
    setup: LiveSetup
    source: PushedSource
    start: int = 0
    discarded: bool = False


class LiveSession:
    """One client's sound. For one event loop, but for its thread; `events` must be read, once."""

    def __init__(self, service: Service, setup: LiveSetup) -> None:
        self._service = service
        self._stream = service.stream()
        self._trained_scale = self._stream.lora_scale
        self._newest = _Stretch(setup, PushedSource())
        self._stretches: SimpleQueue[_Stretch | None] = SimpleQueue()
        self._stretches.put(self._newest)

    @property
    def received_s(self) -> float:
        """Of sound, from the beginning."""
        return self._newest.source.end / SAMPLE_RATE

    @property
    def uncut_s(self) -> float:
        """Of sound, from the last cut."""
        return (self._newest.source.end - self._newest.start) / SAMPLE_RATE

    def push(self, waveform: Waveform) -> None:
        """Sound that follows, float32 [n] at 16 kHz. Never waits; after the end it is ignored."""
        if not self._newest.source.ended:
            self._newest.source.push(waveform)

    def lose(self, seconds: float) -> None:
        """Sound that follows was lost on its way here: AudioDropped tells where. After the end it is ignored."""
        if not self._newest.source.ended:
            self._newest.source.lose(round(seconds * SAMPLE_RATE))

    def cut(self, setup: LiveSetup | None = None) -> None:
        """Finish what was pushed, with a segment that is open; setup: how what follows is heard."""
        source = self._newest.source
        source.finish()
        self._newest = _Stretch(setup or self._newest.setup, PushedSource(source.end), source.end)
        self._stretches.put(self._newest)

    def discard(self, setup: LiveSetup | None = None) -> None:
        """Forget what was pushed since the last cut: nothing more comes of it, StretchEnded neither."""
        self._newest.discarded = True
        self.cut(setup)

    def finish(self) -> None:
        """Nothing follows: the segment that is open is finished, then events() ends. Twice is fine."""
        self._newest.source.finish()
        self._stretches.put(None)

    async def events(self) -> AsyncGenerator[LiveSessionEvent]:
        """What is heard, its times in seconds of the session; leaving ends the session at once.

        Raises Cancelled when the server stops.
        """
        try:
            async with aclosing(in_thread(self._service, self._stream, self._hear)) as heard:
                async for stretch, event in heard:
                    if not stretch.discarded:
                        yield event
        finally:
            self._newest.discarded = True
            self.finish()

    def _hear(self) -> Iterator[tuple[_Stretch, LiveSessionEvent]]:
        while (stretch := self._stretches.get()) is not None:
            self._stream.keywords = stretch.setup.keywords
            scale = stretch.setup.lora_scale
            self._stream.lora_scale = self._trained_scale if scale is None else scale
            failed_s = 0.0
            nothing = stretch.source.ended and stretch.source.end == stretch.start
            ledger = SessionEnded(0.0, 0.0, 0.0, 0.0) if nothing else None
            while ledger is None and not stretch.discarded:
                try:
                    ledger = yield from self._one(stretch)
                except Cancelled:
                    raise
                except AuricleError as error:
                    if not (lost_s := stretch.source.reopen()):
                        raise  # not of a segment: the next try would fail as well
                    failed_s += lost_s
                    yield stretch, SegmentFailed(stretch.source.start / SAMPLE_RATE, error)
            if ledger is not None:
                captured_s = ledger.captured_s + failed_s
                ledger = replace(ledger, captured_s=captured_s, dropped_s=ledger.dropped_s + failed_s)
                yield stretch, StretchEnded(ledger)

    def _one(self, stretch: _Stretch) -> Generator[tuple[_Stretch, LiveEvent], None, SessionEnded | None]:
        """Live over a stretch, or what is left of it, in the session's time."""
        source = stretch.source
        options = stretch.setup.options
        wait_s = max(0.0, options.gate.min_silence_ms - options.gate.speech_pad_ms) / 1e3
        with closing(iter(Live(self._service.engine, source, options, self._stream))) as events:
            for event in events:
                if stretch.discarded:
                    break
                if isinstance(event, SessionEnded):
                    self._service.metrics.live(event, 0.0)
                    return event
                event = _moved(event, source.start / SAMPLE_RATE)
                if isinstance(event, Final | Caption):
                    decided_s = event.end_s + (wait_s if isinstance(event, Final) else 0.0)
                    self._service.metrics.live(event, source.age_s(decided_s))
                elif isinstance(event, AudioDropped):
                    self._service.metrics.live(event, 0.0)
                yield stretch, event
        return None


def _moved(event: LiveEvent, by_s: float) -> LiveEvent:
    """The same event where it lies in the session."""
    if isinstance(event, Final | Caption):
        words = tuple(word.moved(by_s) for word in event.words)
        return replace(event, start_s=event.start_s + by_s, end_s=event.end_s + by_s, words=words)
    if isinstance(event, SegmentComplete):
        return replace(event, start_s=event.start_s + by_s, end_s=event.end_s + by_s)
    if isinstance(event, Lagging):
        return replace(event, heard_s=event.heard_s + by_s)
    return event if isinstance(event, SessionEnded) else replace(event, start_s=event.start_s + by_s)
