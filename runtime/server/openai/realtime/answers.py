"""Answers: a conversation's turns with their sounds -> the answer to the last, as it is decoded.

The model hears the sounds themselves, not their transcripts. As long as a conversation only grows, what was read of it
is kept; otherwise, or when others have used the engine, it is read again, each sound encoded once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from .....models.audio import SAMPLE_RATE, Waveform
from .....models.errors import InputError
from ....assistant_options import default_prompt
from ....encoders.base import EncodedSegment
from ....engine import Engine
from ....events import Final, Piece
from ....llm.conversation import Conversation, conversation_size
from ....llm.sampling import Generation
from ....scheduler import EngineStream, Priority
from ...errors import invalid, unsupported
from ...service import Service
from .items import MAX_SOUNDS, Item


@dataclass(frozen=True, eq=False)
class Question:
    """What a user said and wrote in one turn."""

    ids: tuple[str, ...]
    """Of its items."""
    prompt: str
    sound: Waveform | None
    answer: str = ""


@dataclass(frozen=True)
class AnswerRead:
    """How many tokens were read: of everything, and of sounds alone."""

    n_tokens: int
    n_audio_tokens: int


def read_questions(engine: Engine, items: Sequence[Item], instructions: str) -> tuple[str, list[Question]]:
    """The system's text and the turns, of which the last is to be answered. Raises ApiError, InputError."""
    system = [item.text for item in items if item.role == "system"]
    groups: list[tuple[list[Item], list[str]]] = []
    for item in items:
        if item.role == "user":
            if not groups or groups[-1][1]:
                groups.append(([], []))
            groups[-1][0].append(item)
        elif item.role == "assistant" and item.text and groups:  # one that failed may be asked for again
            groups[-1][1].append(item.text)
    *past, last = groups or [([], [""])]
    questions = [_question(engine, *group, past=True) for group in past[-MAX_SOUNDS:]]
    if not last[1]:
        questions.append(_question(engine, *last, past=False))
    elif instructions:  # nobody has asked anything: they are what is to be done
        if last[0]:
            questions.append(_question(engine, *last, past=True))
        questions.append(Question((), engine.prompt.prompt_for(instructions), None))
        instructions = ""
    else:
        raise invalid("there is nothing to answer: create an item of a user first")
    if not any(question.sound is not None for question in questions) and not engine.bundle.manifest.llm.chats:
        raise unsupported("this bundle only knows about sound: no item has any that can be heard")
    return "\n".join(filter(None, [instructions, *system])), questions


def _question(engine: Engine, items: list[Item], answers: list[str], past: bool) -> Question:
    sounds = [item.sound for item in items if item.sound is not None and len(item.sound)]
    sound = _newest(sounds, engine.spec.seconds, past)
    text = "\n".join(filter(None, (item.text for item in items)))
    if sound is not None:
        prompt: str = engine.prompt.prompt_for(text or default_prompt(engine))
    else:
        prompt = text or "\n".join(filter(None, (_transcript(item) for item in items)))
    if not prompt.strip():
        if not past:
            raise invalid("nothing was heard that could be answered")
        prompt = "?"
    return Question(tuple(item.id for item in items), prompt, sound, "\n".join(answers))


def _newest(sounds: list[Waveform], window_s: float, past: bool) -> Waveform | None:
    """As many as the model hears at once, the newest."""
    longest = round(window_s * SAMPLE_RATE)
    if not sounds:
        return None
    if len(sounds[-1]) > longest:
        if past:
            return sounds[-1][-longest:]
        raise InputError(f"{len(sounds[-1]) / SAMPLE_RATE:.1f} s were said, but {window_s:g} s can be answered at once")
    kept: list[Waveform] = []
    for sound in reversed(sounds):
        if sum(map(len, kept)) + len(sound) > longest:
            break
        kept.insert(0, sound)
    return np.concatenate(kept)


def _transcript(item: Item) -> str:
    return "\n".join(part["transcript"] for part in item.content if isinstance(part.get("transcript"), str))


class Memory:
    """What is known of a session's conversation. One answer at a time."""

    def __init__(self) -> None:
        self._conversation: Conversation | None = None
        self._known: object = None
        """What the conversation holds."""
        self._tokens: dict[tuple[str, ...], EncodedSegment] = {}

    def answer(
        self, service: Service, stream: EngineStream, system: str, questions: list[Question], generation: Generation
    ) -> Iterator[Piece | Final | AnswerRead]:
        """Pieces, a Final, and what was read. An answer that is left early is not remembered: make a new Memory.

        generation: its max_new_tokens are a wish. Raises InputError, RunError; Cancelled.
        """
        *past, question = questions
        if all(each.sound is None for each in questions):
            stream.lora_scale = 0.0  # the language model as it was before it learnt to hear
        started = time.monotonic()
        with stream.turn(Priority.FINAL) as engine:
            encoded = self._encode(engine, questions)
            known = (system, stream.lora_scale, [(each.ids, each.prompt, each.answer) for each in past])
            conversation = self._conversation
            if conversation is None or conversation.llm is not engine.llm or known != self._known:
                conversation = Conversation(engine.llm, system)
                for each, sound in zip(past, encoded, strict=False):
                    conversation.remember(_tokens(sound), each.prompt, each.answer)
            self._conversation = None
            generation = _fitting(engine, system, _tokens(encoded[-1]), question.prompt, generation)
            if encoded[-1] is None:
                prefill = partial(conversation.prefill_text, question.prompt, generation.max_new_tokens)
            else:
                tokens = encoded[-1].audio_tokens
                prefill = partial(conversation.prefill_audio, tokens, question.prompt, generation.max_new_tokens)
            n_read = 0

            def read() -> None:
                nonlocal n_read
                prefill()
                n_read = engine.llm.n_past

            sound = encoded[-1] or EncodedSegment(np.zeros((0, engine.spec.llm.hidden), np.float32), {}, 0.0)
            decoded = yield from engine.decode(sound, read, conversation.answer, generation, started)
            conversation.keep(len(decoded.token_ids))
        seconds = 0.0 if question.sound is None else len(question.sound) / SAMPLE_RATE
        service.metrics.answered(seconds)
        final = decoded.final(0.0, seconds, question.prompt)
        self._conversation = conversation
        self._known = (*known[:2], [*known[2], (question.ids, question.prompt, final.text)])
        kept = encoded[-conversation.n_turns :]
        yield final
        yield AnswerRead(n_read, sum(len(each.audio_tokens) for each in kept if each))

    def _encode(self, engine: Engine, questions: list[Question]) -> list[EncodedSegment | None]:
        """Each sound once."""
        before = self._tokens
        self._tokens = {}
        for each in questions:
            if each.sound is not None:
                self._tokens[each.ids] = before.get(each.ids) or engine.encode(each.sound)
        return [self._tokens.get(each.ids) for each in questions]


def _tokens(encoded: EncodedSegment | None) -> np.ndarray | None:
    return None if encoded is None else encoded.audio_tokens


def _fitting(engine: Engine, system: str, tokens: np.ndarray | None, prompt: str, generation: Generation) -> Generation:
    """So many new tokens as have room behind the question. Raises InputError when none have."""
    n_question = Conversation(engine.llm, system).positions_with(tokens, prompt)
    n_ctx = conversation_size(engine.llm)
    if n_question >= n_ctx:
        raise InputError(f"the question takes {n_question} positions, but {n_ctx} are there: shorten the instructions")
    return replace(generation, max_new_tokens=min(generation.max_new_tokens, n_ctx - n_question))
