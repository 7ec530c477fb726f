"""A server in a thread of this process, on a port of its own."""

from __future__ import annotations

import threading
import wave
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from auricle.models.audio import SAMPLE_RATE
from auricle.runtime.engine import Engine
from auricle.runtime.server.options import ServerOptions
from auricle.runtime.server.run import Server, bind
from auricle.runtime.server.service import Service


@dataclass(frozen=True)
class Served:
    """A running server."""

    url: str
    service: Service
    server: Server

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


@contextmanager
def serving(engine: Engine, options: ServerOptions | None = None) -> Generator[Served]:
    """An engine, served until the block ends; the engine stays open."""
    options = options or ServerOptions(port=0)
    started = threading.Event()
    urls: list[str] = []

    def tell(url: str) -> None:
        urls.append(url)
        started.set()

    with closing(bind(options)) as listener, closing(Service(engine, options)) as service:
        server = Server(service, listener, tell)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        assert started.wait(10)
        try:
            yield Served(urls[0], service, server)
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
