"""Connection: one client's events -> commands and sentences, one at a time, and what came of them.

    client ─► reader ─► take ─► Command, Sentence ─► a thread, turns on the engine
       ▲                                                 │
       └───────────────── writer ◄───────────────────────┘

The reader never waits for the model: a client that goes away ends what was worked on for it. What goes wrong is told
as `error`, and the connection is closed: older Home Assistants skip the event.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from wyoming.asr import Transcript, TranscriptChunk, TranscriptStart, TranscriptStop
from wyoming.error import Error
from wyoming.event import Event, Eventable, async_write_event
from wyoming.handle import Handled, HandledChunk, HandledStart, HandledStop, NotHandled
from wyoming.info import Info
from wyoming.intent import NotRecognized
from wyoming.ping import Pong

from ....models.errors import InputError
from ...events import Final, Piece
from ..errors import ApiError, api_error, log_failure
from ..jobs import in_thread
from ..openai.deltas import Deltas
from ..service import Service
from .answers import Answerer, RecentSounds, Sentence
from .commands import Command, CommandRequest, Heard, command_request
from .framing import EventReader, bad_event
from .info import ASR, HANDLE, INTENT
from .options import WyomingOptions
from .pcm import pcm_format

IDLE_SECONDS = 60.0
"""Between two events of a client that waits for nothing."""
LINGER_SECONDS = 2.0
"""For a client to read what went wrong, while it may still send."""
NOT_HANDLED, NOT_RECOGNIZED = "I have no answer to that.", "I did not understand that."
MAX_TEXT = 4000  # characters of a sentence


@dataclass(frozen=True)
class Shared:
    """What all connections share."""

    service: Service
    options: WyomingOptions
    info: Info
    answerer: Answerer | None
    """None: nothing is answered."""
    sounds: RecentSounds = field(default_factory=RecentSounds)


class _Gone(Exception):
    """The client has."""


class Connection:
    """One client, from its first event to its last."""

    def __init__(self, shared: Shared, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._shared = shared
        self._service = shared.service
        self._reader = reader
        self._events = EventReader(reader, shared.service.options.body_seconds)
        self._writer = writer
        self._writing = asyncio.Lock()
        self._request: CommandRequest | None = None
        self._command: Command | None = None
        """The one whose sound comes now."""
        self._job: asyncio.Task[None] | None = None
        self._answered = False
        """The job has said all, and is about to be done."""

    async def run(self) -> None:
        """Until the client goes, something fails, or the server stops."""
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._read(tasks)
        except ExceptionGroup as group:
            await self._end(group.exceptions[0])
        finally:
            self._drop_command()
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()

    def finish(self) -> None:
        """The server stops: what was said until now is the command."""
        if self._command is not None:
            self._command.stop()

    @property
    def busy(self) -> bool:
        """Something is worked on."""
        return self._job is not None and not self._job.done()

    async def _read(self, tasks: asyncio.TaskGroup) -> None:
        seconds = self._service.options.header_seconds
        while await self._begun(seconds):
            if (event := await self._events.read()) is None:
                break
            await self._take(event, tasks)
            seconds = IDLE_SECONDS
        raise _Gone

    async def _begun(self, seconds: float) -> bool:
        while True:
            try:
                async with asyncio.timeout(seconds):
                    return await self._events.begun()
            except TimeoutError:
                if self._command is not None or not self.busy:
                    raise ApiError(408, f"Nothing came for {seconds:g} s.", "timeout") from None

    async def _take(self, event: Event, tasks: asyncio.TaskGroup) -> None:
        """Raises ApiError, InputError."""
        if event.type == "describe":
            await self._send(self._shared.info)
        elif event.type == "ping":
            await self._send(Pong(text=_text(event, required=False)))
        elif event.type == "select-program":
            if event.data.get("name") not in self._programs():
                raise bad_event(f"this service has the programs {', '.join(self._programs())}")
        elif event.type == "transcribe":
            self._request = self._requested(event)
        elif event.type == "audio-start":
            pcm_format(event.data)
            await self._begin_command(tasks)
        elif event.type == "audio-chunk":
            command = self._command or await self._begin_command(tasks)
            command.push(event.payload or b"", pcm_format(event.data))
        elif event.type == "audio-stop":
            (self._command or await self._begin_command(tasks)).stop()
            self._command = None
        elif event.type in ("transcript", "recognize"):
            await self._begin(tasks, partial(self._answer, _text(event), event.type == "recognize"))

    def _requested(self, event: Event) -> CommandRequest:
        return command_request(self._service, event.data, self._shared.options.names)

    def _programs(self) -> list[str]:
        return [ASR, *{"handle": [HANDLE], "intent": [INTENT]}.get(self._shared.options.answers, [])]

    async def _begin_command(self, tasks: asyncio.TaskGroup) -> Command:
        """Nothing of the command before is left in it, its request included."""
        if self._command is not None and self._job is not None:
            self._job.cancel()  # its sound begins anew
            self._drop_command()
            self._job = None
        request = self._request or self._requested(Event("transcribe"))
        self._request = None
        keeps_sound = self._shared.answerer is not None
        command = Command(self._service, request, self._shared.options.vad, keeps_sound)
        await self._begin(tasks, partial(self._transcribe, command), live=True)
        self._command = command
        return command

    def _drop_command(self) -> None:
        if self._command is not None:
            self._command.stop()
            self._command = None

    async def _begin(self, tasks: asyncio.TaskGroup, work: Callable[[], Awaitable[None]], live: bool = False) -> None:
        if self._job is not None and not self._job.done():
            if not self._answered:
                raise bad_event("one thing at a time: wait for the answer")
            await asyncio.wait({self._job})
        self._answered = False
        self._job = tasks.create_task(self._work(work, live))

    async def _work(self, work: Callable[[], Awaitable[None]], live: bool) -> None:
        with self._service.session("wyoming", live):
            await work()

    async def _transcribe(self, command: Command) -> None:
        language = command.request.language
        await self._send(TranscriptStart(language=language))
        async with aclosing(in_thread(self._service, command.stream, command.hear)) as heard:
            async for each in heard:
                if isinstance(each, Heard):
                    await self._send_transcript(each, language)
                else:
                    await self._send(TranscriptChunk(text=each))

    async def _send_transcript(self, heard: Heard, language: str) -> None:
        if heard.sound is not None and heard.text:
            self._shared.sounds.remember(heard.text, heard.sound)
        await self._send_last(Transcript(text=heard.text, language=language), TranscriptStop())

    async def _answer(self, text: str, recognize: bool) -> None:
        answerer = self._shared.answerer
        if answerer is None or (recognize and not answerer.intents):
            await self._send_last(NotRecognized(text=NOT_RECOGNIZED) if recognize else NotHandled(text=NOT_HANDLED))
            return
        sentence = Sentence(text, self._shared.sounds.take(text))
        stream = self._service.stream()
        pieces = in_thread(self._service, stream, lambda: answerer.answer(self._service, stream, sentence))
        try:
            if answerer.intents:
                final = await _last(pieces)
                intent = final and answerer.intent(final)
                await self._send_last(intent or NotRecognized(text=NOT_RECOGNIZED))
            else:
                await self._handle(pieces)
        except InputError:  # of this bundle nothing can be asked about that
            no = NotRecognized(text=NOT_RECOGNIZED) if answerer.intents else NotHandled(text=NOT_HANDLED)
            await self._send_last(no)

    async def _handle(self, pieces: AsyncGenerator[Piece | Final]) -> None:
        deltas = Deltas()
        begun = False
        final: Final | None = None
        async with aclosing(pieces) as events:
            async for event in events:
                if isinstance(event, Final):
                    final = event
                elif grown := deltas.add(event.text):
                    await self._send(*([] if begun else [HandledStart()]), HandledChunk(text=grown))
                    begun = True
        if final is None or not final.text:
            await self._send_last(NotHandled(text=NOT_HANDLED))
        else:
            await self._send_last(Handled(text=final.text), HandledStop())

    async def _send_last(self, *events: Eventable) -> None:
        self._answered = True
        await self._send(*events)

    async def _send(self, *events: Eventable) -> None:
        """Raises ConnectionError; a client that does not take it in time is gone."""
        try:
            async with self._writing, asyncio.timeout(self._service.options.send_seconds):
                for event in events:
                    await async_write_event(event.event(), self._writer)
        except TimeoutError:
            raise ConnectionError("the client does not read") from None

    async def _end(self, error: Exception) -> None:
        if isinstance(error, _Gone | OSError):
            return
        log_failure(error)
        told = api_error(error)
        with contextlib.suppress(OSError, TimeoutError):
            await self._send(Error(text=str(told), code=told.code))
            self._writer.write_eof()
            async with asyncio.timeout(LINGER_SECONDS):
                while await self._reader.read(1 << 16):
                    pass


async def _last(pieces: AsyncGenerator[Piece | Final]) -> Final | None:
    final: Final | None = None
    async with aclosing(pieces) as events:
        async for event in events:
            if isinstance(event, Final):
                final = event
    return final


def _text(event: Event, required: bool = True) -> Any:
    """Raises ApiError."""
    text = event.data.get("text")
    if not (isinstance(text, str) and len(text) <= MAX_TEXT) and (required or text is not None):
        raise bad_event(f"text must be a text of at most {MAX_TEXT} characters")
    return text
