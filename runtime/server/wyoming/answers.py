"""Answers: a sentence, and its sound where that was heard here -> words to be spoken, or what Home Assistant is to do.

    transcript "turn on the fan" ─► handle: the assistant's words            ─► handled, not-handled
                                  └► intent: JSON held to a schema by grammar ─► intent, not-recognized

Home Assistant transcribes in one connection and asks in another, and says nothing of the first there: what was spoken
is found by its text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace

from wyoming.intent import Entity, Intent

from ....models.audio import SAMPLE_RATE, Waveform
from ....models.errors import InputError
from ....models.prompt import ResolvedPrompt
from ...assistant_options import DEFAULT_TASK
from ...audio.split import Segment
from ...engine import Engine
from ...events import Final, Piece
from ...llm.grammar.json_schema import JsonSchema
from ...scheduler import EngineStream, Priority
from ..service import Service
from .options import WyomingOptions

INTENTS = {"turn on": "HassTurnOn", "turn off": "HassTurnOff", "toggle": "HassToggle"}
SAID = {"HassTurnOn": "Turned on {}.", "HassTurnOff": "Turned off {}.", "HassToggle": "Switched {}."}
NONE = "none"
INTENT_PROMPT = "Give the action and the device as JSON."
KEPT_SECONDS, MAX_KEPT = 30.0, 16  # sounds whose text may be asked about


@dataclass(frozen=True)
class Sentence:
    """What a client wants to be answered."""

    text: str
    sound: Waveform | None = None


class Answerer:
    """Answers sentences, as the options say; one for all clients."""

    def __init__(self, engine: Engine, options: WyomingOptions) -> None:
        """Raises InputError where this bundle cannot answer so."""
        self.intents = options.answers == "intent"
        self.names = options.names[: engine.prompt.max_keywords] if self.intents else ()
        self._schema = JsonSchema(_intent_schema(options.names)) if self.intents else None
        self._chats = engine.bundle.manifest.llm.chats
        self._prompt = self._asked(engine, options)
        self._generation = replace(engine.greedy_defaults, gbnf=self._schema and self._schema.gbnf)
        if self._schema is not None:
            engine.llm.check_grammar(self._schema.gbnf)

    def answer(self, service: Service, stream: EngineStream, sentence: Sentence) -> Iterator[Piece | Final]:
        """From its sound, or from its text where the language model knows more than sound.

        Raises InputError, RunError; Cancelled.
        """
        if sentence.sound is not None and self._prompt is not None:
            stream.keywords = self.names
            seconds = len(sentence.sound) / SAMPLE_RATE
            segment = Segment(0.0, sentence.sound, silent=False, last=True)
            with stream.turn(Priority.FINAL) as engine:
                yield from engine.answer([segment], self._prompt, self._generation)
            service.metrics.answered(seconds)
        elif self._chats:
            with stream.turn(Priority.FINAL) as engine:
                yield from engine.stream_text(self._text(sentence.text), self._generation)
        else:
            raise InputError("this bundle answers only what was spoken to it just now")

    def intent(self, final: Final) -> Intent | None:
        """What is to be done; None: nothing that is known."""
        assert self._schema is not None
        try:
            found = self._schema.value(final.text, final.finish_reason)
        except ValueError:
            return None
        if NONE in (found["action"], found["device"]):
            return None
        name = INTENTS[found["action"]]
        return Intent(name, [Entity("name", found["device"])], text=SAID[name].format(found["device"]))

    def _asked(self, engine: Engine, options: WyomingOptions) -> ResolvedPrompt | None:
        """About a sound; None: only the text is answered."""
        if options.prompt is not None or self.intents:
            return engine.prompt.prompt_for(options.prompt or INTENT_PROMPT)
        if DEFAULT_TASK in engine.prompt.tasks:
            return engine.prompt.prompt_for(DEFAULT_TASK)
        if not self._chats:
            raise InputError("this bundle only transcribes: choose another, or leave out --wyoming-answers")
        return None

    def _text(self, text: str) -> str:
        if not self.intents:
            return text
        names = ", ".join(self.names)
        return f'Somebody says at home: "{text}". The devices are: {names}. {self._prompt}'


class RecentSounds:
    """What was spoken just now, by its text, whoever said it; forgotten when it is asked for, or soon. One loop."""

    def __init__(self) -> None:
        self._sounds: dict[str, Waveform] = {}

    def remember(self, text: str, sound: Waveform) -> None:
        """For KEPT_SECONDS."""
        key = _key(text)
        self._sounds.pop(key, None)
        while len(self._sounds) >= MAX_KEPT:
            self._sounds.pop(next(iter(self._sounds)))
        self._sounds[key] = sound
        asyncio.get_running_loop().call_later(KEPT_SECONDS, self._forget, key, sound)

    def take(self, text: str) -> Waveform | None:
        """The sound of a text, once."""
        return self._sounds.pop(_key(text), None)

    def _forget(self, key: str, sound: Waveform) -> None:
        if self._sounds.get(key) is sound:
            del self._sounds[key]


def _key(text: str) -> str:
    return " ".join(text.split()).casefold()


def _intent_schema(names: tuple[str, ...]) -> dict[str, object]:
    parts = {"action": {"enum": [*INTENTS, NONE]}, "device": {"enum": [*names, NONE]}}
    return {"type": "object", "properties": parts, "required": [*parts], "additionalProperties": False}
