"""A server in a thread of this process, on a port of its own."""

from __future__ import annotations

import threading
import wave
from collections.abc import Generator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from auricle.models.audio import SAMPLE_RATE
from auricle.runtime.engine import Engine
from auricle.runtime.server.options import ServerOptions
from auricle.runtime.server.page.local_source import LocalSource
from auricle.runtime.server.run import Server, bind
from auricle.runtime.server.service import Service
from auricle.runtime.server.wyoming.options import WyomingOptions
from auricle.runtime.server.wyoming.server import WyomingServer


@dataclass(frozen=True)
class Served:
    """A running server."""

    url: str
    service: Service
    server: Server
    wyoming_port: int = 0

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


@contextmanager
def serving(
    engine: Engine,
    options: ServerOptions | None = None,
    wyoming: WyomingOptions | None = None,
    admission: bool = False,
    local: LocalSource | None = None,
) -> Generator[Served]:
    """An engine, served until the block ends; the engine stays open.

    admission: whether streams are refused for which this machine is too slow, or too busy, at the moment. One lane,
    unless options say otherwise: who holds a turn holds the engine.
    """
    options = options or ServerOptions(port=0)
    options = replace(options, admission=admission, lanes=options.lanes or 1)
    started = threading.Event()
    urls: list[str] = []

    def tell(url: str) -> None:
        urls.append(url)
        started.set()

    with ExitStack() as stack:
        listener = stack.enter_context(closing(bind(options)))
        service = stack.enter_context(closing(Service(engine, options)))
        beside = None
        port = 0
        if wyoming is not None:
            place = stack.enter_context(closing(bind(wyoming)))
            port = place.getsockname()[1]
            beside = WyomingServer(service, wyoming, place)
        server = Server(service, listener, tell, beside, local)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        assert started.wait(10)
        try:
            yield Served(urls[0], service, server, port)
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


def write_wav(path: Path, samples: np.ndarray) -> Path:
    """Mono, 16 kHz, 16 bits."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return path
