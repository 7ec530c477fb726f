"""An engine as the command line asks for it."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from ...models.errors import InputError
from ..bundle import open_bundle
from ..engine import Engine, engine_options, load
from ..keywords import Keywords
from ..llm.grammar import read_grammar, read_schema, schema_grammar
from ..llm.sampling import Generation
from ..output.remarks import keywords_line
from ..output.terminal import waiting


def open_engine(arguments: Namespace) -> Engine:
    """`--bundle` on `--provider`, `--threads` and `--n-gpu-layers`. Raises BundleError, RunError."""
    with waiting("opening the bundle"):
        return load(arguments.bundle, engine_options(arguments))


def check_prompts(arguments: Namespace, *prompts: str | None) -> None:
    """Raises InputError for a task that the bundle cannot be asked, before anything large is opened; BundleError."""
    info = open_bundle(arguments.bundle).manifest.prompt
    for prompt in prompts:
        if prompt is not None:
            info.prompt_for(prompt)


def keywords_of(arguments: Namespace) -> Keywords | None:
    """`--keywords` and `--keywords-file`. Raises InputError."""
    if not arguments.keywords and arguments.keywords_file is None:
        return None
    return Keywords(arguments.keywords, arguments.keywords_file)


def form_of(arguments: Namespace) -> str | None:
    """`--json-schema` or `--grammar`, in llama.cpp's notation. Raises InputError."""
    if arguments.grammar is not None and arguments.json_schema is not None:
        raise InputError("a JSON schema is made into a grammar: give --json-schema or --grammar, not both")
    if arguments.grammar is not None:
        return read_grammar(arguments.grammar)
    return None if arguments.json_schema is None else schema_grammar(read_schema(arguments.json_schema))


def generation_of(arguments: Namespace, engine: Engine) -> Generation:
    """The decoding options. Raises InputError."""
    return Generation(
        max_new_tokens=_or(arguments.max_new_tokens, engine.defaults.max_new_tokens),
        beams=_or(arguments.beams, engine.defaults.beams),
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        seed=arguments.seed,
        repetition_penalty=arguments.repetition_penalty,
        stop=tuple(arguments.stop),
        max_seconds=arguments.max_seconds,
        gbnf=form_of(arguments),
    )


def use_keywords(arguments: Namespace, engine: Engine) -> None:
    """`--keywords` and `--keywords-file`; words that are too many are named on standard error. Raises InputError."""
    read = keywords_of(arguments)
    if read is not None and (event := read.use(engine)) and event.left_out:
        print(f"auricle: {keywords_line(event)}", file=sys.stderr)


def _or(given: int | None, default: int) -> int:
    return default if given is None else given


def with_keywords(answer: dict[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """An answer's JSON, and what was listened for where words were given."""
    return answer | ({"keywords": list(words)} if words else {})
