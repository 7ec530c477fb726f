"""Clips: a file of a client and a prompt -> the answers to its segments, each in a turn of its own.

A segment's whole answer is one turn: a lane has one KV cache, and whoever got it in between would have the question
read again. Between two segments everybody else can be answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ...models.audio import SAMPLE_RATE, Waveform
from ...models.errors import InputError
from ..audio.decode import open_audio
from ..audio.split import Segment, split_at_pauses
from ..events import AnswerEvent, Final, SegmentStarted
from ..llm.sampling import Generation
from ..scheduler import EngineStream, Priority
from .service import Service

NAME = "the file"
"""What errors call it: where it lies is nobody's business."""


@dataclass(frozen=True)
class ClipEnded:
    """The whole clip was heard."""

    seconds: float


def answer_clip(
    service: Service, stream: EngineStream, path: str, prompt: str, generation: Generation
) -> Iterator[AnswerEvent | ClipEnded]:
    """Each segment's start, its text as it is decoded, a Final at its end; ClipEnded last. Silence has no answer.

    Raises AudioError, InputError, RunError; Cancelled.
    """
    end_s = 0.0
    for segment in segments(service, path):
        stream.check()
        end_s = segment.end_s
        if segment.silent:
            continue
        with stream.turn(Priority.BATCH) as engine:
            yield SegmentStarted(segment.start_s, segment.end_s, segment.last and segment.start_s == 0)
            for event in engine.answer([segment], prompt, generation):
                if isinstance(event, Final):
                    service.metrics.answered(event.end_s - event.start_s)
                yield event
    yield ClipEnded(end_s)


def segments(service: Service, path: str) -> Iterator[Segment]:
    """A client's file in segments that the model can hear. Raises AudioError; InputError when it is too long."""
    chunks = _limited(open_audio(path, name=NAME), service.options.max_seconds)
    return split_at_pauses(chunks, service.engine.spec.seconds)


def _limited(chunks: Iterable[Waveform], max_seconds: float) -> Iterator[Waveform]:
    """Counted while it is decoded: 25 MB of Opus can hold 8 hours."""
    n = 0
    for chunk in chunks:
        n += len(chunk)
        if n > max_seconds * SAMPLE_RATE:
            raise InputError(f"{NAME} holds more than {max_seconds:g} s of sound, which is the most here: send less")
        yield chunk
