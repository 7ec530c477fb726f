"""The openai package's own Realtime client in a test: sound sent in small chunks, events until something holds."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import openai
from auricle.models.audio import SAMPLE_RATE, Waveform
from auricle.runtime.audio.decode import read_audio
from auricle.runtime.engine import Engine
from served import Served

RATE = 24_000
CHUNK_SECONDS = 0.05
PAUSE_SECONDS = 0.002
"""Between two chunks: much faster than anybody speaks."""
WAIT_SECONDS = 20.0
TRANSCRIPTION = "conversation.item.input_audio_transcription"


def spoken(engine: Engine, *names: str, pause_s: float = 1.0) -> Waveform:
    """Demo clips at 16 kHz, each with a pause behind it."""
    pause = np.zeros(round(pause_s * SAMPLE_RATE), np.float32)
    parts = [part for name in names for part in (read_audio(clip(engine, name)), pause)]
    return np.concatenate(parts)


def clip(engine: Engine, name: str) -> Path:
    return engine.bundle.path(f"clips/{name}.wav")


def at_rate(waveform: Waveform, rate: int) -> Waveform:
    import soxr  # pyright: ignore[reportMissingTypeStubs]

    return soxr.resample(waveform, SAMPLE_RATE, rate)


def pcm(waveform: Waveform, rate: int = RATE) -> bytes:
    return (np.clip(at_rate(waveform, rate), -1, 1) * 32767).astype("<i2").tobytes()


class Talk:
    """One connection of the openai package's client."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.events: list[dict[str, Any]] = []

    async def say(self, data: bytes, size: int = round(RATE * CHUNK_SECONDS) * 2) -> None:
        for at in range(0, len(data), size):
            await self.connection.input_audio_buffer.append(audio=base64.b64encode(data[at : at + size]).decode())
            await asyncio.sleep(PAUSE_SECONDS)

    async def until(self, holds: Callable[[dict[str, Any]], bool] | str, n: int = 1) -> dict[str, Any]:
        """The n-th event from here on for which this holds, or which is of this type."""
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                event = (await self.connection.recv()).to_dict()
                self.events.append(event)
                found = event["type"] == holds if isinstance(holds, str) else holds(event)
                n -= found
                if found and not n:
                    return event

    async def configure(self, **given: Any) -> dict[str, Any]:
        """An update of the session's input; returns the session as it is then."""
        kind = "transcription" if self.events[0]["session"]["type"] == "transcription" else "realtime"
        await self.connection.session.update(session={"type": kind, "audio": {"input": given}})
        return (await self.until("session.updated"))["session"]

    def of(self, *kinds: str) -> list[dict[str, Any]]:
        """The events of these types so far."""
        return [event for event in self.events if event["type"] in kinds]

    def deltas(self, item_id: str) -> str:
        told = self.of(f"{TRANSCRIPTION}.delta")
        return "".join(event["delta"] for event in told if event["item_id"] == item_id)

    def transcripts(self) -> list[str]:
        return [event["transcript"] for event in self.of(f"{TRANSCRIPTION}.completed")]


@asynccontextmanager
async def talking(served: Served, model: str | None = None, **query: str) -> AsyncGenerator[Talk]:
    """A transcription session, or with a model's name a conversation."""
    asked: Any = {"model": model} if model else {"extra_query": {"intent": "transcription", **query}}
    if model and query:
        asked["extra_query"] = query
    async with (
        openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none") as client,
        client.realtime.connect(**asked) as connection,
    ):
        talk = Talk(connection)
        await talk.until("session.created")
        yield talk


def kinds(events: Sequence[dict[str, Any]]) -> list[str]:
    """The types of events, each run of the same one once."""
    types = [event["type"] for event in events]
    return [kind for kind, before in zip(types, [None, *types], strict=False) if kind != before]
