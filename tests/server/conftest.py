"""What the server's tests share: the demo bundle, served."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from auricle.runtime.engine import Engine, load
from served import Served, serving


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    with load() as opened:
        yield opened


@pytest.fixture(scope="session")
def served(engine: Engine) -> Iterator[Served]:
    """One server for all tests that leave it as it is."""
    with serving(engine) as running:
        yield running


@pytest.fixture(scope="session")
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as opened:
        yield opened


@pytest.fixture(scope="session")
def clip(engine: Engine) -> Path:
    """ "turn on the kitchen dishwasher"."""
    return engine.bundle.path("clips/command.wav")
