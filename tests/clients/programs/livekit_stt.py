"""livekit's STT of OpenAI: livekit_stt.py BASE PCM -> what it hears over REST and over Realtime, as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from livekit import rtc
from livekit.agents import utils
from livekit.plugins import openai

RATE = 24_000
CHUNK = 2400  # samples, 0.1 s
SENTENCES = 2


def frames(sound: bytes) -> list[rtc.AudioFrame]:
    parts = [sound[at : at + CHUNK * 2] for at in range(0, len(sound), CHUNK * 2)]
    return [rtc.AudioFrame(part, RATE, 1, len(part) // 2) for part in parts]


async def recognized(base: str, model: str, sound: bytes) -> str:
    stt = openai.STT(model=model, base_url=base, api_key="none", use_realtime=False)
    event = await stt.recognize(frames(sound))
    return event.alternatives[0].text


async def streamed(base: str, sound: bytes) -> list[tuple[str, str]]:
    stt = openai.STT(model="auricle-demo", base_url=base, api_key="none", use_realtime=True)
    stream = stt.stream()

    async def feed() -> None:
        for frame in frames(sound):
            stream.push_frame(frame)
            await asyncio.sleep(0.02)

    feeding = asyncio.create_task(feed())
    events: list[tuple[str, str]] = []
    async for event in stream:  # it does not end by itself
        events.append((event.type.value, event.alternatives[0].text if event.alternatives else ""))
        if sum(kind == "final_transcript" for kind, _ in events) == SENTENCES:
            break
    await feeding
    await stream.aclose()
    await stt.aclose()
    return events


async def main(base: str, sound: bytes) -> dict[str, Any]:
    async with utils.http_context.open():
        return {
            "rest": [await recognized(base, model, sound) for model in ("gpt-transcribe", "whisper-1")],
            "realtime": await streamed(base, sound),
        }


print(json.dumps(asyncio.run(main(sys.argv[1], Path(sys.argv[2]).read_bytes()))))
