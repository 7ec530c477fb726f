"""pipecat's Realtime STT in a pipeline: pipecat_stt.py URL PCM server|own -> its frames, as JSON.

server: the server finds the turns. own: pipecat does, with the Silero detector that it brings, and commits.
PCM is at 24 kHz; the pipeline has 16 kHz.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import numpy as np
import soxr
from loguru import logger
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.frames.frames import (
    EndFrame,
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    TranscriptionFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.runner import PipelineRunner
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.audio.vad_processor import VADProcessor
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.openai.stt import OpenAIRealtimeSTTService

RATE = 16_000
CHUNK = 640  # bytes, 20 ms
WAIT_SECONDS = 30.0
SENTENCES = 2
SHOWN = (InterimTranscriptionFrame, TranscriptionFrame, ErrorFrame, VADUserStoppedSpeakingFrame)


class Record(FrameProcessor):
    """The end of the pipeline."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[tuple[str, str]] = []
        self.complete = asyncio.Event()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, SHOWN):
            text = getattr(frame, "text", None) or getattr(frame, "error", "")
            self.frames.append((type(frame).__name__, text))
            if sum(name == "TranscriptionFrame" for name, _ in self.frames) == SENTENCES:
                self.complete.set()
        await self.push_frame(frame, direction)


async def main(url: str, sound: bytes, own: bool) -> list[tuple[str, str]]:
    stt = OpenAIRealtimeSTTService(
        api_key="none",
        base_url=url,
        turn_detection=False if own else {"type": "server_vad"},
        settings=OpenAIRealtimeSTTService.Settings(model="gpt-4o-transcribe"),
    )
    record = Record()
    detector = [VADProcessor(vad_analyzer=SileroVADAnalyzer(sample_rate=RATE))] if own else []
    worker = PipelineWorker(Pipeline([*detector, stt, record]))

    async def feed() -> None:
        await asyncio.sleep(1.0)  # until it is connected
        for at in range(0, len(sound), CHUNK):
            frame = InputAudioRawFrame(audio=sound[at : at + CHUNK], sample_rate=RATE, num_channels=1)
            await worker.queue_frame(frame)
            await asyncio.sleep(0.01)
        try:
            await asyncio.wait_for(record.complete.wait(), WAIT_SECONDS)
        finally:
            await worker.queue_frame(EndFrame())

    await asyncio.gather(PipelineRunner(handle_sigint=False).run(worker), feed())
    return record.frames


logger.remove()
logger.add(sys.stderr, level="WARNING")
samples = np.frombuffer(Path(sys.argv[2]).read_bytes(), np.int16)
print(json.dumps(asyncio.run(main(sys.argv[1], soxr.resample(samples, 24_000, RATE).tobytes(), sys.argv[3] == "own"))))
