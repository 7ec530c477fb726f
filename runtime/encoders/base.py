"""Encoders' interface: a waveform -> EncodedSegment, its audio tokens and the milliseconds of each graph."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...models.audio import Waveform
from ..events import Timings

T = TypeVar("T")


@dataclass(frozen=True)
class EncodedSegment:
    """A segment as the language model sees it."""

    audio_tokens: NDArray[np.float32]
    """[n_audio_tokens, d_llm]."""
    stages: dict[str, float]
    """Milliseconds by graph, its front end included; two may have worked side by side."""
    encoders_ms: float
    """Wall time of all of them."""

    def timings(self, prefill_ms: float, decode_ms: float, n_new_tokens: int) -> Timings:
        """With what the language model took."""
        return Timings(
            stages=self.stages,
            encoders_ms=self.encoders_ms,
            prefill_ms=prefill_ms,
            decode_ms=decode_ms,
            n_audio_tokens=len(self.audio_tokens),
            n_new_tokens=n_new_tokens,
        )


class Encoders(Protocol):
    """From a waveform to audio tokens. Several threads may ask at once."""

    def encode(self, waveform: Waveform, short: bool | None = None) -> EncodedSegment:
        """One segment, no longer than the spec's.

        short: no more than it is encoded, where the family pads it; False: all that it pads; None: as it was trained.
        """
        ...

    def stages(self, waveform: Waveform) -> dict[str, NDArray[np.float32]]:
        """Every graph's output on one segment, by its name, as the next one reads it; the audio tokens last."""
        ...

    def close(self) -> None:
        """Frees threads; the sessions are their opener's."""
        ...


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What the work gives, and the milliseconds it took."""
    start = time.perf_counter()
    result = work()
    return result, (time.perf_counter() - start) * 1e3
