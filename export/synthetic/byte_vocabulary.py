"""A Qwen vocabulary without a tokenizer.json: bytes, the words of a SALM's prompt, and synthetic ones up to a size.

For bundles of random weights. It cuts canary-qwen's prompt into as many ids as Qwen3's own, 9 before the audio and 5
after it, and its special tokens have Qwen3's ids, so that a prompt of random weights is the work of a real one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate, chain, product

from ..formats.byte_bpe import CONTROL, DOCUMENT_END, NORMAL, TURN_END, TURN_START, UNUSED, ByteVocabulary

BEYOND = 293  # rows of Qwen3's embedding that are special tokens or unused
_PRINTED = [*range(33, 127), *range(161, 173), *range(174, 256)]
_REST = [byte for byte in range(256) if byte not in set(_PRINTED)]
LETTERS = [*map(chr, _PRINTED), *(chr(256 + n) for n in range(len(_REST)))]
"""GPT-2's letter of each byte, in the order of Qwen's ids."""
_SPACE = LETTERS[len(_PRINTED) + _REST.index(32)]
_WORDS = ("user", "assistant", "Trans", "cribe", f"{_SPACE}the", f"{_SPACE}following")
_SYLLABLES = [c + v for c in "bdfghklmnprstvz" for v in ("a", "e", "i", "o", "u", "ar", "en", "is")]


def synthetic_bytes(size: int = 151936) -> ByteVocabulary:
    """A vocabulary of `size` rows, BEYOND of them special or unused."""
    n_normal = size - BEYOND
    pieces = dict.fromkeys(LETTERS)
    merges = list[str]()
    for left, right in chain(*map(_chain, _WORDS), _synthetic()):
        if len(pieces) >= n_normal:
            break
        if left + right not in pieces:
            pieces[left + right] = None
            merges.append(f"{left} {right}")
    specials = (DOCUMENT_END, TURN_START, TURN_END)
    unused = [f"[PAD{n}]" for n in range(n_normal + len(specials), size)]
    return ByteVocabulary(
        (*pieces, *specials, *unused),
        (*[NORMAL] * len(pieces), *[CONTROL] * len(specials), *[UNUSED] * len(unused)),
        tuple(merges),
        bos=n_normal,
        eos=n_normal + 2,
        pad=n_normal,
    )


def _chain(word: str) -> Iterator[tuple[str, str]]:
    """Merges that make a word from its letters, from the left."""
    return zip(accumulate(word[:-1]), word[1:], strict=True)


def _synthetic() -> Iterable[tuple[str, str]]:
    """Syllables from letters, then words of two and three syllables, each from the one before and a syllable."""
    yield from chain(*map(_chain, _SYLLABLES))
    yield from ((first, second) for first, second in product(_SYLLABLES, repeat=2))
    yield from ((first + second, third) for first, second, third in product(_SYLLABLES, repeat=3))
