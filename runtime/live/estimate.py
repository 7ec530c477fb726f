"""First estimate: an engine -> what updates and a final take here, before anybody has spoken."""

from __future__ import annotations

import numpy as np

from ...models.audio import SAMPLE_RATE
from ...models.bundle import shipped_bundle
from ..audio.decode import read_audio
from ..engine import Engine
from ..scheduler import EngineStream
from ..sources.playback import FilePlayback
from ..stream_load import LONGEST_HOP_SECONDS
from .captions import LiveOptions, captions

SECONDS = 6.0
"""Two updates and a final."""
_SPOKEN = ("weather", "reminder", "shopping")
"""Clips of the bundle that comes with the package, together longer than that."""


def estimate_costs(engine: Engine, stream: EngineStream) -> None:
    """Caption some speech in the stream's turns, which its load takes note of. Raises RunError, Cancelled."""
    clips = [read_audio(shipped_bundle() / "clips" / f"{name}.wav") for name in _SPOKEN]
    speech = np.concatenate(clips)[: round(SECONDS * SAMPLE_RATE)]
    options = LiveOptions(hop_ms=1e3 * LONGEST_HOP_SECONDS, vad=False)
    for _ in captions(FilePlayback(speech, "fast"), engine, options, stream):
        pass
