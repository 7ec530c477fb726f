"""What the tests of clients share: the demo bundle, served, and its clips as clients send them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from auricle.runtime.engine import Engine, load
from served import Served, serving
from server.realtime_client import pcm, spoken


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    with load() as opened:
        yield opened


@pytest.fixture(scope="session")
def served(engine: Engine) -> Iterator[Served]:
    with serving(engine) as running:
        yield running


@pytest.fixture(scope="session")
def clip(engine: Engine) -> Path:
    """ "turn on the kitchen dishwasher"."""
    return engine.bundle.path("clips/command.wav")


@pytest.fixture(scope="session")
def sentences(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two of the clips as raw 16-bit samples at 24 kHz, each with a pause behind it."""
    folder = tmp_path_factory.mktemp("sentences")
    paths = [folder / "command.pcm", folder / "weather.pcm"]
    for path in paths:
        path.write_bytes(pcm(spoken(engine, path.stem)))
    return paths


@pytest.fixture(scope="session")
def two_sentences(sentences: list[Path]) -> Path:
    """Both in one file."""
    path = sentences[0].with_name("both.pcm")
    path.write_bytes(b"".join(each.read_bytes() for each in sentences))
    return path
