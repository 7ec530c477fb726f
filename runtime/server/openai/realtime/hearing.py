"""Hearing: a live session's events -> the events of segments, their items and transcripts.

    VAD     speech_started, deltas, speech_stopped, committed, added, done, deltas, completed
    manual                  deltas                , committed, added, done, deltas, completed

Deltas only append. What the decoder revises later stands in `completed` alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from .....models.audio import SAMPLE_RATE, Waveform
from ....events import AudioDropped, Caption, Final, SegmentComplete, SessionEnded, SpeechStarted
from ...errors import ApiError, api_error
from ...live_session import LiveSession, LiveSessionEvent, LiveSetup, SegmentFailed, StretchEnded
from ...service import Service
from .configuration import SessionConfiguration
from .items import MAX_SOUND_SECONDS, Item, Items
from .outbox import EventOutbox, new_id

LEAST_SECONDS = 0.1
"""Of sound that can be committed."""
TRANSCRIPTION = "conversation.item.input_audio_transcription"


@dataclass
class _Turn:
    """What a user says until it is committed."""

    item: Item
    transcribed: bool
    """Its text is told."""
    start_s: float
    committed: bool = False
    texts: list[str] = field(default_factory=list[str])
    """Of its complete segments: one, but for a client's commit."""
    sounds: list[Waveform] = field(default_factory=list[Waveform])
    sent: str = ""
    """All deltas."""
    n_seconds: float = 0.0

    def text(self, newest: str = "") -> str:
        """As far as it was heard."""
        return " ".join(filter(None, [*self.texts, newest]))


@dataclass
class _Stretch:
    """Sound between two cuts."""

    manual: bool
    transcribed: bool
    turn: _Turn | None = None
    """The one that is spoken, or whose text is not complete."""
    commit: str | None = None
    """The client's event that cut it, where it was one."""
    cut_by_commit: bool = False
    cut_short: bool = False
    """A segment was open at its end."""
    n_clears: int = 0
    """Of the client, which are answered when it is known what became of its commit before."""


class Hearing:
    """One session's sound and what is told of it."""

    def __init__(
        self, service: Service, outbox: EventOutbox, items: Items, configuration: SessionConfiguration, captions: bool
    ) -> None:
        """captions: tell unstable text too, and where the sound went."""
        self.on_speech: Callable[[], object] = lambda: None
        """Called when somebody begins to speak."""
        self.on_turn: Callable[[], object] = lambda: None
        """Called when the server has committed what was said."""
        self._service = service
        self._outbox = outbox
        self._items = items
        self._captions = captions
        self._keeps_sound = configuration.kind == "realtime"
        self._setup = configuration.live_setup(service.engine)
        self._manual = configuration.turn_detection is None
        self._live = LiveSession(service, self._setup)
        self._stretches = deque([self._new_stretch()])
        self._heard = asyncio.Condition()

    # what the client does

    def push(self, waveform: Waveform) -> None:
        """Sound at 16 kHz."""
        self._live.push(waveform)

    def configure(self, configuration: SessionConfiguration) -> None:
        """From here on; what was said so far is finished as it was begun."""
        setup = configuration.live_setup(self._service.engine)
        manual = configuration.turn_detection is None
        if (setup, manual) == (self._setup, self._manual):
            return
        self._setup = setup
        self._manual = manual
        seconds = self._live.uncut_s if self._stretches[-1].manual else 0.0
        if seconds and manual:
            return  # the client has not committed it: from its next commit on
        if seconds >= LEAST_SECONDS:
            self.commit(None)
        else:
            self._cut(setup)

    def commit(self, event_id: object) -> None:
        """What was said since the last commit is an item. Raises ApiError when that is nothing."""
        stretch = self._stretches[-1]
        seconds = self._live.uncut_s
        if seconds < LEAST_SECONDS:
            raise _nothing_to_commit(seconds)
        if stretch.manual:
            turn = self._turn_of(stretch)
            turn.n_seconds = seconds
            self._commit(turn)
        stretch.cut_by_commit = True
        stretch.commit = event_id if isinstance(event_id, str) else None
        self._cut(self._setup)

    def clear(self) -> None:
        """Forget what was not committed."""
        stretch = self._stretches[-1]
        if stretch.turn is None or not stretch.turn.committed:
            self._stretches.pop()
            self._live.discard(self._setup)
            self._stretches.append(self._new_stretch())
        else:  # the segment is complete, its text not yet
            self._cut(self._setup)
        if (undecided := self._last_undecided()) is not None:
            undecided.n_clears += 1
        else:
            self._outbox.emit("input_audio_buffer.cleared")

    def finish(self) -> None:
        """Nothing follows; run() ends with the last words."""
        self._live.finish()

    # what is heard

    async def run(self) -> None:
        """Tell what is heard, until finish(). Raises Cancelled when the server stops."""
        events = self._live.events()
        try:
            async for event in events:
                self._tell(event)
                async with self._heard:
                    self._heard.notify_all()
        finally:
            await events.aclose()

    async def settled(self) -> None:
        """Until every sound that is committed is there."""
        async with self._heard:
            await self._heard.wait_for(lambda: not any(_lacks_sound(each) for each in self._stretches))

    def _tell(self, event: LiveSessionEvent) -> None:
        stretch = self._stretches[0]
        if isinstance(event, SpeechStarted):
            self._started(stretch, event)
        elif isinstance(event, Caption) and stretch.turn is not None:
            self._caption(stretch.turn, event)
        elif isinstance(event, SegmentComplete):
            self._complete(stretch, event)
        elif isinstance(event, Final) and stretch.turn is not None:
            self._final(stretch, stretch.turn, event)
        elif isinstance(event, SegmentFailed):
            self._failed(stretch, event)
        elif isinstance(event, AudioDropped):
            stretch.cut_short = False
            start_ms = round(event.start_s * 1000)
            self._outbox.emit("auricle.audio_dropped", start_ms=start_ms, duration_ms=round(event.seconds * 1000))
        elif isinstance(event, StretchEnded):
            self._ended(stretch, event.ledger)

    def _started(self, stretch: _Stretch, event: SpeechStarted) -> None:
        if stretch.manual:
            self._turn_of(stretch)
            return
        stretch.turn = self._turn_of(stretch, event.start_s)
        start_ms = round(event.start_s * 1000)
        self._outbox.emit("input_audio_buffer.speech_started", audio_start_ms=start_ms, item_id=stretch.turn.item.id)
        self.on_speech()

    def _caption(self, turn: _Turn, event: Caption) -> None:
        if self._captions:
            self._outbox.emit(
                "auricle.caption",
                item_id=turn.item.id,
                start_ms=round(event.start_s * 1000),
                end_ms=round(event.end_s * 1000),
                stable=turn.text(event.stable),
                unstable=event.unstable,
            )
        self._grow(turn, turn.text(event.stable))

    def _complete(self, stretch: _Stretch, event: SegmentComplete) -> None:
        turn = self._turn_of(stretch, event.start_s)
        stretch.cut_short = event.reason == "end"
        if sum(map(len, turn.sounds)) < MAX_SOUND_SECONDS * SAMPLE_RATE:
            turn.sounds.append(event.waveform)
        if stretch.manual:
            return
        turn.n_seconds = event.end_s - event.start_s
        self._stopped(turn, event.end_s)
        if not turn.transcribed:
            stretch.turn = None
        self.on_turn()

    def _final(self, stretch: _Stretch, turn: _Turn, event: Final) -> None:
        turn.texts.append(event.text)
        self._grow(turn, turn.text())
        if not stretch.manual:
            self._completed(turn)
            stretch.turn = None

    def _failed(self, stretch: _Stretch, event: SegmentFailed) -> None:
        if (turn := stretch.turn) is None:
            return
        if not turn.committed and not stretch.manual:
            turn.n_seconds = max(0.0, event.start_s - turn.start_s)
            self._stopped(turn, event.start_s)
        told = api_error(event.error).body["error"]
        self._outbox.emit(f"{TRANSCRIPTION}.failed", item_id=turn.item.id, content_index=0, error=told)
        turn.transcribed = False
        if not stretch.manual:
            stretch.turn = None

    def _ended(self, stretch: _Stretch, ledger: SessionEnded) -> None:
        self._stretches.popleft()
        if stretch.manual:
            if (turn := stretch.turn) is not None and turn.committed:
                self._keep_sound(turn)
                self._completed(turn)
        elif stretch.cut_by_commit and not stretch.cut_short:
            self._outbox.error(_nothing_to_commit(0.0), stretch.commit)
        for _ in range(stretch.n_clears):
            self._outbox.emit("input_audio_buffer.cleared")
        if self._captions and ledger.captured_s:
            parts = {f"{name.removesuffix('_s')}_ms": seconds * 1000 for name, seconds in asdict(ledger).items()}
            self._outbox.emit("auricle.ledger", **parts)

    # items

    def _stopped(self, turn: _Turn, end_s: float) -> None:
        end_ms = round(end_s * 1000)
        self._outbox.emit("input_audio_buffer.speech_stopped", audio_end_ms=end_ms, item_id=turn.item.id)
        self._keep_sound(turn)
        self._commit(turn)

    def _commit(self, turn: _Turn) -> None:
        turn.committed = True
        before = self._items.last_id
        self._outbox.emit("input_audio_buffer.committed", item_id=turn.item.id, previous_item_id=before)
        self._items.done(turn.item, self._items.add(turn.item))

    def _keep_sound(self, turn: _Turn) -> None:
        """For answers: in a conversation."""
        sounds = turn.sounds if self._keeps_sound else []
        turn.item.sound = np.concatenate([np.zeros(0, np.float32), *sounds])
        turn.sounds.clear()

    def _grow(self, turn: _Turn, text: str) -> None:
        """Tell what the text has more than was told, where nothing of that has changed."""
        if not turn.transcribed or text == turn.sent or not text.startswith(turn.sent):
            return
        delta = text[len(turn.sent) :]
        turn.sent = text
        self._outbox.emit(f"{TRANSCRIPTION}.delta", item_id=turn.item.id, content_index=0, delta=delta)

    def _completed(self, turn: _Turn) -> None:
        if not turn.transcribed:
            return
        text = turn.text()
        turn.item.content[0]["transcript"] = text
        told: dict[str, Any] = {"item_id": turn.item.id, "content_index": 0, "transcript": text}
        usage = {"type": "duration", "seconds": round(turn.n_seconds, 3)}
        self._outbox.emit(f"{TRANSCRIPTION}.completed", **told, usage=usage)

    def _turn_of(self, stretch: _Stretch, start_s: float = 0.0) -> _Turn:
        if stretch.turn is None:
            item = Item(new_id("item"), "user", [{"type": "input_audio", "transcript": None}])
            stretch.turn = _Turn(item, stretch.transcribed, start_s)
        return stretch.turn

    def _last_undecided(self) -> _Stretch | None:
        """The newest whose commit by the client is neither an item nor an error yet."""
        return next((each for each in reversed(self._stretches) if each.cut_by_commit and not each.manual), None)

    def _cut(self, setup: LiveSetup) -> None:
        self._live.cut(setup)
        self._stretches.append(self._new_stretch())

    def _new_stretch(self) -> _Stretch:
        return _Stretch(self._manual, self._setup.options.decode)


def _lacks_sound(stretch: _Stretch) -> bool:
    return stretch.turn is not None and stretch.turn.committed and stretch.turn.item.sound is None


def _nothing_to_commit(seconds: float) -> ApiError:
    least = f"{LEAST_SECONDS * 1000:.0f} ms"
    message = f"Error committing input audio buffer: at least {least} of new sound are needed, and {seconds * 1000:.0f}"
    return ApiError(400, f"{message} ms are there.", "input_audio_buffer_commit_empty")
