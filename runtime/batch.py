"""Batches: segments of a clip in; the events of their answers out, several decoded in the same passes.

    segment 0 -> encoders -> audio tokens 0 ┐
    segment 1 -> encoders -> audio tokens 1 ┼─ language model, a sequence each, a token of every one in a pass ─► Finals
    segment 2 -> encoders -> audio tokens 2 ┘

A pass reads all weights once, whatever the number of its rows: where reading them is what takes the time, several
segments take little more than one. Passes of more rows round otherwise, and what is quantized on the way makes more of
it, which can turn a near tie: so it is for who asks for it. Greedy alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from ..models.errors import AuricleError, InputError
from .audio.selection import MAIN, Selection
from .audio.split import Segment
from .engine import Audio, Engine
from .events import AnswerEvent, Decoded, Final, Piece, SegmentStarted
from .llm.sampling import Generation
from .llm.speculative import reply_to_each
from .llm.stopping import cut_at

MAX_BATCH = 32


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
) -> Iterator[AnswerEvent]:
    """Engine.stream of one clip, so many of its segments decoded together. Raises InputError, RunError."""
    generation = generation or engine.defaults
    require_batch(batch, generation)
    prompt = engine.prompt.prompt_for(prompt_or_task)
    if batch == 1 or engine.prompt.n_audios(prompt) != 1:  # which says what is wrong
        yield from engine.stream(clip, prompt, generation, selection)
        return
    engine.require_aligner(prompt, generation)
    yield from answer_segments(engine, engine.audible_segments(clip, selection), prompt, generation, batch)


def answer_segments(
    engine: Engine, segments: Iterable[Segment], prompt: str, generation: Generation, batch: int = 1
) -> Iterator[AnswerEvent]:
    """What Engine.stream tells of segments with sound, so many decoded together. Raises InputError, RunError.

    What the segments raise comes behind the answers to those before it.
    """
    for group in _groups(segments, batch):
        if len(group) == 1:
            yield _started(group[0])
            yield from engine.answer(group, prompt, generation)
        else:
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
