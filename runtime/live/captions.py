"""Live captions: a source -> interim results (Caption) every hop, and one Final for each segment.

    segmenter ─► SpeechStarted
           every hop: encoders over the segment ─► audio tokens, the last hypothesis as draft ─► Caption
           a pause: the same up to where it would end the segment, shown to nobody
           at its end: the same once more, unless that was it ─► Final

None of the encoders is causal, so nothing of them survives a hop; of the language model the prefix's KV does, and with
`settle_s` that of older windows until the final, which is exact. Updates never queue: one that is late works on the
newest audio. Where several sessions share the engine each decode is a turn, and what comes while it is waited for is
heard too; the hop grows with the load, and an update that comes late all the same asks the first question alone. Finals
ask all.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial

from ...models.audio import SAMPLE_RATE
from ...models.errors import InputError
from ...models.prompt import nonempty
from ..engine import Engine
from ..events import Caption, Final, Lagging, LiveEvent, SegmentComplete, SessionEnded, SpeechStarted
from ..keywords import Keywords
from ..llm.sampling import Generation
from ..scheduler import EngineStream, Priority
from ..sources.source import Source
from ..stream_load import LONGEST_HOP_SECONDS, Load
from .agreement import Agreement
from .gate import Closed, GateOptions, Opened
from .incremental import Hypotheses, IncrementalDecoder, IncrementalOptions
from .open_segment import OpenSegment, also_answers, decoded_end, is_due
from .segmenter import GateProgress, Segmenter, SegmenterEvent, open_gate, seconds
from .speculation import SegmentDecoder, Speculated
from .timed import LiveAligner

POLL_SECONDS = 0.25
LATE = 1.5  # hops between two updates that count as lagging


@dataclass(frozen=True)
class LiveOptions:
    """What is asked of every segment, and how eagerly. Raises InputError for values that make no sense."""

    prompt: str = "asr"  # a task or a prompt
    also: tuple[str, ...] = ()  # further questions about the same audio; they share its prefill
    hop_ms: float = 500.0  # audio between two updates
    agreement: int = 2  # consecutive hypotheses that make text stable
    context: str | None = None  # "short": the segment alone is encoded; "full": its padded window; None: as trained
    settle_s: float | None = None  # updates do not read older audio tokens again; None: as IncrementalOptions
    vad: bool = True  # False: segments of gate.max_segment_s, for sounds and music
    gate: GateOptions = field(default_factory=GateOptions)
    generation: Generation | None = None  # greedy; max_seconds are for an update; None: as the bundle says
    keywords: Keywords | None = None  # words that may occur; a file of them is looked at again before every segment
    draft: bool = True  # False: every hypothesis is decoded token by token, for comparison
    speculate: bool = True  # False: a final is not computed before its pause is over
    segments: bool = False  # tell of every complete segment with its sound, before it is decoded
    decode: bool = True  # False: nothing is; who listens answers the segments himself

    def __post_init__(self) -> None:
        if not 50 <= self.hop_ms <= 30_000:
            raise InputError(f"hop_ms {self.hop_ms:g} must be 50 to 30000 ms of audio between two updates")
        if self.agreement < 1:
            raise InputError(f"agreement {self.agreement} must be at least 1 hypothesis")
        if self.context not in (None, "full", "short"):
            raise InputError(f"context {self.context!r} must be full or short")
        if self.settle_s is not None and not 0 <= self.settle_s < math.inf:
            raise InputError(f"settle_s {self.settle_s:g} must be 0 s or more")
        if self.generation is not None:
            self.generation.require_greedy()
        for prompt in (self.prompt, *self.also):
            nonempty(prompt)


class Live:
    """One session of live captions: iterate over it once. `stop` and `ask` may be called from any thread.

    stream: where others use the engine too, who asks for turns; then another thread may also cancel it.
    """

    def __init__(
        self, engine: Engine, source: Source, options: LiveOptions | None = None, stream: EngineStream | None = None
    ) -> None:
        self._engine = engine
        self._stream = stream
        self._load = Load() if stream is None else stream.load
        self._catches_up = stream is not None and source.realtime  # sound comes while the engine is waited for
        self._options = options or LiveOptions()
        self._keywords = self._options.keywords
        self._new_keywords = self._keywords is not None
        self._generation = self._options.generation or engine.greedy_defaults
        self.ask(self._options.prompt, self._options.also)
        engine.require_aligner(self._prompts[0], self._generation)
        self._segmenter = Segmenter(source, open_gate(engine, self._options.gate, self._options.vad))
        self._hop = int(self._options.hop_ms / 1e3 * SAMPLE_RATE)
        self._segment: OpenSegment | None = None
        self._events: deque[SegmenterEvent] = deque()
        """What has come and is not dealt with yet."""
        self._lag_s = 0.0  # what Lagging said last
        self.full = False
        """The newest Final's segment ended because it was full, and not at a pause."""
        self.was_ready = False
        """Nothing was left to compute for the newest Final when its segment ended."""
        self.speculated = Speculated()
        """What was computed ahead so far."""
        self._aligner = LiveAligner(engine, self._generation, self.speculated)
        self._scale: float | None = None  # what the LoRA's is to be from the next segment on
        if self._generation.gbnf is not None:
            with self._turn(Priority.UPDATE, time.monotonic()) as lane:
                lane.llm.check_grammar(self._generation.gbnf)  # or say at once that it cannot be followed

    def ask(self, prompt: str, also: Sequence[str] = ()) -> None:
        """Other questions, from the next segment on. Raises InputError for what is no prompt, or one without room."""
        prompts = tuple(self._engine.prompt.prompt_for(each) for each in (prompt, *also))
        self._require_room(prompts, None if self._stream is None else self._stream.keywords)
        self._prompts = prompts

    def _require_room(self, prompts: Sequence[str], keywords: Sequence[str] | None = None) -> None:
        n_audio_tokens = self._engine.spec.n_audio_tokens
        for each in prompts:
            self._engine.llm.require_positions(each, n_audio_tokens, self._generation.max_new_tokens, keywords)

    def use_keywords(self, keywords: Keywords) -> None:
        """Other words that may occur, from the next segment on. Raises InputError when they leave no room."""
        self._require_room(self._prompts, keywords.words[: self._engine.prompt.max_keywords])
        self._keywords = keywords
        self._new_keywords = True

    def set_lora_scale(self, scale: float) -> None:
        """The LoRA's scale from the next segment on. Raises InputError when the bundle has no adapter."""
        self._engine.llm.require_adapter(scale)
        self._scale = scale

    @property
    def trained_scale(self) -> float:
        """At which the LoRA was trained."""
        return self._engine.spec.lora.scale

    @property
    def lora_scale(self) -> float:
        """As it is, or will be from the next segment on."""
        if self._scale is not None:
            return self._scale
        return self._engine.llm.lora_scale if self._stream is None else self._stream.lora_scale

    @property
    def tasks(self) -> dict[str, str]:
        """What can be asked by name."""
        return self._engine.prompt.tasks

    @property
    def level_dbfs(self) -> float:
        """How loud the newest sound is."""
        return self._segmenter.level_dbfs

    @property
    def received_s(self) -> float:
        """How much sound has come, gaps included."""
        return self._segmenter.received_s

    def stop(self) -> None:
        """End the session: the segment that is open is finished, then SessionEnded comes. Twice is fine."""
        self._segmenter.close()

    def __iter__(self) -> Generator[LiveEvent]:
        try:
            yield from self._prepare(0.0)
            while (event := self._next()) is not None:
                yield from self._take(event)
            yield SessionEnded(**self._segmenter.balance(), **self.speculated.balance())
        finally:
            self._segmenter.close()
            self._spoken()

    def _next(self) -> SegmenterEvent | None:
        while not self._events:
            if (events := self._segmenter.poll(POLL_SECONDS)) is None:
                return None
            self._events += events
        return self._events.popleft()

    def _take(self, event: SegmenterEvent) -> Iterator[LiveEvent]:
        if isinstance(event, Opened):
            yield from self._prepare(seconds(event.start))
            agreement = Agreement(self._options.agreement)
            decoder = self._decoder(event.start)
            self._segment = OpenSegment(event.start, decoder, agreement, event.start, time.monotonic())
            if self._options.decode:
                self._load.begin(self)
            yield SpeechStarted(seconds(event.start))
        elif isinstance(event, Closed):
            yield from self._complete(event)
            if not self._options.decode:
                self._spoken()
                self._segmenter.done(event, decoded=False)
                return
            assert self._segment is not None, "a segment was closed that was never opened"
            is_decoded = self._segment.decoder.has(event.end)
            needed = not is_decoded or not self._aligner.has(self._segment.decoder, event.end)
            with self._turn(Priority.FINAL, time.monotonic(), needed=needed) as engine:
                final = self._finish(engine, event)
            yield final
        elif isinstance(event, GateProgress):
            yield from self._update(event)
        else:
            yield event

    def _decoder(self, start: int) -> SegmentDecoder:
        short = None if self._options.context is None else self._options.context == "short"
        options = IncrementalOptions(short, self._options.settle_s, self._generation, self._options.draft)
        decoder = IncrementalDecoder(self._engine, self._prompts, options)
        return SegmentDecoder(decoder, partial(self._segmenter.read, start), self.speculated)

    def _turn(
        self, priority: Priority, since: float, promote: Callable[[], bool] | None = None, needed: bool = True
    ) -> AbstractContextManager[Engine]:
        """The engine or a lane of it, which nobody else uses meanwhile; not needed: whether the stream is wanted."""
        if self._stream is not None and needed:
            return self._stream.turn(priority, since, promote)
        if self._stream is not None:
            self._stream.check()
        return nullcontext(self._engine)

    def _prepare(self, at_s: float) -> Iterator[LiveEvent]:
        """What was changed meanwhile: keywords, the LoRA's scale."""
        keywords = self._keywords
        changes = self._new_keywords or self._scale is not None or (keywords is not None and keywords.may_change)
        if self._stream is not None and not changes:
            return  # a turn would be waited for in vain
        with self._turn(Priority.UPDATE, time.monotonic()) as engine:
            self._new_keywords = False
            read = keywords and keywords.use(engine, at_s, lambda: self._require_room(self._prompts, engine.keywords))
            if (scale := self._scale) is not None:
                engine.llm.set_lora_scale(scale)
                if self._scale == scale:  # or a key was pressed meanwhile
                    self._scale = None
        if read:
            yield read

    def _complete(self, closed: Closed) -> list[SegmentComplete]:
        if not self._options.segments:
            return []
        waveform = self._segmenter.read(closed.start, closed.end).copy()
        return [SegmentComplete(seconds(closed.start), seconds(closed.end), closed.reason, waveform)]

    def _update(self, progress: GateProgress) -> Iterator[LiveEvent]:
        """A Caption, when it is due, about the newest audio. In a pause, what its end will be is decoded ahead."""
        segment = self._segment
        if segment is None or (self._segmenter.realtime and not progress.newest) or not self._options.decode:
            return
        due = self._is_due(segment, progress)
        if segment.decoder.has(decoded_end(progress)):
            yield from self._caption(self._engine, segment, progress) if due else ()
            self._align_ahead(segment, progress)
            return
        if not due and not self._speculates(progress):
            return
        events: list[LiveEvent] = []
        promote = self._closed_meanwhile if self._catches_up else None
        with self._turn(Priority.UPDATE, segment.shown_at, promote) as engine:
            newest = self._newest(progress)
            if isinstance(newest, Closed):
                events = [*self._complete(newest), self._finish(engine, newest)]
            elif self._is_due(segment, newest):
                events = self._caption(engine, segment, newest)
            elif self._speculates(newest):
                segment.decoder.ahead(engine, decoded_end(newest))
        yield from events

    def _align_ahead(self, segment: OpenSegment, progress: GateProgress) -> None:
        """In a pause that goes on after the segment was decoded."""
        end = decoded_end(progress)
        if self._speculates(progress) and not self._aligner.has(segment.decoder, end):
            with self._turn(Priority.UPDATE, segment.shown_at):
                final = segment.final(seconds(end), segment.decoder.newest)
                self._aligner.ahead(final, segment.decoder, end)

    def _hop_now(self) -> int:
        """Samples between two updates: more than asked for where many speak."""
        return round(self._load.hop_s(seconds(self._hop)) * SAMPLE_RATE) if self._catches_up else self._hop

    def _spoken(self) -> None:
        """No segment is open any more."""
        self._segment = None
        self._load.end(self)

    def _is_due(self, segment: OpenSegment, progress: GateProgress) -> bool:
        return is_due(segment, progress, self._hop_now())

    def _speculates(self, progress: GateProgress) -> bool:
        """Whether the gate waits for a pause to be over, and the time can be used: nobody else has need of it."""
        idle = self._segmenter.realtime and self._hop_now() == self._hop
        return self._options.speculate and idle and progress.expected is not None

    def _closed_meanwhile(self) -> bool:
        """Hears what has come while the engine was waited for: whether the segment is complete."""
        self._events += self._segmenter.poll(0.0) or ()
        return any(isinstance(event, Closed) for event in self._events)

    def _newest(self, progress: GateProgress) -> GateProgress | Closed:
        """How far the segment has come while the engine was waited for; nothing else happens before its end."""
        newest: GateProgress | Closed = progress
        if self._catches_up:
            self._closed_meanwhile()
            while isinstance(newest, GateProgress) and self._events:
                if not isinstance(event := self._events[0], GateProgress | Closed):
                    break
                newest = event
                self._events.popleft()
        return newest

    def _caption(self, engine: Engine, segment: OpenSegment, progress: GateProgress) -> list[LiveEvent]:
        lagging = self._lag(segment, progress.end)
        longest_s = LATE * max(seconds(self._hop), LONGEST_HOP_SECONDS)
        overloaded = self._catches_up and seconds(progress.end - segment.updated_at) > longest_s
        was_there = segment.decoder.has(end := decoded_end(progress))
        started = time.perf_counter()
        pausing = progress.expected is not None  # if the pause goes on, the final is what is found now
        found, latency_ms = self._decode(engine, segment, end, first_alone=overloaded, exact=pausing)
        segment.updated_at = progress.end
        stable, unstable = segment.agreement.caption()
        also = also_answers(segment.decoder, found)
        work = found.work(latency_ms, was_there)
        words = self._aligner.stable_words(stable, f"{stable} {unstable}", segment.decoder, end, self._load.update.mean)
        words = tuple(word.moved(seconds(segment.start)) for word in words)
        if not was_there:
            self._load.update.add(time.perf_counter() - started, seconds(end - segment.start))
        caption = Caption(seconds(segment.start), seconds(progress.end), stable, unstable, also, work, words)
        return [caption] if lagging is None else [lagging, caption]

    def _finish(self, engine: Engine, closed: Closed) -> Final:
        segment = self._segment
        assert segment is not None, "a segment was closed that was never opened"
        self.was_ready = segment.decoder.has(closed.end) and self._aligner.has(segment.decoder, closed.end)
        found, _ = self._decode(engine, segment, closed.end, first_alone=False, exact=True)
        final = self._aligner.final(segment.final(seconds(closed.end), found), segment.decoder, closed.end)
        self._spoken()
        took_s = segment.decoder.newest_s + self._aligner.newest_s
        self._load.add_final(took_s, seconds(closed.end - closed.start))
        self.full = closed.reason == "full"
        self._segmenter.done(closed)
        return final

    def _decode(
        self, engine: Engine, segment: OpenSegment, end: int, first_alone: bool, exact: bool
    ) -> tuple[Hypotheses, float]:
        started = time.perf_counter()
        found = segment.decoder.decode(engine, end, first_alone, exact)
        segment.shown_at = time.monotonic()
        segment.n_updates += 1
        segment.agreement.push(found.texts[0], seconds(end))
        return found, (time.perf_counter() - started) * 1e3

    def _lag(self, segment: OpenSegment, end: int) -> Lagging | None:
        """Say it once when updates come later than asked, and again when that changes much."""
        since_s = seconds(end - segment.updated_at)
        late = self._segmenter.realtime and segment.n_updates and since_s > LATE * seconds(self._hop)
        if not late or abs(since_s - self._lag_s) <= 0.5 * self._lag_s:
            return None
        self._lag_s = since_s
        return Lagging(seconds(end), since_s)


def captions(
    source: Source, engine: Engine, options: LiveOptions | None = None, stream: EngineStream | None = None
) -> Generator[LiveEvent]:
    """Live captions of a source until it ends: SpeechStarted, Caption ... Final, and SessionEnded last.

    Ending the iteration closes the source; one that was never begun leaves it open. stream: see Live.
    """
    return iter(Live(engine, source, options, stream))


async def captions_async(
    source: Source, engine: Engine, options: LiveOptions | None = None, stream: EngineStream | None = None
) -> AsyncIterator[LiveEvent]:
    """The same for an event loop, which goes on while a thread works; closing it stops the session."""
    live = await asyncio.to_thread(Live, engine, source, options, stream)
    events = iter(live)
    step: asyncio.Future[LiveEvent | None] | None = None
    try:
        while True:
            step = asyncio.ensure_future(asyncio.to_thread(next, events, None))
            if (event := await asyncio.shield(step)) is None:
                return
            yield event
    finally:
        live.stop()
        if step is not None and not step.done():
            await asyncio.wait({step})  # the thread still uses the engine, which may be closed next
        events.close()
