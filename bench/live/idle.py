"""Idle cost: a minute of silence through what `auricle listen` runs -> processor seconds."""

from __future__ import annotations

import time
from contextlib import closing

import numpy as np

from ...models.audio import SAMPLE_RATE
from ...runtime.engine import Engine
from ...runtime.live.captions import Live
from ...runtime.sources.playback import FilePlayback

LEVEL = 1e-3
"""Of full scale: the noise of a microphone in a quiet room, not the zeros of a muted one."""


def idle_cpu_s(engine: Engine, seconds: float) -> float:
    """Processor seconds of this process for a minute in which nobody speaks; it takes `seconds`, at their own pace."""
    noise = LEVEL * np.random.default_rng(0).standard_normal(round(seconds * SAMPLE_RATE), np.float32)
    with closing(iter(Live(engine, FilePlayback(noise)))) as events:
        start = time.process_time()
        for _ in events:
            pass
        return 60 * (time.process_time() - start) / seconds
