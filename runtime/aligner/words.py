"""Words of a text and the tokens of each, for the aligner: which carry the time, which are written beside it."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from wcwidth import iter_graphemes

_UNSPACED = ("CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA", "THAI", "LAO", "MYANMAR", "KHMER")
"""How the names of the letters begin that are written without blanks between words."""


@dataclass(frozen=True)
class WordTokens:
    """A word, and its tokens: what stands between white space, or one character where no blanks are written."""

    text: str
    ids: tuple[int, ...]
    """With the space before it."""
    first: int
    """The first of them that holds a letter or a digit; 0 where none does."""
    end: int
    """Behind the last of those."""


def word_tokens(text: str, tokenize: Callable[[str], list[int]], piece: Callable[[int], bytes]) -> list[WordTokens]:
    """The ids joined are those of the text, one space between its words: such a tokenizer cuts it before each space.

    Chinese, Japanese, Thai, Lao, Burmese and Khmer are cut at characters, as far as tokens are: one that holds two of
    them keeps them together, as in openai/whisper's timing.
    """
    return [_word(part, ids, piece) for word in text.split() for part, ids in _parts(word, tokenize(f" {word}"), piece)]


def _parts(word: str, ids: list[int], piece: Callable[[int], bytes]) -> list[tuple[str, list[int]]]:
    """The word with its ids; or, of a script without blanks, its characters with theirs."""
    cuts = _cuts(word)
    if not cuts:
        return [(word, ids)]
    found: list[tuple[str, list[int]]] = []
    begin, first, held = 0, 0, b""
    for behind, token in enumerate(ids, 1):
        held += piece(token)
        try:
            end = len(held.decode("utf-8").lstrip())
        except UnicodeDecodeError:  # ends inside a character
            continue
        if end in cuts or behind == len(ids):
            found.append((word[begin:end], ids[first:behind]))
            begin, first = end, behind
    return found


def _cuts(word: str) -> set[int]:
    """Where it may be cut: before such a letter, behind the last of them, and before what opens a quotation."""
    clusters = list(iter_graphemes(word))
    kinds = [_kind(cluster[0]) for cluster in clusters]
    if "unspaced" not in kinds:
        return set()
    cuts: set[int] = set()
    at, letter, before = 0, "", ""
    for cluster, kind in zip(clusters, kinds, strict=True):
        begins = kind in ("unspaced", "opening") or (kind == "spaced" and letter == "unspaced")
        if at and begins and before != "opening":
            cuts.add(at)
        letter = kind if kind in ("unspaced", "spaced") else letter
        before = kind
        at += len(cluster)
    return cuts


def _kind(character: str) -> str:
    category = unicodedata.category(character)
    if category in ("Ps", "Pi"):
        return "opening"
    if category == "Lm" or not character.isalnum():  # a mark that makes the letter before it longer, or says it again
        return "sign"
    return "unspaced" if unicodedata.name(character, "").startswith(_UNSPACED) else "spaced"


def _word(word: str, ids: list[int], piece: Callable[[int], bytes]) -> WordTokens:
    spoken = [at for at, token in enumerate(ids) if _spoken(piece(token))]
    first, end = (spoken[0], spoken[-1] + 1) if spoken else (0, len(ids))
    return WordTokens(word, tuple(ids), first, end)


def _spoken(piece: bytes) -> bool:
    """Whether a token is more than punctuation. A part of a character counts."""
    text = piece.decode("utf-8", "replace")
    return any(character.isalnum() or character == "\N{REPLACEMENT CHARACTER}" for character in text)
