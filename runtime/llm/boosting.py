"""Keyword boosting (contextual biasing by shallow fusion): words that may occur in, higher logits for their tokens out.

Every token that begins a listed word, or goes on with one that the answer has begun, gets a bonus. A model needs no
training for that, unlike for a list in its prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy.typing as npt

from .sampling import Float


class Boost(Protocol):
    """Logits [vocab] of the token behind the answer so far in; the same with what listed words gain out."""

    def __call__(self, logits: npt.NDArray[Float], ids: Sequence[int]) -> npt.NDArray[Float]:
        """ids: the answer so far. Another array than `logits`, or that one."""
        ...


@dataclass
class _Node:
    """Of the tree of all words' tokens: what may follow what was written of a word."""

    then: dict[int, _Node] = field(default_factory=lambda: dict[int, _Node]())


class KeywordBoost:
    """Listed words as tokens of one model.

    Each counts as it is written, in lower case, and with a capital, behind a space and, where no letter stands before,
    without one.
    """

    def __init__(
        self,
        words: Sequence[str],
        nats: float,
        tokenize: Callable[[str], list[int]],
        piece: Callable[[int], bytes],
    ) -> None:
        """nats: added to a logit. tokenize: ids of a text, nothing added; piece: the bytes of one."""
        self._nats = nats
        self._piece = piece
        self._spaced, self._bare = _Node(), _Node()
        self._longest = 0
        before = tokenize("x")
        for form in dict.fromkeys(form for word in words for form in (word, word.lower(), word[:1].upper() + word[1:])):
            behind = tokenize(f"x {form}")
            if behind[: len(before)] == before:
                self._add(self._spaced, behind[len(before) :])
            self._add(self._bare, tokenize(form))

    def __call__(self, logits: npt.NDArray[Float], ids: Sequence[int]) -> npt.NDArray[Float]:
        """Logits [vocab] of the token behind `ids`, the answer so far: another array, or this one."""
        tokens = list({token for node in self._begun(ids) for token in node.then})
        if not tokens:
            return logits
        boosted = logits.copy()
        boosted[tokens] += self._nats
        return boosted

    def _add(self, node: _Node, tokens: Sequence[int]) -> None:
        self._longest = max(self._longest, len(tokens))
        for token in tokens:
            node = node.then.setdefault(token, _Node())

    def _begun(self, ids: Sequence[int]) -> Iterator[_Node]:
        """What the end of the answer is of: both roots, and every beginning of a word."""
        for start in range(max(0, len(ids) - self._longest), len(ids) + 1):
            roots = [self._spaced] if self._in_word(ids, start) else [self._spaced, self._bare]
            for node in roots:
                for token in ids[start:]:
                    if (after := node.then.get(token)) is None:
                        break
                    node = after
                else:
                    yield node

    def _in_word(self, ids: Sequence[int], at: int) -> bool:
        """Whether a letter or digit stands before this place, which a word without a space would go on with."""
        return at > 0 and self._piece(ids[at - 1])[-1:].isalnum()


def unboosted(logits: npt.NDArray[Float], ids: Sequence[int]) -> npt.NDArray[Float]:
    """Where no words are listed."""
    del ids
    return logits
