"""`auricle serve`: a bundle -> a server for programs that speak OpenAI's API, until it is stopped."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field

from ...models.errors import missing_package
from ..server.options import ServerOptions
from .options import ModelOptions, open_engine


@dataclass(frozen=True)
class ServeCommand:
    """What `auricle serve` is told."""

    model: ModelOptions = field(default_factory=ModelOptions)
    server: ServerOptions = field(default_factory=ServerOptions)


def serve(command: ServeCommand) -> int:
    """Answers requests until SIGTERM or Ctrl-C."""
    try:
        from ..server import run
    except ModuleNotFoundError as error:
        raise missing_package(error, "serve") from None
    with closing(run.bind(command.server)) as listener, open_engine(command.model) as engine:
        name = engine.bundle.manifest.name
        run.serve(engine, command.server, listener, lambda url: print(f"{name} is served at {url}/v1", flush=True))
    return 0
