"""A detector whose answers can be read off the waveform."""

from __future__ import annotations

import numpy as np
from auricle.models.audio import Waveform
from auricle.runtime.live.silero import VadState


class LoudnessVad:
    """Speech is what is louder than 0.1; between that and 0.05 it is not sure."""

    def create_state(self) -> VadState:
        return VadState(np.zeros((2, 1, 128), np.float32), np.zeros(64, np.float32))

    def step(self, frame: Waveform, state: VadState) -> tuple[float, VadState]:
        level = float(np.abs(frame).mean())
        return (0.9 if level > 0.1 else 0.4 if level > 0.05 else 0.1), state
