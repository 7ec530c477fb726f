"""What the server's tests share: the demo bundle, served."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openai
import pytest
from auricle.models.audio import SAMPLE_RATE
from auricle.runtime.audio.decode import read_audio
from auricle.runtime.engine import Engine, load
from served import Served, serving, write_wav


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


@pytest.fixture(scope="session")
def long_clip(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Longer than the model's window: several segments."""
    clips = [read_audio(engine.bundle.path(f"clips/{name}.wav")) for name in ("command", "weather", "shopping")]
    pause = np.zeros(SAMPLE_RATE, np.float32)
    samples = np.concatenate([part for clip in clips * 2 for part in (clip, pause)])
    return write_wav(tmp_path_factory.mktemp("long") / "long.wav", samples)
