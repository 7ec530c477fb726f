"""Silero VAD: frames of 32 ms -> the probability of speech in each. The graph and its licence: models/vad/."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ...models.audio import SAMPLE_RATE, Waveform
from ...models.errors import BundleError, RunError

ort: Any = onnxruntime  # it has no types of its own

FRAME_LENGTH = 512  # samples, 32 ms: what one step takes
CONTEXT_LENGTH = 64  # samples of the frame before, which the graph wants in front


@dataclass(frozen=True)
class VadState:
    """What survives between frames."""

    lstm: NDArray[np.float32]
    """[2, 1, 128]: hidden and cell state."""
    context: Waveform
    """[64]: the end of the frame before."""


class SileroVad:
    """The opened graph, one CPU thread; about 0.1 ms a frame. Several streams may share it, each with its state."""

    def __init__(self, path: Path | None = None) -> None:
        """None opens the graph that is installed with Auricle. Raises BundleError when it cannot be opened."""
        self._path = path or Path(str(resources.files("auricle.models") / "vad" / "silero_vad_16k.onnx"))
        settings = ort.SessionOptions()
        settings.log_severity_level = 3
        settings.intra_op_num_threads = settings.inter_op_num_threads = 1
        for name, size in (("batch", 1), ("sequence", CONTEXT_LENGTH + FRAME_LENGTH)):
            settings.add_free_dimension_override_by_name(name, size)  # what depends on them alone is computed once
        if not self._path.is_file():
            raise BundleError(f"{self._path} is missing: install Auricle again, or run without the speech gate")
        try:
            self._session: Any = ort.InferenceSession(str(self._path), settings, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions share no public base
            raise BundleError(f"{self._path} cannot be opened by onnxruntime: install Auricle again") from error
        self._sample_rate = np.array(SAMPLE_RATE, np.int64)

    def create_state(self) -> VadState:
        """Before the first frame: silence."""
        return VadState(np.zeros((2, 1, 128), np.float32), np.zeros(CONTEXT_LENGTH, np.float32))

    def step(self, frame: Waveform, state: VadState) -> tuple[float, VadState]:
        """frame [512] -> the probability of speech in it, 0 to 1, and the state after it. Raises RunError."""
        if frame.shape != (FRAME_LENGTH,):
            raise ValueError(f"a frame is [{FRAME_LENGTH}] samples, not {list(frame.shape)}")
        if self._session is None:
            raise RunError("the speech gate was closed and cannot run")
        samples = np.concatenate([state.context, frame], dtype=np.float32)
        inputs = {"input": samples[None], "state": state.lstm, "sr": self._sample_rate}
        try:
            probability, lstm = self._session.run(["output", "stateN"], inputs)
        except Exception as error:  # onnxruntime's exceptions share no public base
            raise RunError(f"{self._path.name} failed: run without the speech gate") from error
        return float(probability[0, 0]), VadState(lstm, samples[-CONTEXT_LENGTH:])

    def close(self) -> None:
        """Free the graph's memory. Closing twice is fine."""
        self._session = None


@cache
def shared_vad() -> SileroVad:
    """The one of all streams of this process: 4 MB and some 50 ms, once. Nobody closes it. Raises BundleError."""
    return SileroVad()
