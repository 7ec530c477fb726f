"""Ring buffer: frames from the thread that must not wait -> samples for the one that may; no locks, no allocation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...models.audio import Waveform


class Ring:
    """Mono float32 samples; one thread writes, one reads."""

    def __init__(self, n: int) -> None:
        self._samples = np.zeros(n, np.float32)
        self._n_written = 0  # ever, by the writer alone
        self._n_read = 0  # ever, by the reader alone

    def write(self, frames: NDArray[np.float32]) -> bool:
        """The mean of the channels of frames [n, channels]; False, and nothing written, when they do not fit."""
        n = len(frames)
        size = len(self._samples)
        if self._n_written - self._n_read + n > size:
            return False
        at = self._n_written % size
        n_first = min(n, size - at)
        frames[:n_first].mean(axis=1, out=self._samples[at : at + n_first])
        if n_first < n:
            frames[n_first:].mean(axis=1, out=self._samples[: n - n_first])
        self._n_written += n
        return True

    def read(self, n: int) -> Waveform:
        """The next n samples, which must have been written."""
        at = self._n_read % len(self._samples)
        samples = np.concatenate([self._samples[at : at + n], self._samples[: max(0, at + n - len(self._samples))]])
        self._n_read += n
        return samples
