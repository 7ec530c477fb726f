"""An engine as the command line asks for it."""

from __future__ import annotations

from argparse import Namespace

from ...models.errors import InputError
from ..bundle import open_bundle
from ..engine import Engine, EngineOptions, load
from ..keywords import Keywords
from ..llm.grammar import read_grammar, read_schema, schema_grammar
from ..llm.session import LlmOptions
from ..output.terminal import waiting
from ..system.ort import OrtOptions


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


def engine_options(arguments: Namespace) -> EngineOptions:
    """The device options, and `--lora-scale` and `--n-ctx` where the command has them."""
    llm = LlmOptions(
        n_ctx=getattr(arguments, "n_ctx", None),
        n_threads=arguments.threads,
        n_gpu_layers=arguments.n_gpu_layers,
        lora_scale=getattr(arguments, "lora_scale", None),
        kv_type=arguments.kv_type,
    )
    return EngineOptions(OrtOptions(provider=arguments.provider, threads=arguments.threads), llm)
