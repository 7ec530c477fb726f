"""Texts for the bench of support: WordNet's example sentences -> what is said, and what nobody said.

Wrong texts are those that recognizers make up: the text of other sound, a loop, a clause exchanged, a clause added.
"""

from __future__ import annotations

import random
import re
from pathlib import Path

from ...models.errors import InputError

WORDNET = Path("/usr/share/wordnet")
"""Of the Debian package wordnet-base (WordNet 3.0)."""
MIN_WORDS = 5
MAX_WORDS = 14
RIGHT = "right"
WRONG = ("other", "loop", "exchanged", "added")
_EXAMPLE = re.compile(r'"([^"]+)"')
_PLAIN = re.compile(r"[a-z' ]+")


def sentences(folder: Path = WORDNET) -> list[str]:
    """Example sentences in lower case, without punctuation, each once. Raises InputError where there are none."""
    found = set[str]()
    for file in sorted(folder.glob("data.*")):
        for example in _EXAMPLE.findall(file.read_text(encoding="ascii", errors="ignore")):
            text = " ".join(re.sub(r"[,.;:!?]", " ", example.lower()).split())
            if _PLAIN.fullmatch(text) and MIN_WORDS <= len(text.split()) <= MAX_WORDS:
                found.add(text)
    if not found:
        raise InputError(f"{folder} holds no WordNet: install the Debian package wordnet-base")
    return sorted(found)


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
