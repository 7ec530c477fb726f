"""openai-agents (Python) as it is: its streaming speech-to-text."""

from __future__ import annotations

from pathlib import Path

import pytest
from served import Served

from .environments import answered

pytestmark = pytest.mark.clients


def test_two_turns_and_the_session_ends_by_itself(served: Served, two_sentences: Path) -> None:
    """It asks for semantic_vad, and at its end commits, clears, and waits for both answers."""
    turns = answered("agents", "agents_voice.py", f"{served.url}/v1", two_sentences)
    assert turns == ["turn on the kitchen dishwasher", "what is the weather in dublin tonight"]
