"""Resampler: chunks at any sample rate -> chunks at 16 kHz."""

from __future__ import annotations

from typing import Any

import numpy as np
import soxr  # pyright: ignore[reportMissingTypeStubs]

from ...models.audio import SAMPLE_RATE, Waveform


class Resampler:
    """Mono float32 at any rate in, 16 kHz out, chunk by chunk: round(n * 16000 / rate) +- 1 samples."""

    def __init__(self) -> None:
        self._rate = 0
        self._stream: Any = None

    def push(self, samples: Waveform, sample_rate: int) -> Waveform:
        """What is ready at 16 kHz after these samples; a change of rate in mid-stream is followed."""
        if sample_rate == self._rate:
            return self._step(samples)
        tail = self.flush()
        self._rate = sample_rate
        if sample_rate != SAMPLE_RATE:
            self._stream = soxr.ResampleStream(sample_rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        return np.concatenate([tail, self._step(samples)])

    def flush(self) -> Waveform:
        """The samples still inside the filter; the resampler is new afterwards."""
        empty = np.zeros(0, np.float32)
        tail = empty if self._stream is None else self._stream.resample_chunk(empty, last=True)
        self._rate = 0
        self._stream = None
        return tail

    def _step(self, samples: Waveform) -> Waveform:
        return samples if self._stream is None else self._stream.resample_chunk(samples)
