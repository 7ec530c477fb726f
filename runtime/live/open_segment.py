"""The segment that is being spoken: what was decoded of it, and when that was shown."""

from __future__ import annotations

from dataclasses import dataclass

from .agreement import Agreement
from .incremental import Hypotheses
from .segmenter import GateProgress
from .speculation import SegmentDecoder


@dataclass
class OpenSegment:
    """The one that is being spoken."""

    start: int
    """Its first sample, in samples of the session."""
    decoder: SegmentDecoder
    agreement: Agreement
    updated_at: int
    """Position of the newest sound when the last hypothesis was shown."""
    shown_at: float
    """time.monotonic() of that hypothesis, or of the segment's beginning."""
    n_updates: int = 0


def decoded_end(progress: GateProgress) -> int:
    """How far a segment is decoded: not into a pause that may end it, of which it would keep no more."""
    return progress.end if progress.expected is None else progress.expected.end


def also_answers(decoder: SegmentDecoder, found: Hypotheses) -> tuple[tuple[str, str], ...]:
    """The further questions, as many as were asked, with their answers."""
    return tuple(zip(decoder.prompts[1:], found.texts[1:], strict=False))
