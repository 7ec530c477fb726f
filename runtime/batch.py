"""Batches: segments of a clip in; the events of their answers out, several decoded at a time.

batch: in the same passes                        lanes: each in a session of its own, in a thread of its own
    segment 0 -> encoders ┐                          segment 0 -> encoders -> language model ─► Final
    segment 1 -> encoders ┼─ language model ─► Finals    segment 1 -> encoders -> language model ─► Final
    segment 2 -> encoders ┘

A pass reads all weights once, whatever the number of its rows: where reading them is what takes the time, several
segments take little more than one. Passes of more rows round otherwise, and what is quantized on the way makes more of
it, which can turn a near tie: so it is for who asks for it, and greedy alone. On lanes every answer is to the last bit
what it is alone: where a small model leaves cores idle they are used so.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from queue import SimpleQueue

from ..models.errors import AuricleError, InputError
from .audio.selection import MAIN, Selection
from .audio.split import Segment
from .engine import Audio, Engine
from .events import AnswerEvent, Decoded, Final, Piece, SegmentStarted
from .llm.sampling import Generation
from .llm.speculative import reply_to_each
from .llm.stopping import cut_at
from .scheduler import Priority, Scheduler

MAX_BATCH = 32
_Answering = SimpleQueue[AnswerEvent | BaseException | None]
"""Events of a group, then None or what went wrong."""


def require_batch(batch: int, generation: Generation) -> None:
    """Raises InputError for a number of segments that cannot be, or an answer that is not decoded greedily."""
    if not 1 <= batch <= MAX_BATCH:
        raise InputError(f"batch={batch} is not possible: it must be from 1 to {MAX_BATCH}")
    if batch > 1:
        generation.require_greedy("batches of segments")


def stream_in_batches(
    engine: Engine,
    clip: Audio,
    prompt_or_task: str,
    batch: int,
    generation: Generation | None = None,
    selection: Selection = MAIN,
    lanes: int = 1,
) -> Iterator[AnswerEvent]:
    """Engine.stream of one clip, so many of its segments decoded together, on so many lanes of the engine.

    Raises InputError, RunError.
    """
    generation = generation or engine.defaults
    require_batch(batch, generation)
    prompt = engine.prompt.prompt_for(prompt_or_task)
    if batch == lanes == 1 or engine.prompt.n_audios(prompt) != 1:  # which says what is wrong
        yield from engine.stream(clip, prompt, generation, selection)
        return
    engine.require_aligner(prompt, generation)
    yield from answer_segments(engine, engine.audible_segments(clip, selection), prompt, generation, batch, lanes)


def answer_segments(
    engine: Engine, segments: Iterable[Segment], prompt: str, generation: Generation, batch: int = 1, lanes: int = 1
) -> Iterator[AnswerEvent]:
    """What Engine.stream tells of segments with sound, so many decoded together, on so many lanes of the engine.

    What the segments raise comes behind the answers to those before it. Raises InputError, RunError.
    """
    groups = _groups(segments, batch)
    if lanes > 1:
        yield from _side_by_side(engine, groups, prompt, generation, lanes)
        return
    for group in groups:
        yield from _answer_group(engine, group, prompt, generation)


def _side_by_side(
    engine: Engine, groups: Iterator[list[Segment]], prompt: str, generation: Generation, lanes: int
) -> Iterator[AnswerEvent]:
    """Each group's events, in order, as they come, while groups behind it are decoded too."""
    scheduler = Scheduler(engine, n_lanes=lanes)
    keywords = engine.keywords
    under_way: deque[_Answering] = deque()
    failed: AuricleError | None = None
    more = True

    def answer(group: list[Segment], told: _Answering) -> None:
        stream = scheduler.stream()
        stream.keywords = keywords
        try:
            with stream.turn(Priority.BATCH) as lane:
                for event in _answer_group(lane, group, prompt, generation):
                    told.put(event)
        except BaseException as error:
            told.put(error)
        else:
            told.put(None)

    with ThreadPoolExecutor(lanes, "auricle-lane") as threads:
        try:
            while more or under_way:
                while more and len(under_way) <= lanes:  # one waits, so that no lane does
                    try:
                        group = next(groups, None)
                    except AuricleError as error:
                        failed, group = error, None
                    more = group is not None
                    if group is not None:
                        under_way.append(_Answering())
                        threads.submit(answer, group, under_way[-1])
                if under_way:
                    yield from _told(under_way.popleft())
        finally:
            scheduler.close()  # what nobody waits for any more ends at its next pass
    if failed is not None:
        raise failed


def _told(answering: _Answering) -> Iterator[AnswerEvent]:
    while (event := answering.get()) is not None:
        if isinstance(event, BaseException):
            raise event
        yield event


def _answer_group(engine: Engine, group: list[Segment], prompt: str, generation: Generation) -> Iterator[AnswerEvent]:
    if len(group) == 1:
        yield _started(group[0])
        yield from engine.answer(group, prompt, generation)
        return
    for segment, final in zip(group, _answer_together(engine, group, prompt, generation), strict=True):
        yield _started(segment)
        if final.text:
            yield Piece(final.text)
        yield final


def _answer_together(
    engine: Engine, segments: Sequence[Segment], prompt: str, generation: Generation
) -> Iterator[Final]:
    """Each one's Final; of the language model's time each has an even share. max_seconds are theirs together."""
    started = time.monotonic()
    if generation.max_seconds is not None:
        generation = replace(generation, max_seconds=generation.max_seconds * len(segments))
    with engine.exclusive:
        encoded = [engine.encode(segment.waveform) for segment in segments]
        limits = [engine.most_tokens(prompt, each.end_s - each.start_s, generation) for each in segments]
        tokens = [each.audio_tokens for each in encoded]
        found = reply_to_each(engine.llm, tokens, prompt, limits, generation, started)
    for segment, each, reply in zip(segments, encoded, found.replies, strict=True):
        n = len(segments)
        text = cut_at(engine.llm.text(reply.ids), generation.stop).strip()
        timings = each.timings(found.prefill_ms / n, found.decode_ms / n, len(reply.ids))
        sure = engine.bundle.manifest.generation.is_sure(reply.avg_logprob)
        decoded = Decoded(text, reply.ids, timings, reply.finish_reason, reply.avg_logprob, confident=sure)
        final = decoded.final(segment.start_s, segment.end_s, prompt)
        asked = generation.words or generation.min_support is not None
        yield engine.aligned(final, segment.waveform, generation) if asked else final


def _groups(segments: Iterable[Segment], n: int) -> Iterator[list[Segment]]:
    """n at a time and then the rest, also before what they raise."""
    group: list[Segment] = []
    try:
        for segment in segments:
            group.append(segment)
            if len(group) == n:
                yield group
                group = []
    except AuricleError:
        if group:
            yield group
        raise
    if group:
        yield group


def _started(segment: Segment) -> SegmentStarted:
    return SegmentStarted(segment.start_s, segment.end_s, alone=segment.last and segment.start_s == 0)
