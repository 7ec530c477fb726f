"""livekit-agents with the plugin for OpenAI, as they are: speech to text, and a conversation in text."""

from __future__ import annotations

from pathlib import Path

import pytest
from served import Served

from .environments import answered

pytestmark = pytest.mark.clients
SENTENCES = ["turn on the kitchen dishwasher", "what is the weather in dublin tonight"]


def test_speech_to_text(served: Served, two_sentences: Path) -> None:
    told = answered("livekit", "livekit_stt.py", f"{served.url}/v1", two_sentences)
    assert told["rest"] == [" ".join(SENTENCES)] * 2
    finals = [text for kind, text in told["realtime"] if kind == "final_transcript"]
    assert finals == SENTENCES


def test_a_conversation_in_text(served: Served, sentences: list[Path]) -> None:
    told = answered("livekit", "livekit_realtime.py", f"{served.url}/v1", sentences[1], "weather")
    spoken, requested = told["answers"]
    assert spoken == "checking the weather in dublin tonight"
    assert requested and (requested.startswith(told["interrupted"]) or told["interrupted"])
    events = told["events"]
    assert [text for name, text in events if name == "error"] == []
    assert ["input_audio_transcription_completed", SENTENCES[1]] in events
