"""Incremental re-decoding: a segment that grows -> its newest hypotheses, and what is kept from one to the next.

Of the language model the prefix's KV is kept, and with `settle_s` that of the audio tokens of older windows; the
hypotheses of one pass are the speculative drafts of the next.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from ...models.audio import SAMPLE_RATE, Waveform
from ..engine import Engine
from ..events import Timings
from ..llm.llama import Floats
from ..llm.sampling import Generation
from ..llm.speculative import Reply, reply_to_all
from ..llm.stopping import cut_at
from ..system.exclusive import exclusively


@dataclass(frozen=True)
class IncrementalOptions:
    """How a segment is decoded."""

    short: bool | None = None
    """The segment alone is encoded, or (False) its whole padded window; None: what the model was trained on."""
    settle_s: float | None = None
    """Audio tokens of what ended longer ago stay as they are; None: all are computed again."""
    generation: Generation = field(default_factory=Generation)
    """How long an answer may be, what it stops at, which form it has. Greedy in any case."""
    draft: bool = True
    """Check the last answers as drafts; False decodes every token again, for comparison."""


@dataclass(frozen=True)
class Hypotheses:
    """What one pass over the segment found and took."""

    texts: tuple[str, ...]
    """One answer per prompt that was asked."""
    replies: tuple[Reply, ...]
    timings: Timings
    n_kept: int
    """Audio tokens whose KV was kept."""
    n_steps: int
    """Passes through the language model after the prefill."""


class IncrementalDecoder:
    """One segment and its prompts. What others ask the engine between two passes costs time, never correctness."""

    def __init__(self, engine: Engine, prompts: tuple[str, ...], options: IncrementalOptions) -> None:
        self.prompts = prompts
        self._engine = engine
        self.exclusive = engine.exclusive
        self._options = options
        self._drafts: tuple[tuple[int, ...], ...] = ((),) * len(prompts)
        self._settled = np.zeros((0, engine.spec.llm.hidden), np.float32)
        self._turn = -1  # of the language model, as it was left: another means that its cache holds something else

    @exclusively
    def decode(self, waveform: Waveform, first_alone: bool = False) -> Hypotheses:
        """Every prompt, or the first alone, about the segment as far as it goes. Raises InputError, RunError."""
        engine, options = self._engine, self._options
        started = time.monotonic()
        encoded = engine.encode(waveform, options.short)
        tokens = np.concatenate([self._settled, encoded.audio_tokens[len(self._settled) :]])
        n_kept = len(self._settled) if self._turn == engine.llm.turn else 0
        prompts = self.prompts[:1] if first_alone else self.prompts
        limits = [self._limit(prompt, len(waveform) / SAMPLE_RATE) for prompt in prompts]
        found = reply_to_all(engine.llm, tokens, prompts, self._drafts, limits, n_kept, options.generation, started)
        self._turn = engine.llm.turn
        self._settle(tokens, len(waveform) / SAMPLE_RATE)
        if options.draft:
            self._drafts = (*(reply.ids for reply in found.replies), *self._drafts[len(prompts) :])
        timings = encoded.timings(found.prefill_ms, found.decode_ms, sum(len(reply.ids) for reply in found.replies))
        stops = options.generation.stop
        texts = tuple(cut_at(engine.llm.text(reply.ids), stops).strip() for reply in found.replies)
        return Hypotheses(texts, found.replies, timings, found.n_kept, found.n_steps)

    def _limit(self, prompt: str, seconds: float) -> int:
        most = self._options.generation.max_new_tokens
        if self._options.generation.gbnf is not None:
            return most
        return min(most, self._engine.prompt.token_budget(prompt, seconds) or most)

    def _settle(self, tokens: Floats, end_s: float) -> None:
        """Keep the tokens of what ended more than settle_s ago."""
        if self._options.settle_s is None:
            return
        n_old = self._engine.spec.n_settled(int((end_s - self._options.settle_s) * SAMPLE_RATE))
        if n_old > len(self._settled):
            self._settled = tokens[:n_old].copy()
