"""Texts for the bench of support: WordNet's example sentences -> what is said, and what nobody said.

Wrong texts are those that recognizers make up: the text of other sound, a loop, a clause exchanged, a clause added.
"""

from __future__ import annotations

import random
from pathlib import Path

from ...models.corpus.wordnet import WORDNET, wordnet_sentences
from ...models.errors import InputError

MIN_WORDS = 5
MAX_WORDS = 14
RIGHT = "right"
WRONG = ("other", "loop", "exchanged", "added")


def sentences(folder: Path = WORDNET) -> list[str]:
    """WordNet's examples of MIN_WORDS to MAX_WORDS words. Raises InputError where there is no WordNet."""
    examples, _ = wordnet_sentences(folder)
    return [text for text in examples if MIN_WORDS <= len(text.split()) <= MAX_WORDS]


def drawn(n: int, rng: random.Random) -> list[str]:
    """n of them, each once. Raises InputError for more than there are."""
    known = sentences()
    if n > len(known):
        raise InputError(f"WordNet has {len(known)} sentences for this, and {n} are asked for: give a smaller --clips")
    return rng.sample(known, n)


def wrong_texts(said: str, other: str, rng: random.Random) -> dict[str, str]:
    """One of each kind of WRONG. other: a sentence that has nothing to do with what was said."""
    words = said.split()
    others = other.split()
    looped = words[-rng.randint(1, min(4, len(words))) :] * rng.randint(2, 6)
    kept = rng.randint(max(1, len(words) // 3), max(1, 2 * len(words) // 3))
    half = len(others) // 2
    front, back = others[:half], others[half:]
    exchanged = words[:kept] + back if rng.random() < 0.5 else front + words[kept:]
    texts = (other, " ".join(words + looped), " ".join(exchanged), " ".join(words + front))
    return dict(zip(WRONG, texts, strict=True))
