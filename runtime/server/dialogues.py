"""Dialogues: a system's text, turns with their sounds, the last a question -> its answer as it is decoded.

    one question about one sound             segment by segment, as a file
    one question about several               in one turn of the scheduler, where the prompt names them
    a system's text, more turns, or no sound in one turn: a lane has one KV cache, and whoever got it in between
                                             would have the dialogue read again

A client that reads slowly delays nobody, for the thread that decodes never waits for it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import numpy as np

from ...models.audio import SAMPLE_RATE
from ...models.errors import AudioError, InputError
from ..audio.split import Segment
from ..encoders.base import EncodedSegment
from ..engine import Engine
from ..events import Final, Piece
from ..llm.conversation import Conversation, conversation_size
from ..llm.sampling import Generation
from ..scheduler import EngineStream, Priority
from .clips import NAME, answer_clip, segments
from .service import Service


@dataclass(frozen=True)
class DialogueTurn:
    """A prompt, the files of the sounds that it is about, and what was answered."""

    prompt: str
    sounds: tuple[str, ...] = ()
    answer: str = ""
    """Empty: it is the question."""


@dataclass(frozen=True)
class DialogueRead:
    """How many tokens were read."""

    n_prompt_tokens: int
    """Those of sounds included."""
    n_audio_tokens: int


DialogueEvent = Piece | Final | DialogueRead


def answer_dialogue(
    service: Service, stream: EngineStream, system: str, turns: Sequence[DialogueTurn], generation: Generation
) -> Iterator[DialogueEvent]:
    """Pieces and a Final, or one of each for every segment of a long sound; DialogueRead last.

    generation: its max_new_tokens are a wish, and fewer where less has room. Without any sound the language model
    answers as it was before it learnt to hear. Raises AudioError, InputError, RunError; Cancelled.
    """
    [*_, question] = turns
    if len(turns) > 1 or system or not question.sounds:
        yield from _converse(service, stream, system, turns, generation)
        return
    prompt = question.prompt
    n_text = sum(map(len, service.engine.llm.prompts.turn(prompt, keywords=())))
    n_question = n_text + len(question.sounds) * service.engine.spec.n_audio_tokens
    generation = _fitting(service.engine, generation, n_question)
    if len(question.sounds) == 1 and generation.gbnf is None:
        events: Iterator[object] = answer_clip(service, stream, question.sounds[0], prompt, generation)
    else:
        events = _hear_together(service, stream, question, generation)
    finals: list[Final] = []
    for event in events:
        if isinstance(event, Piece | Final):
            yield event
        if isinstance(event, Final):
            finals.append(event)
    if not finals:
        raise _silent()
    n_audio = sum(final.timings.n_audio_tokens for final in finals)
    yield DialogueRead(n_text * len(finals) + n_audio, n_audio)


def _hear_together(
    service: Service, stream: EngineStream, question: DialogueTurn, generation: Generation
) -> Iterator[Piece | Final]:
    heard = [_whole(service, sound) for sound in question.sounds]
    with stream.turn(Priority.BATCH) as engine:
        yield from engine.answer(heard, question.prompt, generation)
    service.metrics.answered(sum(map(_seconds, heard)))


def _converse(
    service: Service, stream: EngineStream, system: str, turns: Sequence[DialogueTurn], generation: Generation
) -> Iterator[DialogueEvent]:
    heard = [_only(service, turn) for turn in turns]
    if not any(heard):
        stream.lora_scale = 0.0
    started = time.monotonic()
    with stream.turn(Priority.BATCH) as engine:
        conversation = Conversation(engine.llm, system)
        encoded = [None if segment is None else engine.encode(segment.waveform) for segment in heard]
        *past, last = [None if each is None else each.audio_tokens for each in encoded]
        for turn, audio in zip(turns, past, strict=False):
            conversation.remember(audio, turn.prompt, turn.answer)
        prompt = turns[-1].prompt
        n_question = conversation.positions_with(last, prompt)
        generation = _fitting(engine, generation, n_question)
        n_new = generation.max_new_tokens
        if last is None:
            prefill = partial(conversation.prefill_text, prompt, n_new)
        else:
            prefill = partial(conversation.prefill_audio, last, prompt, n_new)
        sound = encoded[-1] or EncodedSegment(np.zeros((0, engine.spec.llm.hidden), np.float32), {}, 0.0)
        decoded = yield from engine.decode(sound, prefill, conversation.answer, generation, started)
    seconds = sum(_seconds(segment) for segment in heard if segment)
    service.metrics.answered(seconds)
    yield decoded.final(0.0, seconds, prompt)
    yield DialogueRead(n_question, sum(len(each.audio_tokens) for each in encoded if each))


def _only(service: Service, turn: DialogueTurn) -> Segment | None:
    if len(turn.sounds) > 1:
        raise InputError("a turn of a conversation is about one sound: ask about several in a message of its own")
    return _whole(service, turn.sounds[0]) if turn.sounds else None


def _whole(service: Service, path: str) -> Segment:
    """A sound that cannot be cut. Raises AudioError, InputError."""
    first, *more = islice(segments(service, path), 2)
    if more:
        longest = f"{service.engine.spec.seconds:g} s"
        raise InputError(
            f"{NAME} is longer than the {longest} that fit here: ask about it alone, or about a part of it"
        )
    if first.silent:
        raise _silent()
    return first


def _fitting(engine: Engine, generation: Generation, n_question: int) -> Generation:
    """So many new tokens as have room behind the question. Raises InputError when none have."""
    n_ctx = conversation_size(engine.llm)
    if n_question >= n_ctx:
        raise InputError(f"the messages take {n_question} positions, but {n_ctx} are there: leave the oldest out")
    return replace(generation, max_new_tokens=min(generation.max_new_tokens, n_ctx - n_question))


def _seconds(segment: Segment) -> float:
    return len(segment.waveform) / SAMPLE_RATE


def _silent() -> AudioError:
    return AudioError(f"{NAME} is silent: check the recording")
