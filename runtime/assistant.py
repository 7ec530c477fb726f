"""The voice assistant: a source of sound in, events with its answers out; it stops when somebody speaks (barge-in).

    ear ─► SpeechStarted ... SpeechEnded ─► encoders ─► conversation ─► Piece, Piece, ... Answered
     ▲                                                     │ a token
     └───────── has the gate opened? then stop ◄───────────┘ at a time

One thread: between two tokens the ear is asked what it has heard, and while the encoders work the source keeps the
sound. What was said before an interruption stays in the conversation.

The answer is begun when a pause begins, and held back until the gate has closed; speech that goes on takes it back.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from typing import Any

from ..models.audio import Waveform
from ..models.errors import RunError
from .assistant_options import AssistantOptions, answer_generation, default_prompt
from .engine import Engine
from .events import (
    Answered,
    AssistantEvent,
    Decoded,
    FinishReason,
    KeywordsRead,
    Piece,
    SessionEnded,
    SpeechEnded,
    SpeechStarted,
    Timings,
)
from .live.gate import Closed, Opened
from .live.segmenter import GateProgress, Segmenter, SegmenterEvent, open_gate, seconds
from .live.speculation import AnswerAhead, Speculated
from .llm.conversation import Conversation
from .llm.grammar.json_schema import JsonSchema
from .sources.playback import Source
from .tts import Sentences, Speaker

POLL_SECONDS = 0.1
NOTHING = Timings({}, 0.0, 0.0, 0.0, 0, 0)


class Assistant:
    """Answers what is said to it. `stop` may be called from any thread; the engine is used by nobody else meanwhile.

    on_intent: called with the value of every whole JSON answer that is sure enough, before its Answered comes.
    """

    def __init__(
        self,
        engine: Engine,
        options: AssistantOptions | None = None,
        on_intent: Callable[[Any], object] | None = None,
    ) -> None:
        self._engine = engine
        self._options = options or AssistantOptions()
        self._on_intent = on_intent
        self._session: _Session | None = None
        self._stopped = threading.Event()

    def run(self, source: Source) -> Generator[AssistantEvent]:
        """One session, a conversation of its own, until the source ends; the source is closed then.

        Raises RunError behind SessionEnded when the command to speak has failed; from there on nothing was spoken.
        """
        if self._session is not None:
            self._stopped = threading.Event()
        self._session = _Session(self._engine, self._options, self._on_intent, source, self._stopped)
        return self._session.events()

    def stop(self) -> None:
        """End the session where it is, or the first before it begins: an answer stops, SessionEnded comes.

        Twice is fine; a session that is run after another is not stopped by what was meant for that one.
        """
        self._stopped.set()
        if self._session is not None:
            self._session.stop()


class _Session:
    def __init__(
        self,
        engine: Engine,
        options: AssistantOptions,
        on_intent: Callable[[Any], object] | None,
        source: Source,
        stopped: threading.Event,
    ) -> None:
        self._engine = engine
        self._options = options
        self._on_intent = on_intent
        self._prompt = engine.prompt.prompt_for(options.prompt) if options.prompt else default_prompt(engine)
        self._schema = None if options.json_schema is None else JsonSchema(options.json_schema)
        self._generation = answer_generation(engine, options, self._prompt, self._schema)
        least = engine.bundle.manifest.generation.min_avg_logprob
        self._min_avg_logprob = least if options.min_avg_logprob is None else options.min_avg_logprob
        self._conversation = Conversation(engine.llm, options.system)
        self._ear = Segmenter(source, open_gate(engine, options.gate, vad=True))
        self._speaker: Speaker | None = None
        self._mute: RunError | None = None
        """Why nothing is spoken any more."""
        self._waiting: deque[SegmenterEvent] = deque()
        """What was heard and not dealt with yet."""
        self._expected: Closed | None = None
        """What the gate closes with if nobody goes on."""
        self._ahead: AnswerAhead | None = None
        self._speculated = Speculated()
        self._answering = False
        self._interruption: FinishReason | None = None
        """What ends the answer that is decoded now."""
        self._own_voice: set[int] = set()
        """Starts of segments that came while the assistant spoke, and must not be answered."""
        self._stopped = stopped

    def stop(self) -> None:
        self._stopped.set()
        self._ear.close()

    def events(self) -> Generator[AssistantEvent]:
        with closing(self._ear), ExitStack() as stack:
            if not self._stopped.is_set():
                yield from self._read_keywords(0.0)
                self._prepare(stack)
                while (event := self._next()) is not None:
                    yield from self._take(event)
                self._finish_speaking()
            yield SessionEnded(**self._ear.balance(), **self._speculated.balance())
            if self._mute is not None:
                raise self._mute

    def _prepare(self, stack: ExitStack) -> None:
        options = self._options
        if self._generation.gbnf is not None:
            self._engine.llm.check_grammar(self._generation.gbnf)  # or say at once that it cannot be followed
        if options.speak is not None:
            self._speaker = stack.enter_context(closing(Speaker(options.speak)))
        self._reserve()  # or say at once that there is none

    def _read_keywords(self, at_s: float) -> Iterator[KeywordsRead]:
        keywords = self._options.keywords
        if keywords and (read := keywords.use(self._engine, at_s, self._reserve)):
            yield read

    def _next(self) -> SegmenterEvent | None:
        while not self._waiting:
            if not self._work_ahead() and not self._listen(POLL_SECONDS):
                return None
        return self._waiting.popleft()

    def _listen(self, timeout_s: float) -> bool:
        """Take in what has been heard; False when the source has ended. Whoever speaks now silences the speaker."""
        events = self._ear.poll(timeout_s)
        for event in events or ():
            self._expected = event.expected if isinstance(event, GateProgress) else None
            if isinstance(event, Opened) and self._speaker is not None and self._ear.realtime:
                if self._options.barge_in:
                    self._speaker.stop()
                elif self._answering or self._speaker.busy:
                    self._own_voice.add(event.start)
            if not isinstance(event, GateProgress):
                self._waiting.append(event)
        return events is not None

    def _take(self, event: SegmenterEvent) -> Iterator[AssistantEvent]:
        if isinstance(event, Opened):
            if event.start not in self._own_voice:
                yield SpeechStarted(seconds(event.start))
        elif isinstance(event, Closed):
            if event.start in self._own_voice:
                self._own_voice.remove(event.start)
                self._ear.done(event, decoded=False)
            else:
                yield SpeechEnded(seconds(event.start), seconds(event.end))
                if self._ahead is not None and not self._stands(self._ahead, event):
                    self._take_back(self._ahead)
                yield from self._read_keywords(seconds(event.end))
                yield from self._answer(event)
        elif not isinstance(event, GateProgress):
            yield event

    def _answer(self, closed: Closed) -> Iterator[Piece | Answered]:
        if self._stopped.is_set():
            self._ear.done(closed, decoded=False)
            yield self._answered(closed, Decoded("", (), NOTHING, "end"))
            return
        if (ahead := self._ahead) is None:
            decoding = self._decoding(closed)
        else:
            self._ahead = None
            self._speculated.spent(ahead.seconds, used=True)
            decoding = ahead.released()
        supported = self._generation.min_support is not None
        waveform = self._ear.read(closed.start, closed.end).copy() if supported else None
        self._ear.done(closed)
        decoded = yield from self._spoken(decoding, waveform)
        if decoded.finish_reason == "loop":
            self._conversation.keep(len(decoded.token_ids))
        yield self._answered(closed, decoded)
        self._reserve()

    def _decoding(self, closed: Closed) -> Generator[Piece, None, Decoded]:
        """The answer to a segment as it is decoded."""
        started = time.monotonic()
        encoded = self._engine.encode(self._ear.read(closed.start, closed.end))
        if not self._options.remember:
            self._conversation.forget()
        n_new = self._generation.max_new_tokens
        prefill = partial(self._conversation.prefill_audio, encoded.audio_tokens, self._prompt, n_new)
        generate = self._conversation.answer
        return self._engine.decode(encoded, prefill, generate, self._generation, started, self._interrupted)

    def _work_ahead(self) -> bool:
        """A step of the answer to a segment that pauses, while the gate waits; False when there is nothing to do."""
        expected = self._expected
        if self._ahead is not None and self._ahead.closed != expected:
            self._take_back(self._ahead)
        if expected is None or not self._speculates(expected):
            return False
        if self._ahead is None:
            started = time.perf_counter()
            self._ahead = AnswerAhead(expected, self._decoding(expected))
            self._ahead.seconds = time.perf_counter() - started
        if self._ahead.complete:
            return False
        self._ahead.advance()
        return True

    def _speculates(self, expected: Closed) -> bool:
        keywords = self._options.keywords
        return (
            self._options.speculate
            and self._ear.realtime
            and expected.start not in self._own_voice
            and (keywords is None or keywords.is_used(self._engine))
        )

    def _stands(self, ahead: AnswerAhead, closed: Closed) -> bool:
        """Whether it is the answer to this segment, with the keywords that there are now."""
        same = (ahead.closed.start, ahead.closed.end) == (closed.start, closed.end)
        return same and not self._stopped.is_set() and self._speculates(closed)

    def _take_back(self, ahead: AnswerAhead) -> None:
        """Nobody asked: as if it had not been begun."""
        ahead.close()
        self._ahead = None
        self._conversation.retract()
        self._speculated.spent(ahead.seconds, used=False)

    def _reserve(self) -> None:
        """For the next turn, while nobody waits for it."""
        n_new = self._generation.max_new_tokens
        self._conversation.reserve(self._engine.spec.n_audio_tokens, self._prompt, n_new)

    def _spoken(
        self, decoding: Generator[Piece, None, Decoded], waveform: Waveform | None
    ) -> Generator[Piece, None, Decoded]:
        """The answer's pieces as they come; its sentences go to the speaker, unless something interrupts it.

        Where it must be sure of an answer, none is spoken before its end. waveform: by which its support is judged.
        """
        sentences = Sentences()
        at_once = self._min_avg_logprob is None and waveform is None
        held: list[str] = []
        while True:
            try:
                piece = next(decoding)
            except StopIteration as end:
                decoded: Decoded = end.value
                break
            yield piece
            said = sentences.add(piece.text)
            if self._interruption is None and at_once:
                self._speak(said)
            elif not at_once:
                held += said
        if waveform is not None:
            final = self._engine.aligned(decoded.final(0.0, 0.0, self._prompt), waveform, self._generation)
            decoded = replace(decoded, support=final.support)
        self._answering = False
        if self._interruption is None and self._is_sure(decoded):
            self._speak([*held, *sentences.finish()])
        return decoded

    def _interrupted(self) -> FinishReason | None:
        """Whether the answer must end here, and why; asked between two tokens."""
        self._interruption = None
        if self._stopped.is_set():
            self._interruption = "end"
        elif self._ear.realtime:
            self._listen(0.0)
            if self._somebody_speaks():
                self._interruption = "speech"
        self._answering = self._ahead is None
        return self._interruption

    def _somebody_speaks(self) -> bool:
        """Whether the pause is not one that an answer was begun in, or somebody interrupts the answer."""
        if self._ahead is not None and not self._waiting:
            return self._expected != self._ahead.closed
        return self._options.barge_in and any(isinstance(event, Opened) for event in self._waiting)

    def _speak(self, sentences: list[str]) -> None:
        if self._speaker is None or self._mute is not None:
            return
        try:
            for sentence in sentences:
                self._speaker.say(sentence)
        except RunError as error:  # what is heard is still answered
            self._mute = error

    def _finish_speaking(self) -> None:
        if self._speaker is None or self._mute is not None:
            return
        try:
            while not self._speaker.finish(POLL_SECONDS) and not self._stopped.is_set():
                pass
        except RunError as error:
            self._mute = error

    def _answered(self, closed: Closed, decoded: Decoded) -> Answered:
        complete, intent = self._intent(decoded)
        return Answered(
            start_s=seconds(closed.start),
            end_s=seconds(closed.end),
            text=decoded.text,
            token_ids=decoded.token_ids,
            timings=decoded.timings,
            prompt=self._prompt,
            finish_reason=decoded.finish_reason,
            avg_logprob=decoded.avg_logprob,
            support=decoded.support,
            intent=intent,
            confident=self._is_sure(decoded),
            complete=complete,
            n_turns=self._conversation.n_turns,
        )

    def _is_sure(self, decoded: Decoded) -> bool:
        least = self._min_avg_logprob
        sure = least is None or (decoded.avg_logprob is not None and decoded.avg_logprob >= least)
        return sure and (decoded.support is None or decoded.support >= (self._generation.min_support or 0.0))

    def _intent(self, decoded: Decoded) -> tuple[bool, Any]:
        """Whether the answer is what was asked for, and with a schema its value, which `on_intent` is told."""
        if self._schema is None:
            return True, None
        try:
            intent = self._schema.value(decoded.text, decoded.finish_reason)
        except ValueError:
            return False, None
        if self._on_intent is not None and self._is_sure(decoded):
            self._on_intent(intent)
        return True, intent
