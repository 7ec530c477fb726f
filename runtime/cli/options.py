"""Options that several commands share -> an opened engine, checked prompts, the rules of an answer.

commands.py makes them from the command line; a program with another front end makes its own.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..audio.selection import MAIN, Selection
from ..bundle import open_bundle
from ..engine import Engine, EngineOptions, load
from ..keywords import Keywords
from ..llm.grammar.json_schema import JsonSchema
from ..llm.sampling import Generation
from ..output.remarks import keywords_line
from ..output.terminal import waiting


@dataclass(frozen=True)
class ModelOptions:
    """Which bundle is opened, and where its parts run."""

    bundle: Path | None = None  # None: the demo bundle
    engine: EngineOptions = field(default_factory=EngineOptions)


@dataclass(frozen=True)
class DecodingOptions:
    """How an answer is decoded and where it ends. `generation` checks the values."""

    max_new_tokens: int | None = None  # None: as the bundle says
    beams: int | None = None  # None: as the bundle says
    temperature: float = 0.0
    top_p: float = 0.9
    seed: int = 0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    max_seconds: float | None = None
    gbnf: str | None = None
    schema: JsonSchema | None = None  # in the place of gbnf
    min_support: float | None = None  # a transcription with less is withheld, or marked in JSON

    def generation(self, defaults: Generation) -> Generation:
        """With the bundle's own values where none was given. Raises InputError."""
        return Generation(
            max_new_tokens=_or(self.max_new_tokens, defaults.max_new_tokens),
            beams=_or(self.beams, defaults.beams),
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            repetition_penalty=self.repetition_penalty,
            guard=True,
            stop=self.stop,
            max_seconds=self.max_seconds,
            gbnf=self.gbnf if self.schema is None else self.schema.gbnf,
            min_support=self.min_support,
        )


@dataclass(frozen=True)
class ClipOptions:
    """What every command about audio files is told: `ask`, `caption`, `chat`."""

    model: ModelOptions = field(default_factory=ModelOptions)
    decoding: DecodingOptions = field(default_factory=DecodingOptions)
    keywords: Keywords | None = None  # words that may occur
    selection: Selection = MAIN  # the track and the channel that are heard


def open_engine(options: ModelOptions) -> Engine:
    """The bundle, opened, behind a spinner. Raises BundleError, InputError, RunError."""
    with waiting("opening the bundle"):
        return load(options.bundle, options.engine)


def check_prompts(bundle: Path | None, *prompts: str | None) -> None:
    """Raises InputError for a task that the bundle cannot be asked, before anything large is opened; BundleError."""
    info = open_bundle(bundle).manifest.prompt
    for prompt in prompts:
        if prompt is not None:
            info.prompt_for(prompt)


def is_task(bundle: Path | None, word: str) -> bool:
    """Whether a word names one of the bundle's tasks, with or without what fills its blank. Raises BundleError."""
    return word.partition(":")[0] in open_bundle(bundle).manifest.prompt.tasks


def tells_support(generation: Generation, prompt: str, engine: Engine) -> Generation:
    """For JSON, which tells support wherever that can be told."""
    told = generation.min_support is None and engine.judges(prompt, generation)
    return replace(generation, min_support=0.0) if told else generation


def use_keywords(keywords: Keywords | None, engine: Engine) -> None:
    """Words that may occur, from here on; those that are too many are named on standard error. Raises InputError."""
    if keywords is not None and (event := keywords.use(engine)) and event.left_out:
        print(f"auricle: {keywords_line(event)}", file=sys.stderr)


def with_keywords(answer: dict[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """An answer's JSON, and the keywords it was given where there were any."""
    return answer | ({"keywords": list(words)} if words else {})


def _or(given: int | None, default: int) -> int:
    return default if given is None else given
