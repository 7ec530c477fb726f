"""An engine as the command line asks for it."""

from __future__ import annotations

from argparse import Namespace

from .engine import Engine, EngineOptions, load
from .llm import LlmOptions
from .ort import OrtOptions
from .screen import waiting


def open_engine(arguments: Namespace) -> Engine:
    """`--bundle` on `--provider`, `--threads` and `--n-gpu-layers`. Raises BundleError, RunError."""
    with waiting("opening the bundle"):
        return load(arguments.bundle, engine_options(arguments))


def engine_options(arguments: Namespace) -> EngineOptions:
    """The device options, and `--lora-scale` and `--n-ctx` where the command has them."""
    llm = LlmOptions(
        n_ctx=getattr(arguments, "n_ctx", None),
        n_threads=arguments.threads,
        n_gpu_layers=arguments.n_gpu_layers,
        lora_scale=getattr(arguments, "lora_scale", None),
    )
    return EngineOptions(OrtOptions(provider=arguments.provider, threads=arguments.threads), llm)
