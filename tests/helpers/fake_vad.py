"""A detector whose answers can be read off the waveform."""

from __future__ import annotations

import numpy as np
from auricle.models.audio import Waveform
from auricle.runtime.live.silero import FRAME_LENGTH, VadState


class LoudnessVad:
    """Speech is what is louder than 0.1; between that and 0.05 it is not sure."""

    def create_state(self) -> VadState:
        return VadState((np.zeros(0, np.float32), np.zeros(0, np.float32)), np.zeros(0, np.float32))

    def step(self, samples: Waveform, state: VadState) -> tuple[list[float], VadState]:
        levels = np.abs(samples.reshape(-1, FRAME_LENGTH)).mean(1)
        return [0.9 if level > 0.1 else 0.4 if level > 0.05 else 0.1 for level in levels], state
