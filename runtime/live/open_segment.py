"""The segment that is being spoken: what was decoded of it, and when that was shown."""

from __future__ import annotations

from dataclasses import dataclass

from ...models.audio import SAMPLE_RATE
from ..events import Final
from .agreement import Agreement
from .incremental import Hypotheses
from .segmenter import GateProgress, seconds
from .speculation import SegmentDecoder

PAUSE_PATIENCE = int(0.3 * SAMPLE_RATE)
"""Samples that an update waits in a pause at most: a word may still be coming."""


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

    def final(self, end_s: float, found: Hypotheses) -> Final:
        """What it comes to, ended there."""
        return Final(
            start_s=seconds(self.start),
            end_s=end_s,
            text=found.texts[0],
            token_ids=found.replies[0].ids,
            timings=found.timings,
            prompt=self.decoder.prompts[0],
            finish_reason=found.replies[0].finish_reason,
            avg_logprob=found.replies[0].avg_logprob,
            words=self.agreement.words(end_s),
            also=also_answers(self.decoder, found),
            n_revised=self.agreement.n_revised(),
            confident=found.confident,
        )


def decoded_end(progress: GateProgress) -> int:
    """How far a segment is decoded: not into a pause that may end it, of which it would keep no more."""
    return progress.end if progress.expected is None else progress.expected.end


def is_due(segment: OpenSegment, progress: GateProgress, hop: int) -> bool:
    """Whether so many samples have come since the last update.

    In a pause that is too short yet to tell what it would end, an update waits: begun now, it would stand in the way of
    the one that can be the final.
    """
    patience = PAUSE_PATIENCE if progress.pausing and progress.expected is None else 0
    return progress.end - segment.updated_at >= hop + patience


def also_answers(decoder: SegmentDecoder, found: Hypotheses) -> tuple[tuple[str, str], ...]:
    """The further questions, as many as were asked, with their answers."""
    return tuple(zip(decoder.prompts[1:], found.texts[1:], strict=False))
