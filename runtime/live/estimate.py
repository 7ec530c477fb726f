"""First estimate: an engine -> what an update and a final take here, before anybody has spoken."""

from __future__ import annotations

import numpy as np

from ...models.audio import SAMPLE_RATE
from ..engine import Engine
from ..scheduler import EngineStream
from ..sources.playback import FilePlayback
from ..stream_load import LONGEST_HOP_SECONDS, SEGMENT_SECONDS
from .captions import LiveOptions, captions


def estimate_costs(engine: Engine, stream: EngineStream) -> None:
    """Caption a segment of noise in the stream's turns, which its load takes note of. Raises RunError, Cancelled."""
    n = round(SEGMENT_SECONDS * SAMPLE_RATE)
    noise = 0.01 * np.random.default_rng(0).standard_normal(n, np.float32)
    options = LiveOptions(hop_ms=1e3 * LONGEST_HOP_SECONDS, vad=False)
    for _ in captions(FilePlayback(noise, "fast"), engine, options, stream):
        pass
