"""The kept KV prefix: a question's token ids and audio tokens in, how many of them the cache holds already out.

    ids ... | audio tokens ... | not kept        positions of sequence 0

Bookkeeping alone: whoever feeds the cache says here what it holds. Knows nothing about llama.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence


class KvPrefix:
    """What sequence 0 of the KV cache begins with, as far as the next question may count on it."""

    def __init__(self) -> None:
        self._ids: tuple[int, ...] = ()
        self._n_audio_tokens = 0

    def __bool__(self) -> bool:
        """Whether anything is kept."""
        return bool(self._ids)

    def clear(self) -> None:
        """Nothing of the cache can be counted on."""
        self._ids = ()
        self._n_audio_tokens = 0

    def hold(self, ids: Sequence[int], n_audio_tokens: int = 0) -> None:
        """The cache begins with these ids, and so many audio tokens behind them."""
        self._ids = tuple(ids)
        self._n_audio_tokens = n_audio_tokens

    def n_ids_kept(self, ids: Sequence[int]) -> int:
        """How many leading ids of the next question are in the cache."""
        return n_alike(self._ids, ids)

    def n_audio_kept(self, ids: Sequence[int], n_same: int) -> int:
        """How many audio tokens behind `ids` are in the cache, where the first n_same are those of the last question.

        None behind other ids: their positions, and what they attended to, are others.
        """
        return min(n_same, self._n_audio_tokens) if self._ids and tuple(ids) == self._ids else 0


def n_alike(a: Sequence[int], b: Sequence[int]) -> int:
    """How many leading ids two sequences share."""
    pairs = zip(a, b, strict=False)
    return next((n for n, (one, other) in enumerate(pairs) if one != other), min(len(a), len(b)))
