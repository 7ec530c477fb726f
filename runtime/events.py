"""What the runtime tells while it works: facts with their times, in order.

For each segment: Pieces as they are decoded, then exactly one Final whose text is the Pieces' joined and stripped.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Timings:
    """Milliseconds of wall time one segment spent in each stage."""

    encoders_ms: float
    """Front ends and both encoders, side by side."""
    qformer_ms: float
    """Windows to audio tokens."""
    prefill_ms: float
    """Audio tokens and prompt through the language model, to the first logits."""
    decode_ms: float
    """All new tokens."""
    n_audio_tokens: int
    n_new_tokens: int

    @property
    def ttft_ms(self) -> float:
        """From waveform to first token."""
        return self.encoders_ms + self.qformer_ms + self.prefill_ms

    @property
    def tpot_ms(self) -> float:
        """Per new token."""
        return self.decode_ms / max(1, self.n_new_tokens)

    @property
    def total_ms(self) -> float:
        """The whole segment."""
        return self.ttft_ms + self.decode_ms


@dataclass(frozen=True)
class Piece:
    """New text of the segment that is being answered."""

    text: str


@dataclass(frozen=True)
class Final:
    """One segment's whole answer."""

    start_s: float
    """Where the segment starts in the clip, seconds."""
    end_s: float
    text: str
    token_ids: tuple[int, ...]
    """What the model said, without BOS and EOS."""
    timings: Timings
