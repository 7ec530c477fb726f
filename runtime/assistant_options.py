"""What an assistant is told: its options, what is asked where nobody says it, how an answer is decoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..models.bundle import is_mean_logprob
from ..models.errors import InputError
from ..models.prompt import nonempty
from .aligner.support import LEAST_SUPPORT
from .engine import Engine
from .keywords import Keywords
from .live.gate import GateOptions
from .llm.grammar.json_schema import JsonSchema
from .llm.sampling import Generation
from .tts import speech_command

DEFAULT_TASK = "speech_query"


@dataclass(frozen=True)
class AssistantOptions:
    """What is asked about everything that is said, and how it is answered. Raises InputError."""

    prompt: str | None = None  # a task or a prompt; None: speech_query, or the model's first task
    system: str | None = None  # stands before the whole conversation
    remember: bool = True  # False: every turn stands alone
    json_schema: Mapping[str, Any] | None = None  # what every answer must look like
    generation: Generation | None = None  # max_seconds count from the end of the question; None: as the bundle says
    keywords: Keywords | None = None  # words that may occur; a file of them is looked at again before every answer
    speak: str | None = None  # a text-to-speech command that gets every sentence on its standard input
    speculate: bool = True  # False: no answer is begun before its pause is over
    barge_in: bool = True  # speech ends an answer; False: it is finished first, and while it is spoken nothing is heard
    gate: GateOptions = field(default_factory=GateOptions)
    min_avg_logprob: float | None = None  # an answer below it is no intent and is not spoken; None: as the bundle says
    min_support: float | None = None  # the same by a transcription's support; None: LEAST_SUPPORT, with an aligner

    def __post_init__(self) -> None:
        if self.prompt is not None:
            nonempty(self.prompt)
        generation = self.generation or Generation()
        if generation.beams > 1:
            raise InputError(f"beams={generation.beams} cannot be remembered: a conversation needs beams=1")
        if self.min_avg_logprob is not None and not is_mean_logprob(self.min_avg_logprob):
            raise InputError(f"min_avg_logprob {self.min_avg_logprob:g} must be 0 or less: a mean log-probability")
        if self.min_support is not None:
            Generation(min_support=self.min_support)
        if self.json_schema is not None:
            JsonSchema(self.json_schema)
            if generation.gbnf is not None:
                raise InputError("a JSON schema is made into a grammar: give one of the two")
        if self.speak is not None:
            speech_command(self.speak)
            if self.json_schema is not None:
                raise InputError(f"JSON is not for speaking: give a JSON schema or speak={self.speak!r}, not both")


def default_prompt(engine: Engine) -> str:
    """What is asked about a sound when nobody says what: the task that answers it, or the bundle's first."""
    tasks = engine.prompt.tasks
    return engine.prompt.prompt_for(DEFAULT_TASK if DEFAULT_TASK in tasks else next(iter(tasks)))


def answer_generation(engine: Engine, options: AssistantOptions, prompt: str, schema: JsonSchema | None) -> Generation:
    """How every answer is decoded, and what support a transcription needs. Raises InputError."""
    generation = options.generation or engine.greedy_defaults
    generation = generation if schema is None else replace(generation, gbnf=schema.gbnf)
    least = generation.min_support if options.min_support is None else options.min_support
    if least is None and engine.judges(prompt, generation):
        least = LEAST_SUPPORT
    generation = replace(generation, min_support=least)
    engine.require_aligner(prompt, generation)
    return generation
