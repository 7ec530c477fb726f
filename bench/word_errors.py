"""Word errors: reference and hypothesis -> edits, as jiwer finds the fewest; this module decides what a word is.

    text -> NFC -> lower case -> without punctuation -> words by spaces; letters of scripts without spaces one by one

So "It's 3.5, please!" is `its 3.5 please`, and what is counted on Chinese, Japanese or Thai text is its letters (CER).
Numbers are left as they are: "three" for "3" is an error, and so is "1000" for "1,000".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import jiwer
import numpy as np

_IN_NUMBER = re.compile(r"(?<=\d)[.,](?=\d)")
_APOSTROPHES = "'\u2019\u02bc"
_UNSPACED = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])"
)
"""Thai, Lao, Burmese, Khmer, kana, Han."""


@dataclass(frozen=True)
class WordErrors:
    """Errors among words; adds up over utterances."""

    errors: int
    """Substitutions, deletions and insertions."""
    words: int
    """In the reference."""

    @property
    def rate(self) -> float:
        """Errors per word spoken; of nothing spoken, per one word."""
        return self.errors / max(1, self.words)

    def __add__(self, other: WordErrors) -> WordErrors:
        return WordErrors(self.errors + other.errors, self.words + other.words)


def total(errors: Iterable[WordErrors]) -> WordErrors:
    """All of them together."""
    return sum(errors, WordErrors(0, 0))


def normalized(text: str) -> list[str]:
    """The words of a text: NFC, lower case, without punctuation and symbols but for points and commas inside a number.

    An apostrophe joins what stands around it (`don't` -> `dont`), other punctuation parts it (`well-known` is two).
    """
    text = unicodedata.normalize("NFC", text).lower()
    in_number = {match.start() for match in _IN_NUMBER.finditer(text)}
    letters = (c if at in in_number else _plain(c) for at, c in enumerate(text))
    return _UNSPACED.sub(r" \1 ", "".join(letters)).split()


def word_errors(reference: str, hypothesis: str, words: Callable[[str], list[str]] = normalized) -> WordErrors:
    """The fewest word edits that turn the hypothesis into the reference; `words=str.split` takes both as they are."""
    reference_words = words(reference)
    hypothesis_words = words(hypothesis)
    if not reference_words or not hypothesis_words:  # jiwer refuses some of these
        return WordErrors(max(len(reference_words), len(hypothesis_words)), len(reference_words))
    found = jiwer.process_words(" ".join(reference_words), " ".join(hypothesis_words))
    return WordErrors(found.substitutions + found.deletions + found.insertions, len(reference_words))


def matches(reference: Sequence[str], hypothesis: Sequence[str]) -> list[tuple[int, int]]:
    """(index in said, index in heard) of the words that an alignment with the fewest edits leaves as they are."""
    if not reference or not hypothesis:
        return []
    chunks = jiwer.process_words(" ".join(reference), " ".join(hypothesis)).alignments[0]
    return [
        (chunk.ref_start_idx + n, chunk.hyp_start_idx + n)
        for chunk in chunks
        if chunk.type == "equal"
        for n in range(chunk.ref_end_idx - chunk.ref_start_idx)
    ]


def differences(errors: Sequence[WordErrors], others: Sequence[WordErrors]) -> list[WordErrors]:
    """How many more errors one system makes than another, utterance by utterance: below 0 where it makes fewer.

    bootstrap_interval of them is a paired one. Raises ValueError unless both heard the same utterances.
    """
    return [WordErrors(own.errors - other.errors, own.words) for own, other in zip(errors, others, strict=True)]


def bootstrap_interval(
    errors: Sequence[WordErrors], seed: int, n: int = 1000, share: float = 0.95
) -> tuple[float, float]:
    """(low, high) between which `share` of the error rates lie when as many utterances are drawn again, n times."""
    if not errors:
        return 0.0, 0.0
    generator = np.random.default_rng(seed)
    counts = np.array([(each.errors, each.words) for each in errors])
    drawn = np.stack([counts[generator.integers(0, len(counts), len(counts))].sum(axis=0) for _ in range(n)])
    rates = drawn[:, 0] / np.maximum(1, drawn[:, 1])
    low, high = np.quantile(rates, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


def percentages(errors: Sequence[WordErrors], seed: int) -> dict[str, float]:
    """wer with the interval's ends wer_low and wer_high, in percent, as the benches' measures are called."""
    low, high = bootstrap_interval(errors, seed)
    return {"wer": 100 * total(errors).rate, "wer_low": 100 * low, "wer_high": 100 * high}


def token_f1(reference: str, hypothesis: str) -> float:
    """How alike two descriptions are: F1 of their words as bags, 0 to 1. Not a published caption metric."""
    reference_words = normalized(reference)
    hypothesis_words = normalized(hypothesis)
    if not reference_words or not hypothesis_words:
        return float(reference_words == hypothesis_words)
    shared = sum(min(reference_words.count(word), hypothesis_words.count(word)) for word in set(reference_words))
    return 2 * shared / (len(reference_words) + len(hypothesis_words))


def _plain(letter: str) -> str:
    if letter in _APOSTROPHES:
        return ""
    return " " if unicodedata.category(letter)[0] in "PS" else letter
