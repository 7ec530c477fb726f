"""`auricle serve`: a bundle -> a server for browsers and programs that speak OpenAI's API or Wyoming."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass, field

from ...models.errors import missing_package
from ..server.options import ServerOptions
from ..server.wyoming.options import WyomingOptions
from ..system.heap import share_heap
from .live.session import SourceOptions, open_source
from .options import ModelOptions, open_engine


@dataclass(frozen=True)
class ServeCommand:
    """What `auricle serve` is told."""

    model: ModelOptions = field(default_factory=ModelOptions)
    server: ServerOptions = field(default_factory=ServerOptions)
    wyoming: WyomingOptions | None = None  # None: HTTP alone
    source: SourceOptions | None = None  # what this machine hears, for whoever views it; None: clients alone
    source_prompt: str = "asr"  # a task or a prompt, asked of it


def serve(command: ServeCommand) -> int:
    """Answers requests until SIGTERM or Ctrl-C."""
    share_heap()
    try:
        from ..server import run
        from ..server.page import local_source
    except ModuleNotFoundError as error:
        raise missing_package(error, "serve") from None
    with ExitStack() as stack:
        listener = stack.enter_context(closing(run.bind(command.server)))
        beside = command.wyoming and stack.enter_context(closing(run.bind(command.wyoming)))
        source = command.source and stack.enter_context(closing(open_source(command.source)))
        engine = stack.enter_context(open_engine(command.model))
        local = None if source is None else local_source.LocalSource.of(engine, source, command.source_prompt)
        name = engine.bundle.manifest.name

        def tell(url: str) -> None:
            print(f"{name} is served at {url}/v1", flush=True)
            if beside is not None:
                print(f"Home Assistant is served at {run.wyoming_address(beside)}", flush=True)
            print(f"Captions, files and questions in a browser: {url}/", flush=True)
            if local is not None:
                print(f"Captions of what is heard here: {url}/?overlay&session={local_source.NAME}", flush=True)

        wyoming = None if command.wyoming is None or beside is None else (command.wyoming, beside)
        run.serve(engine, command.server, listener, tell, wyoming, local)
    return 0
