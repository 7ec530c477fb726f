"""Sentences of open English: WordNet's glosses in, lower-case sentences to be spoken out.

A gloss is a definition, then example sentences in quotes. Both are English as people write it, and together they say
nearly every word that English has. Source: the Debian package wordnet-base, /usr/share/wordnet/data.* (WordNet 3.0).
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path

from ..errors import InputError

WORDNET = Path("/usr/share/wordnet")
"""Of the Debian package wordnet-base."""
MIN_WORDS, MAX_WORDS = 3, 22
HELD_OUT_PERCENT = 2
_PLAIN = re.compile(r"[a-z' ]+")
_EXAMPLE = re.compile(r'"([^"]+)"')
_ASIDE = re.compile(r"\([^)]*\)")
_LONGEST_WORD = 16


def wordnet_sentences(folder: Path = WORDNET) -> tuple[list[str], list[str]]:
    """Examples and definitions, each once, sorted. Raises InputError where WordNet is not installed."""
    files = sorted(folder.glob("data.*"))
    if not files:
        raise InputError(f"{folder} holds no WordNet: install the Debian package wordnet-base")
    examples = set[str]()
    definitions = set[str]()
    for file in files:
        for line in file.read_text(encoding="ascii", errors="ignore").splitlines():
            _, bar, gloss = line.partition("|")
            if not bar or line.startswith("  "):
                continue
            examples |= {text for quoted in _EXAMPLE.findall(gloss) if (text := spoken(quoted))}
            before = _ASIDE.sub(" ", gloss.partition('"')[0])
            definitions |= {text for part in before.split(";") if (text := spoken(part))}
    return sorted(examples), sorted(definitions)


def spoken(text: str) -> str | None:
    """The text as it is transcribed: lower case, no punctuation but apostrophes. None where that cannot be said."""
    plain = re.sub(r"\s+", " ", re.sub(r"[-,.!?:;/]", " ", text.lower().replace("`", "'"))).strip()
    words = plain.split()
    if not MIN_WORDS <= len(words) <= MAX_WORDS or not _PLAIN.fullmatch(plain):
        return None
    if any(len(word) > _LONGEST_WORD or word.startswith("'") or word.endswith("'") for word in words):
        return None
    return plain


def is_held_out(text: str) -> bool:
    """About one sentence in fifty, by a hash of its words: never trained on, whatever the seed."""
    return zlib.crc32(f"auricle small {text}".encode()) % 100 < HELD_OUT_PERCENT
