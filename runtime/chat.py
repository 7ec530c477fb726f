"""Chat about one clip: questions in, answers out; it is encoded once, and the KV of all turns is kept."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from ..models.errors import InputError
from .audio.selection import MAIN, Selection
from .encoders.base import EncodedSegment
from .engine import Audio, Engine
from .events import Final, Piece
from .llm.conversation import Conversation
from .llm.sampling import Generation

SHORTEST = "?"
"""Of all questions."""


class Chat:
    """A conversation about a clip no longer than the model's window. Others may use the engine between two questions.

    system: stands before the conversation. Raises AudioError, InputError for a clip that is silent or too long.
    """

    def __init__(self, engine: Engine, audio: Audio, system: str | None = None, selection: Selection = MAIN) -> None:
        self._engine = engine
        self._segment = engine.whole(audio, selection)
        self._conversation = Conversation(engine.llm, system, keep_first=True)
        self._heard: EncodedSegment | None = None
        self._n_asked = 0

    def ask(self, prompt_or_task: str, generation: Generation | None = None) -> Iterator[Piece | Final]:
        """The next question's answer as it is decoded, a Final at its end. Raises InputError, RunError.

        The first question hears the clip; a later one costs its own tokens. An answer that is not taken to its end is
        remembered as far as it was.
        """
        engine = self._engine
        generation = generation or self._engine.defaults
        started = time.monotonic()
        self._check(generation)
        prompt = engine.prompt.prompt_for(prompt_or_task)
        self._n_asked += 1
        question = self._n_asked
        encoded = self._hear()
        if not self._conversation.n_turns:
            prefill = partial(self._first_turn, encoded, prompt, generation.max_new_tokens)
        else:
            prompt = engine.prompt.without_audio(prompt)
            prefill = partial(self._conversation.prefill_text, prompt, generation.max_new_tokens)
        decoded = yield from engine.decode(encoded, prefill, self._conversation.answer, generation, started)
        if question == self._n_asked:  # or the conversation has gone on meanwhile
            self._conversation.keep(len(decoded.token_ids))
        yield decoded.final(self._segment.start_s, self._segment.end_s, prompt)

    def require(self, generation: Generation) -> None:
        """Hears the clip. Raises InputError when no question at all can be answered so."""
        self._check(generation)
        if not self._conversation.n_turns:
            self._conversation.reserve(len(self._hear().audio_tokens), SHORTEST, generation.max_new_tokens)

    def _first_turn(self, encoded: EncodedSegment, prompt: str, max_new_tokens: int) -> None:
        """The clip and the question; a later one does not pay for the encoders."""
        self._conversation.prefill_audio(encoded.audio_tokens, prompt, max_new_tokens)
        self._heard = replace(encoded, stages={}, encoders_ms=0.0)

    def _check(self, generation: Generation) -> None:
        if generation.beams > 1:
            raise InputError(f"beams={generation.beams} cannot be remembered: a conversation needs beams=1")
        if generation.gbnf is not None:
            self._engine.llm.check_grammar(generation.gbnf)

    def _hear(self) -> EncodedSegment:
        if self._heard is None:
            self._heard = self._engine.encode(self._segment.waveform)
        return self._heard
