"""Incremental re-decoding: a segment that grows -> its newest hypotheses, and what is kept from one to the next.

Of the language model the prefix's KV is kept, and with `settle_s` that of older audio tokens, which stay as they were
until a pass is to be exact; the hypotheses of one pass are the speculative drafts of the next.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import numpy as np

from ...models.audio import SAMPLE_RATE, Waveform
from ..engine import Engine
from ..events import Timings, Work
from ..llm.llama import Floats
from ..llm.sampling import Generation
from ..llm.speculative import Reply, reply_to_all
from ..llm.stopping import cut_at

SETTLE_S = 1.0
SETTLES_FROM_BYTES = 512 << 20
"""A language model so large takes longer to read a second of sound than to be asked; see docs/live.md."""


@dataclass(frozen=True)
class IncrementalOptions:
    """How a segment is decoded."""

    short: bool | None = None
    """The segment alone is encoded, or (False) its whole padded window; None: what the model was trained on."""
    settle_s: float | None = None
    """Audio tokens of what ended longer ago stay as they are until a pass is to be exact; None: SETTLE_S ago where the
    language model is large, else none do."""
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
    confident: bool
    """As Final.confident, of the first."""
    exact: bool
    """No audio token was kept that would have come out otherwise."""

    def work(self, latency_ms: float, was_there: bool) -> Work:
        """Of the update that shows this; was_there: it was decoded before."""
        n_audio_tokens = self.timings.n_audio_tokens
        n_new_tokens = self.timings.n_new_tokens
        if was_there:
            return Work(latency_ms, 0.0, n_audio_tokens, n_audio_tokens, 0, 0, n_new_tokens, 0)
        return Work(
            latency_ms=latency_ms,
            encoders_ms=self.timings.encoders_ms,
            n_audio_tokens=n_audio_tokens,
            n_kept=self.n_kept,
            n_drafted=sum(reply.n_drafted for reply in self.replies),
            n_accepted=sum(reply.n_accepted for reply in self.replies),
            n_new_tokens=n_new_tokens,
            n_steps=self.n_steps,
        )


@dataclass(frozen=True)
class IncrementalState:
    """What one pass leaves to the next."""

    drafts: tuple[tuple[int, ...], ...]
    """The last answer to each prompt."""
    audio_tokens: Floats
    """[n, hidden], as the language model read them."""
    n_settled: int
    """Of them, those that stay as they are until a pass is to be exact."""


class IncrementalDecoder:
    """One segment and its prompts. What others ask the engine between two passes costs time, never correctness."""

    def __init__(self, engine: Engine, prompts: tuple[str, ...], options: IncrementalOptions) -> None:
        """engine: or any of its lanes; each pass may be made by another."""
        self.prompts = prompts
        self._spec = engine.spec
        self._options = options
        self._settle_s = _settle_s(engine) if options.settle_s is None else options.settle_s
        self._llm = engine.llm  # that made the last pass
        self._turn = -1  # of it, as it was left: another means that its cache holds something else
        self._cached = self.create_state().audio_tokens  # those whose KV was left there

    def create_state(self) -> IncrementalState:
        """Before the first pass."""
        nothing = np.zeros((0, self._spec.llm.hidden), np.float32)
        return IncrementalState(((),) * len(self.prompts), nothing, 0)

    def step(
        self,
        engine: Engine,
        waveform: Waveform,
        state: IncrementalState,
        first_alone: bool = False,
        exact: bool = False,
    ) -> tuple[Hypotheses, IncrementalState]:
        """Every prompt, or the first alone, about the segment as far as it goes, and the state after it.

        engine: nobody else uses it meanwhile. state: of the last pass, or of one before it, whose answers are dropped
        then. exact: no audio token is kept that would come out otherwise now. Raises InputError, RunError.
        """
        with engine.exclusive:
            return self._step(engine, waveform, state, first_alone, exact)

    def _step(
        self, engine: Engine, waveform: Waveform, state: IncrementalState, first_alone: bool, exact: bool
    ) -> tuple[Hypotheses, IncrementalState]:
        options = self._options
        started = time.monotonic()
        encoded = engine.encode(waveform, options.short)
        n_settled = 0 if exact else state.n_settled
        tokens = np.concatenate([state.audio_tokens[:n_settled], encoded.audio_tokens[n_settled:]])
        held = self._llm is engine.llm and self._turn == engine.llm.turn
        n_kept = _n_same(self._cached, tokens) if held else 0
        prompts = self.prompts[:1] if first_alone else self.prompts
        limits = [engine.most_tokens(prompt, len(waveform) / SAMPLE_RATE, options.generation) for prompt in prompts]
        found = reply_to_all(engine.llm, tokens, prompts, state.drafts, limits, n_kept, options.generation, started)
        self._llm, self._turn, self._cached = engine.llm, engine.llm.turn, tokens
        ids = tuple(reply.ids for reply in found.replies)
        timings = encoded.timings(found.prefill_ms, found.decode_ms, sum(map(len, ids)))
        texts = tuple(cut_at(engine.llm.text(each), options.generation.stop).strip() for each in ids)
        drafts = (*ids, *state.drafts[len(ids) :]) if options.draft else state.drafts
        after = IncrementalState(drafts, tokens, self._n_settled(len(waveform)))
        sure = engine.bundle.manifest.generation.is_sure(found.replies[0].avg_logprob)
        same = np.array_equal(tokens, encoded.audio_tokens)
        return Hypotheses(texts, found.replies, timings, found.n_kept, found.n_steps, sure, same), after

    def _n_settled(self, n_samples: int) -> int:
        """Audio tokens of what ended more than settle_s before the end of so many samples."""
        end_s = n_samples / SAMPLE_RATE - self._settle_s
        return self._spec.n_settled(int(end_s * SAMPLE_RATE)) if end_s > 0 else 0


def _settle_s(engine: Engine) -> float:
    """Where nobody says how old an audio token is that is not read again."""
    return SETTLE_S if engine.llm.weights.n_bytes >= SETTLES_FROM_BYTES else math.inf


def _n_same(before: Floats, now: Floats) -> int:
    """How many leading rows are what they were."""
    n = min(len(before), len(now))
    other = (before[:n] != now[:n]).any(axis=1)
    return int(other.argmax()) if other.any() else n
