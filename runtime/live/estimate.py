"""First estimate: an engine -> what updates and a final take here, before anybody has spoken."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ...models.audio import SAMPLE_RATE, Waveform
from ...models.bundle import shipped_bundle
from ..audio.decode import read_audio
from ..engine import Engine
from ..scheduler import EngineStream, Scheduler
from ..sources.playback import FilePlayback
from ..stream_load import LONGEST_HOP_SECONDS
from .captions import LiveOptions, captions

SECONDS = 6.0
"""Two updates and a final."""
_SPOKEN = ("weather", "reminder", "shopping")
"""Clips of the bundle that comes with the package, together longer than that."""


def estimate_costs(engine: Engine, scheduler: Scheduler) -> None:
    """Caption some speech in the scheduler's turns, which its load takes note of. Raises RunError, Cancelled."""
    clips = [read_audio(shipped_bundle() / "clips" / f"{name}.wav") for name in _SPOKEN]
    speech = np.concatenate(clips)[: round(SECONDS * SAMPLE_RATE)]
    measure_costs(engine, scheduler, [speech], LiveOptions(hop_ms=1e3 * LONGEST_HOP_SECONDS, vad=False))


def measure_costs(engine: Engine, scheduler: Scheduler, clips: Sequence[Waveform], options: LiveOptions) -> None:
    """Caption all of the clips in as many streams as there are lanes: decodes are to take what they take side by side.

    Raises RunError, Cancelled.
    """

    def listen(stream: EngineStream) -> None:
        for clip in clips:
            for _ in captions(FilePlayback(clip, "fast"), engine, options, stream):
                pass

    streams = [scheduler.stream() for _ in range(scheduler.n_lanes)]
    with ThreadPoolExecutor(len(streams), "auricle-estimate") as threads:
        for _ in threads.map(listen, streams):
            pass
