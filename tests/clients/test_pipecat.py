"""pipecat as it is: its Realtime STT in a pipeline of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from served import Served

from .environments import answered

pytestmark = pytest.mark.clients


@pytest.mark.parametrize("detector", ["server", "own"])
def test_two_sentences(served: Served, two_sentences: Path, detector: str) -> None:
    url = f"ws://127.0.0.1:{served.port}/v1/realtime"
    frames = answered("pipecat", "pipecat_stt.py", url, two_sentences, detector)
    assert [text for name, text in frames if name == "ErrorFrame"] == []
    first, second = (text for name, text in frames if name == "TranscriptionFrame")
    assert first == "turn on the kitchen dishwasher"
    assert second.startswith("what is the weather in ")  # it converts the rate by the clock: the city is not sure
    assert any(name == "InterimTranscriptionFrame" for name, _ in frames)
