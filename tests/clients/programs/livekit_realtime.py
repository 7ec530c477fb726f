"""livekit's RealtimeModel in text: livekit_realtime.py BASE PCM TEXT -> answers and events, as JSON.

A message in text is answered on request, then what is said; then a request is interrupted.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from livekit import rtc
from livekit.agents import llm, utils
from livekit.plugins import openai

RATE = 24_000
CHUNK = 2400  # samples, 0.1 s
EVENTS = ("input_speech_started", "input_audio_transcription_completed", "generation_created", "error")


async def text_of(generation: llm.GenerationCreatedEvent) -> str:
    return "".join([piece async for message in generation.message_stream async for piece in message.text_stream])


async def main(base: str, sound: bytes, text: str) -> dict[str, Any]:
    told: dict[str, Any] = {"answers": []}
    events: list[tuple[str, str]] = []
    async with utils.http_context.open():
        model = openai.realtime.RealtimeModel(model="auricle-demo", base_url=base, api_key="none", modalities=["text"])
        session = model.session()
        spoken: asyncio.Queue[llm.GenerationCreatedEvent] = asyncio.Queue()
        final = asyncio.Event()

        def note(name: str, event: Any) -> None:
            events.append((name, getattr(event, "transcript", "") or str(getattr(event, "error", ""))))
            if name == "generation_created" and not event.user_initiated:
                spoken.put_nowait(event)
            if getattr(event, "is_final", False):
                final.set()

        for name in EVENTS:
            session.on(name, lambda event, name=name: note(name, event))
        for at in range(0, len(sound), CHUNK * 2):
            part = sound[at : at + CHUNK * 2]
            session.push_audio(rtc.AudioFrame(part, RATE, 1, len(part) // 2))
            await asyncio.sleep(0.02)
        told["answers"].append(await asyncio.wait_for(text_of(await spoken.get()), 30))
        await asyncio.wait_for(final.wait(), 30)
        told["answers"].append(await text_of(await session.generate_reply(instructions=text)))
        interrupted = await session.generate_reply(instructions=text)
        session.interrupt()
        told["interrupted"] = await asyncio.wait_for(text_of(interrupted), 30)
        await asyncio.sleep(0.3)
        await session.aclose()
    return told | {"events": events}


print(json.dumps(asyncio.run(main(sys.argv[1], Path(sys.argv[2]).read_bytes(), sys.argv[3]))))
