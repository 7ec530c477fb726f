"""Words of a text and the tokens of each, for the aligner: which carry the time, which are written beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class WordTokens:
    """A word between white space, and its tokens."""

    text: str
    ids: tuple[int, ...]
    """With the space before it."""
    first: int
    """The first of them that holds a letter or a digit; 0 where none does."""
    end: int
    """Behind the last of those."""


def word_tokens(text: str, tokenize: Callable[[str], list[int]], piece: Callable[[int], bytes]) -> list[WordTokens]:
    """The ids joined are those of the text, one space between its words: such a tokenizer cuts it before each space."""
    return [_word(word, tokenize(f" {word}"), piece) for word in text.split()]


def _word(word: str, ids: list[int], piece: Callable[[int], bytes]) -> WordTokens:
    spoken = [at for at, token in enumerate(ids) if _spoken(piece(token))]
    first, end = (spoken[0], spoken[-1] + 1) if spoken else (0, len(ids))
    return WordTokens(word, tuple(ids), first, end)


def _spoken(piece: bytes) -> bool:
    """Whether a token is more than punctuation. A part of a character counts."""
    text = piece.decode("utf-8", "replace")
    return any(character.isalnum() or character == "\N{REPLACEMENT CHARACTER}" for character in text)
