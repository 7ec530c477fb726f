"""openai-agents (Python), its streaming STT: agents_voice.py BASE PCM -> the turns until the session ends, as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import numpy as np
from agents.voice import StreamedAudioInput, STTModelSettings
from agents.voice.models.openai_stt import OpenAISTTModel
from openai import AsyncOpenAI

CHUNK = 2400  # samples, 0.1 s


async def main(base: str, pcm: Path) -> list[str]:
    model = OpenAISTTModel("gpt-4o-transcribe", AsyncOpenAI(base_url=base, api_key="none"))
    source = StreamedAudioInput()
    session = await model.create_session(source, STTModelSettings(), False, False)

    async def feed() -> None:
        sound = np.frombuffer(pcm.read_bytes(), np.int16)
        for at in range(0, len(sound), CHUNK):
            await source.add_audio(sound[at : at + CHUNK])
            await asyncio.sleep(0.01)
        await source.add_audio(None)

    feeding = asyncio.create_task(feed())
    turns = [turn async for turn in session.transcribe_turns()]
    await feeding
    await session.close()
    return turns


print(json.dumps(asyncio.run(main(sys.argv[1], Path(sys.argv[2])))))
