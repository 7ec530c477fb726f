"""Silero VAD: frames of 32 ms -> the probability of speech in each. The graph and its licence: models/vad/.

The graph takes as many frames at once as have arrived, which costs less than one after the other (export/vad.py) and
gives the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ...models.audio import Waveform
from ...models.errors import BundleError, RunError

ort: Any = onnxruntime  # it has no types of its own

FRAME_LENGTH = 512  # samples: 32 ms
CONTEXT_LENGTH = 64  # samples of the frame before, which the graph wants in front
MAX_FRAMES = 32  # in one run of the graph: memory stays small however much has arrived


@dataclass(frozen=True)
class VadState:
    """What survives between frames."""

    lstm: tuple[NDArray[np.float32], NDArray[np.float32]]
    """Hidden and cell state, [1, 1, 128] each."""
    context: Waveform
    """[64]: the end of the frame before."""


class SileroVad:
    """The opened graph, one CPU thread; some 30 to 60 µs a frame. Several streams may share it, each with its state."""

    def __init__(self, path: Path | None = None) -> None:
        """None opens the graph that is installed with Auricle. Raises BundleError when it cannot be opened."""
        self._path = path or Path(str(resources.files("auricle.models") / "vad" / "silero_vad_frames.onnx"))
        settings = ort.SessionOptions()
        settings.log_severity_level = 3
        settings.intra_op_num_threads = settings.inter_op_num_threads = 1
        if not self._path.is_file():
            raise BundleError(f"{self._path} is missing: install Auricle again, or run without the speech gate")
        try:
            self._session: Any = ort.InferenceSession(str(self._path), settings, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions share no public base
            raise BundleError(f"{self._path} cannot be opened by onnxruntime: install Auricle again") from error

    def create_state(self) -> VadState:
        """Before the first frame: silence."""
        zeros = np.zeros((1, 1, 128), np.float32)
        return VadState((zeros, zeros), np.zeros(CONTEXT_LENGTH, np.float32))

    def step(self, samples: Waveform, state: VadState) -> tuple[list[float], VadState]:
        """samples [n * 512] -> the probability of speech in each of n frames, 0 to 1, and the state after them.

        Raises RunError.
        """
        if not len(samples) or len(samples) % FRAME_LENGTH:
            raise ValueError(f"frames are {FRAME_LENGTH} samples each, and there are {len(samples)}")
        if self._session is None:
            raise RunError("the speech gate was closed and cannot run")
        whole = np.concatenate([state.context, samples], dtype=np.float32)
        fresh = whole[CONTEXT_LENGTH:].reshape(-1, FRAME_LENGTH)
        before = whole[:-CONTEXT_LENGTH].reshape(-1, FRAME_LENGTH)[:, :CONTEXT_LENGTH]
        frames = np.concatenate([before, fresh], axis=1)
        found: list[float] = []
        h, c = state.lstm
        try:
            for at in range(0, len(frames), MAX_FRAMES):
                inputs = {"frames": frames[at : at + MAX_FRAMES], "h": h, "c": c}
                probabilities, h, c = self._session.run(["probabilities", "h_out", "c_out"], inputs)
                found += probabilities[:, 0].tolist()
        except Exception as error:  # onnxruntime's exceptions share no public base
            raise RunError(f"{self._path.name} failed: run without the speech gate") from error
        return found, VadState((h, c), whole[-CONTEXT_LENGTH:].copy())

    def close(self) -> None:
        """Free the graph's memory. Closing twice is fine."""
        self._session = None


@cache
def shared_vad() -> SileroVad:
    """The one of all streams of this process: 4 MB and some 50 ms, once. Nobody closes it. Raises BundleError."""
    return SileroVad()
