"""Sampling: logits and the options of a generation in, one token id out. Pure numpy, knows nothing about llama.cpp.

Rules and their order are transformers' (docs/reference.md §4.4): repetition penalty, temperature, top-p.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ...models.errors import InputError

Float = TypeVar("Float", np.float32, np.float64)
MAX_BEAMS = 64


@dataclass(frozen=True)
class Generation:
    """How an answer is chosen. The defaults are greedy; SALMONN's own default is beams=4.

    Raises InputError for a value outside its range.
    """

    max_new_tokens: int = 200
    beams: int = 1  # 1 streams every token at once and needs one pass per token; 4 is the reference's choice
    temperature: float = 0.0  # 0 takes the likeliest token
    top_p: float = 0.9  # only when temperature > 0
    seed: int = 0  # the same seed draws the same answer
    repetition_penalty: float = 1.0  # > 1 discourages tokens that were generated before
    length_penalty: float = 1.0  # beams: > 0 favours long answers
    guard: bool = True  # end an answer that repeats itself, and a transcript with more words than can be spoken
    stop: tuple[str, ...] = ()  # stop sequences: an answer ends before the first; a conversation remembers it
    max_seconds: float | None = None  # of wall time for a segment, encoders included; what is there by then counts
    gbnf: str | None = None  # what an answer must look like, in llama.cpp's notation
    ignore_eos: bool = False  # True: EOS ends no answer, max_new_tokens ids come; to measure a fixed number of passes
    words: bool = False  # also say when each word of a transcription was said; the bundle needs an aligner
    min_support: float | None = None  # also say a transcription's support, and mark what has less; 0 marks nothing
    forced_ids: tuple[int, ...] = ()  # what an answer begins with, whatever the model would choose; each costs its pass

    def __post_init__(self) -> None:
        _require(self.max_new_tokens >= 1, "max_new_tokens", self.max_new_tokens, "at least 1")
        _require(1 <= self.beams <= MAX_BEAMS, "beams", self.beams, f"between 1 and {MAX_BEAMS}")
        _require(0 <= self.temperature < math.inf, "temperature", self.temperature, "0 (greedy) or more")
        _require(0 < self.top_p <= 1, "top_p", self.top_p, "more than 0 and at most 1")
        _require(self.seed >= 0, "seed", self.seed, "0 or more")
        penalty = self.repetition_penalty
        _require(0 < penalty < math.inf, "repetition_penalty", penalty, "more than 0; 1 changes nothing")
        _require(math.isfinite(self.length_penalty), "length_penalty", self.length_penalty, "a finite number")
        if self.max_seconds is not None:
            _require(0 < self.max_seconds < math.inf, "max_seconds", self.max_seconds, "more than 0")
        if self.min_support is not None:
            _require(0 <= self.min_support <= 1, "min_support", self.min_support, "between 0 and 1")
        _require(not isinstance(self.stop, str), "stop", repr(self.stop), "a tuple of texts")
        _require("" not in self.stop, "stop", '""', "a text")
        if self.ignore_eos and self.gbnf is not None:
            raise InputError(
                "ignore_eos=True cannot follow a grammar, at whose end only EOS may come: give one of them"
            )
        if self.beams > 1 and self.forced_ids:
            raise InputError(f"beams={self.beams} cannot be forced to say given tokens: give beams=1")
        if self.beams > 1 and (self.gbnf is not None or self.max_seconds is not None):
            what = "follow a grammar" if self.gbnf is not None else "end at a moment"
            raise InputError(f"beams={self.beams} cannot {what}: give beams=1")
        if self.beams > 1 and self.temperature > 0:
            raise InputError(
                f"beams={self.beams} and temperature={self.temperature} exclude each other:"
                " beam search does not draw at random, so give temperature 0 or beams 1"
            )

    def require_greedy(self, what: str = "live captions") -> None:
        """Raises InputError where the likeliest token would not be taken. what: needs it, in the plural."""
        if self.beams > 1 or self.temperature > 0 or self.repetition_penalty != 1:
            raise InputError(f"{what} are decoded greedily: give beams=1, temperature=0 and repetition_penalty=1")


def _require(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise InputError(f"{name}={value} is not possible: it must be {allowed}")


def forbid(logits: npt.NDArray[Float], ids: list[int], n_vocab: int) -> npt.NDArray[Float]:
    """A view [..., n_vocab] of logits, which change: -inf at `ids`. Neither these nor what lies beyond can come."""
    allowed = logits[..., :n_vocab]
    allowed[..., ids] = -np.inf
    return allowed


def penalize(scores: npt.NDArray[Float], ids: Iterable[int], penalty: float) -> npt.NDArray[Float]:
    """Scores [n_vocab] with those at `ids` divided by the penalty when positive, multiplied when negative.

    ids: what was generated; each counts once. The prompt does not, as in transformers with inputs_embeds.
    """
    if penalty == 1.0 or not (seen := sorted(set(ids))):
        return scores
    penalized = scores.copy()
    chosen = penalized[seen]
    penalized[seen] = np.where(chosen < 0, chosen * penalty, chosen / penalty)
    return penalized


def log_softmax(logits: npt.NDArray[Float]) -> npt.NDArray[np.float64]:
    """Log-probabilities over the last axis, float64."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True, dtype=np.float64))


def log_prob(logits: npt.NDArray[Float], token: int) -> float:
    """Log-probability of one id under logits [n_vocab]; -inf for one that cannot be chosen."""
    shifted = logits - logits.max()
    own = shifted[token]
    return float(own - np.log(np.exp(shifted, out=shifted).sum()))  # pairwise: float32 is enough


@dataclass
class TokenScores:
    """How likely the model found what it said: of the ids chosen, the one that ends an answer included.

    Under its own distribution, before a temperature, a penalty or a grammar; ids that were forced do not count.
    """

    total: float = 0.0
    """Sum of log-probabilities, nats."""
    n: int = 0

    def add(self, logits: npt.NDArray[Float], token: int) -> None:
        """The next id, chosen from logits [n_vocab]."""
        self.total += log_prob(logits, token)
        self.n += 1

    @property
    def mean(self) -> float | None:
        """None where nothing was chosen."""
        return self.total / self.n if self.n else None


def nucleus(
    probabilities: npt.NDArray[np.float64], top_p: float
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """The fewest likeliest entries that reach top_p: their indices, likeliest first, and shares of 1."""
    # All entries below this bound together have less than 1 - top_p: only the others need sorting.
    indices = np.flatnonzero(probabilities > (1 - top_p) / probabilities.size)
    indices = indices[np.argsort(-probabilities[indices], kind="stable")]
    ordered = probabilities[indices]
    n_kept = max(1, int((np.cumsum(ordered) - ordered < top_p).sum()))
    return indices[:n_kept], ordered[:n_kept] / ordered[:n_kept].sum()


def sample(logits: npt.NDArray[Float], generation: Generation, rng: np.random.Generator) -> int:
    """One id from logits [n_vocab]: the likeliest when temperature is 0, else drawn within top_p."""
    if generation.temperature == 0:
        return int(logits.argmax())
    # Subtracting the maximum first: a tiny temperature would otherwise overflow to inf and inf - inf.
    cooled = (logits.astype(np.float64) - logits.max()) / generation.temperature
    ids, probabilities = nucleus(np.exp(log_softmax(cooled)), generation.top_p)
    return int(rng.choice(ids, p=probabilities))
