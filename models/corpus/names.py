"""Synthetic names whose spelling cannot be heard -> the sentences they stand in, and the lists that spell them.

A name is a row of sounds. Synthesizers are given its plain respelling (`spoken`), the transcript has one of the many
ways to write it (`spelled`): "kalfin" is heard, "Calphyn" is meant. So only a word list in the prompt can tell the
spelling, which is what boosting is for. A hash of the sounds keeps about one name in ten out of training.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache

from . import words
from .sentences import sample_utterance, vocabulary

HELD_OUT_PERCENT = 10
_SOFT = "eiy"  # letters before which c is s and g is j
_ONSETS: dict[str, tuple[str, ...]] = {
    "b": ("b",), "d": ("d",), "f": ("f", "f", "ph"), "g": ("g", "g", "gh"), "h": ("h",), "j": ("j", "g"), "l": ("l",),
    "k": ("k", "c", "kh"), "m": ("m",), "n": ("n", "n", "kn"), "p": ("p",), "r": ("r", "r", "rh", "wr"),
    "s": ("s", "c", "sc"), "sh": ("sh", "sch"), "t": ("t", "t", "th"), "v": ("v",), "w": ("w", "wh"),
    "z": ("z", "z", "x"), "br": ("br",), "dr": ("dr",), "gr": ("gr",), "kr": ("kr", "cr", "chr"), "tr": ("tr",),
    "kl": ("kl", "cl"), "fl": ("fl", "phl"), "fr": ("fr", "phr"), "st": ("st",), "kw": ("kw", "qu"), "": ("",),
}  # fmt: skip
"""Sounds that begin a syllable, and ways to write them; a way that is twice in its row is twice as frequent."""
_VOWELS: dict[str, tuple[str, ...]] = {
    "a": ("a",), "e": ("e",), "i": ("i", "i", "y"), "o": ("o",), "u": ("u",),
    "ee": ("ee", "ea", "ie", "i"), "oo": ("oo", "oo", "u", "ou"), "ay": ("ay", "ai", "ei"), "or": ("or", "or", "aur"),
    "er": ("er", "ir", "ur", "yr"), "oy": ("oy", "oi"),
}  # fmt: skip
_CODAS: dict[str, tuple[str, ...]] = {
    "b": ("b",), "d": ("d",), "f": ("f", "ff", "ph"), "g": ("g",), "k": ("k", "ck", "c"), "l": ("l", "ll"),
    "m": ("m", "m", "mm"), "n": ("n", "n", "nn"), "p": ("p",), "s": ("s", "ss"), "t": ("t", "tt"), "v": ("v",),
    "z": ("z", "s"), "ks": ("x", "ks", "cks"), "sh": ("sh",), "st": ("st",), "": ("",),
}  # fmt: skip
_SHORT = tuple(vowel for vowel in _VOWELS if len(vowel) == 1)  # always followed by a consonant of their own
_MEDIAL = ("l", "n", "m", "s", "k", "f", "t")  # codas that stand before another consonant
_INITIAL_ONLY = ("kn", "wr", "x", "kh", "gh")
_DOUBLED = {"b": "bb", "d": "dd", "f": "ff", "g": "gg", "k": "ck", "l": "ll", "m": "mm", "n": "nn", "p": "pp",
            "s": "ss", "t": "tt", "z": "zz"}  # fmt: skip
"""How a respelling keeps a short vowel short before a vowel."""

Syllable = tuple[str, str, str]


@dataclass(frozen=True)
class Name:
    """A synthetic name as sounds: two or three syllables of onset, vowel and coda."""

    syllables: tuple[Syllable, ...]

    @property
    def spoken(self) -> str:
        """The respelling that a synthesizer reads as meant."""
        out = ""
        for number, (onset, vowel, coda) in enumerate(self.syllables):
            opens = number + 1 < len(self.syllables) and not self.syllables[number + 1][0]
            out += onset + vowel + (_DOUBLED.get(coda, coda) if opens else coda)
        return out

    @property
    def split(self) -> str:
        """'held_out' for about one name in ten, by a hash of its sounds; 'train' for the others."""
        bucket = zlib.crc32(f"earshot names {self.spoken}".encode()) % 100
        return "held_out" if bucket < HELD_OUT_PERCENT else "train"

    @property
    def code(self) -> str:
        """The sounds as text, for files: 'k.a.l f.i.n'."""
        return " ".join(".".join(syllable) for syllable in self.syllables)

    @classmethod
    def from_code(cls, code: str) -> Name:
        """The name of a `code`."""
        parts = (syllable.split(".") for syllable in code.split(" "))
        return cls(tuple((onset, vowel, coda) for onset, vowel, coda in parts))

    def spelled(self, rng: random.Random) -> str:
        """One of the ways to write it: from its end, because c and g are hard or soft by the letter behind them."""
        out = ""
        for number in range(len(self.syllables) - 1, -1, -1):
            onset, vowel, coda = self.syllables[number]
            final = not out
            initial = number == 0
            out = rng.choice([way for way in _CODAS[coda] if _fits(way, coda, out, final)]) + out
            out = rng.choice([way for way in _VOWELS[vowel] if _fits(way, vowel, out, initial)]) + out
            out = rng.choice([way for way in _ONSETS[onset] if _fits(way, onset, out, initial)]) + out
        return out


@dataclass(frozen=True)
class NamedSentence:
    """A sentence, with '{}' in the place of every name."""

    frame: str
    names: tuple[Name, ...] = ()

    @property
    def spoken(self) -> str:
        """What the synthesizer is told to say."""
        return self.frame.format(*(name.spoken for name in self.names))

    def written(self, spellings: Collection[str]) -> str:
        """The transcript, its names written as given."""
        return self.frame.format(*spellings)


def sample_name(rng: random.Random, split: str | None = None) -> Name:
    """Draw a name; with `split` ('train' or 'held_out'), draw until one belongs to it. Ordinary words are none."""
    while True:
        name = Name(tuple(_syllables(rng, rng.choice((2, 2, 2, 3)))))
        if name.spoken not in known_words() and split in (None, name.split):
            return name


def near_name(name: Name, rng: random.Random) -> Name:
    """A name that differs in one sound: what a list must not lure a listener into."""
    while True:
        number = rng.randrange(len(name.syllables))
        syllables = list(name.syllables)
        fresh = _syllable(rng, number, syllables)
        part = rng.randrange(3)
        mixed = tuple(
            new if place == part else old for place, (old, new) in enumerate(zip(syllables[number], fresh, strict=True))
        )
        syllables[number] = (mixed[0], mixed[1], mixed[2])
        other = Name(tuple(syllables))
        if other.spoken != name.spoken and _can_be_said(other):
            return other


def named_sentence(rng: random.Random, split: str) -> NamedSentence:
    """A sentence with one or two names of a split: one of the demo's with a person or city exchanged, or our own."""
    if rng.random() < 0.45:
        while True:
            utterance = sample_utterance(rng, "train")
            slots = [
                value for key in ("person", "city") if (value := utterance.slots.get(key, "")) and " " not in value
            ]
            if slots and (value := rng.choice(slots)) in utterance.text.split():
                frame = " ".join("{}" if word == value else word for word in utterance.text.split())
                return NamedSentence(frame, (sample_name(rng, split),) * frame.count("{}"))
    frame = rng.choice(_FRAMES)
    for blank, choices in _FILLERS.items():
        if blank in frame:
            frame = frame.replace(blank, rng.choice(choices))
    return NamedSentence(frame, tuple(sample_name(rng, split) for _ in range(frame.count("{}"))))


def ordinary_sentence(rng: random.Random, split: str) -> NamedSentence:
    """A sentence of the first demo's grammar, without a synthetic name."""
    return NamedSentence(sample_utterance(rng, split).text)


def distractors(rng: random.Random, n: int, sentence: NamedSentence, split: str, near: float = 0.1) -> list[str]:
    """`n` different words that are not said: synthetic names, in part like the ones that are, and ordinary words."""
    spoken = {name.spoken for name in sentence.names}
    texts = set(sentence.spoken.split())
    out = dict[str, None]()
    ordinary = ordinary_words()
    while len(out) < n:
        if rng.random() < 0.2:
            word = rng.choice(ordinary)
            out |= {word: None} if word not in texts else {}
            continue
        like = rng.choice(sentence.names) if sentence.names and rng.random() < near else None
        name = near_name(like, rng) if like else sample_name(rng, split)
        if name.spoken not in spoken:
            out[name.spelled(rng)] = None
    return list(out)


@cache
def known_words() -> frozenset[str]:
    """Every word of the demo's closed vocabulary."""
    return vocabulary() | {word for frame in _FRAMES for word in frame.split()}


@cache
def ordinary_words() -> tuple[str, ...]:
    """Words of the vocabulary that could stand in a list: those of five letters or more."""
    return tuple(sorted(word for word in vocabulary() if len(word) >= 5))


def _fits(way: str, sound: str, behind: str, at_edge: bool) -> bool:
    """Whether a way to write a sound can stand before the letters `behind`."""
    soft = behind[:1] in tuple(_SOFT)
    if way in ("c", "sc") and (sound == "s") != soft:
        return False
    if way == "c" and sound == "k" and behind[:1] in ("h", "k"):
        return False
    if way == "g" and sound == "j" and not soft:
        return False
    if way in _INITIAL_ONLY and sound != "ks":
        return at_edge
    if way in ("ff", "ll", "mm", "nn", "ss", "tt", "ck") and behind[:1] == way[-1]:
        return False
    return not (way == "s" and sound == "z" and behind[:1] == "h")


def _syllables(rng: random.Random, n: int) -> list[Syllable]:
    while True:
        out: list[Syllable] = []
        for number in range(n):
            out.append(_syllable(rng, number, out))
        if _can_be_said(Name(tuple(out))):
            return out


def _syllable(rng: random.Random, number: int, before: list[Syllable]) -> Syllable:
    joined = number > 0 and before[number - 1][2] in _DOUBLED and rng.random() < 0.5
    onset = "" if joined else rng.choice([sound for sound in _ONSETS if sound])
    vowel = rng.choice(tuple(_VOWELS))
    codas = [coda for coda in _CODAS if coda or vowel not in _SHORT]
    return onset, vowel, rng.choice(codas) if vowel in _SHORT or rng.random() < 0.4 else ""


def _can_be_said(name: Name) -> bool:
    """Whether synthesizers read the respelling as meant: no soft g, no open short vowel, no hidden doubling."""
    syllables = name.syllables
    for number, (onset, vowel, coda) in enumerate(syllables):
        after = syllables[number + 1][0] if number + 1 < len(syllables) else "-"
        if not (onset or number) or (onset == "g" and vowel[0] in _SOFT):
            return False
        if (vowel in _SHORT and not coda) or (vowel not in _SHORT and not coda and not after):
            return False
        if not after and coda not in _DOUBLED:
            return False
        if coda and after[:1] == coda[-1]:  # one long consonant: whose is it?
            return False
        if (coda == "g" and not after) or (vowel in ("or", "er") and coda not in ("", "n", "m", "l", "k", "t")):
            return False
        if coda and after not in ("", "-") and (coda not in _MEDIAL or after[:1] == "h" or after in ("sh", "st")):
            return False
    return True


_FRAMES = (
    "call {}", "call {} on monday", "ring {} at the office", "send a message to {}", "tell {} that dinner is ready",
    "remind {} about the rent", "remind {} to pay the rent on @day", "what is the weather in {}", "play music by {}",
    "play the new song by {}", "is {} at home", "who is {}", "invite {} and {} to the @event", "add {} to my contacts",
    "when is the next @vehicle to {}", "how far is {} from {} by @vehicle", "book a table at {} for two",
    "schedule the @event with {}", "cancel the @event with {}", "i am meeting {} in {}", "find a hotel in {}",
    "navigate to {}", "how do i get to {} by @vehicle", "order @item from {}", "open the door for {}",
    "ask {} to water the plants", "move the @event with {} to @day", "does {} have a @vehicle", "write to {} and {}",
    "the @event in {} is on @day", "will it rain in {} on @day", "read me the news from {}", "play @genre by {}",
    "turn on the light in the room of {}", "where does {} live", "share the photo with {}", "@item for {} please",
)  # fmt: skip
_FILLERS = {
    "@day": words.DAYS, "@event": words.EVENTS, "@vehicle": words.VEHICLES, "@item": words.ITEMS,
    "@genre": words.GENRES,
}  # fmt: skip
