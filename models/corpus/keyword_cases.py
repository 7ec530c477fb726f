"""Keyword cases: held-out sentences and names of demo-salm, or recordings, with lists -> marks of an answer.

A synthetic name's spelling is drawn anew for every clip and cannot be heard, so only a list can tell it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..audio import Waveform
from . import voices
from .examples import fit
from .names import NamedSentence, distractors, named_sentence, ordinary_sentence

LIST_SIZES = (1, 5, 20, 50)
LEAST_LETTERS = 5  # of a word of a recording that is worth listing
NEAR = 0.1  # of a list's other words differ from the name in one sound only


@dataclass(frozen=True)
class Case:
    """One held-out clip, the transcript its speaker meant, and the name in it as written there."""

    waveform: Waveform
    sentence: NamedSentence
    expected: str
    name: str | None
    others: tuple[str, ...] = ()
    """Words that lists are filled with, where they are not to be synthetic names."""


@dataclass(frozen=True)
class Arrangement:
    """One kind of list, put to clips that say a name or to ordinary ones."""

    title: str
    named: bool
    size: int
    with_name: bool


ARRANGEMENTS = (
    Arrangement("name, no list", True, 0, False),
    *(Arrangement(f"name, {n} listed", True, n, True) for n in LIST_SIZES),
    Arrangement("name, 20 others listed", True, 20, False),
    Arrangement("ordinary, no list", False, 0, False),
    Arrangement("ordinary, 20 others listed", False, 20, False),
)


@dataclass(frozen=True)
class Mark:
    """What became of one clip's listed words."""

    recalled: bool | None
    """The name stands in the answer as its speaker meant it; None where there is none."""
    right: int
    """Listed words in the answer that were said."""
    wrong: int
    """Listed words in the answer that were not."""
    edits: int
    """Words to exchange, add or remove."""
    words: int
    """In the transcript."""


def cases(named: bool, n: int, seed: int) -> Iterator[Case]:
    """`n` held-out clips: with one held-out name each, or ordinary ones."""
    index = 0
    while n > 0:
        waveform, sentence = held_out_clip(named, index, seed)
        index += 1
        if len(set(sentence.names)) > 1:
            continue
        n -= 1
        spelling = sentence.names[0].spelled(random.Random(f"spelled {index} {seed}")) if sentence.names else None
        expected = sentence.written([spelling] * len(sentence.names)) if spelling else sentence.frame
        yield Case(waveform, sentence, expected, spelling)


def held_out_clip(named: bool, index: int, seed: int) -> tuple[Waveform, NamedSentence]:
    """A held-out clip at a natural level by a voice of training."""
    rng = random.Random(f"salm held out {'named' if named else 'plain'} {index} {seed}")
    generator = np.random.default_rng(rng.getrandbits(64))
    sentence = named_sentence(rng, "held_out") if named else ordinary_sentence(rng, "held_out")
    waveform = fit(voices.speak(sentence.spoken, voices.training_voice(rng), rng), generator)
    noisy = voices.add_noise(waveform, generator, generator.uniform(20, 40))
    return voices.set_peak(noisy, generator.uniform(0.2, 0.9)), sentence


def recorded_cases(clips: Sequence[tuple[Waveform, str]]) -> list[Case]:
    """Recordings with what they say, words by spaces: of each the rarest word is listed, among those of the others.

    A word of five letters or more counts; clips without one are left out.
    """
    spoken = [{word for word in text.split() if len(word) >= LEAST_LETTERS} for _, text in clips]
    often = Counter(word for words in spoken for word in words)
    cases: list[Case] = []
    for (waveform, text), words in zip(clips, spoken, strict=True):
        if words:
            name = min(words, key=lambda word: (often[word], -len(word), word))
            others = tuple(sorted(often.keys() - set(text.split())))
            cases.append(Case(waveform, NamedSentence(text), text, name, others))
    return cases


def word_list(case: Case, size: int, with_name: bool, seed: str) -> list[str]:
    """A list of `size` words in any order; all but the name are not said."""
    rng = random.Random(f"list {seed}")
    own = [case.name] if with_name and case.name else []
    n_others = size - len(own)
    if case.others:
        listed = own + rng.sample(case.others, min(n_others, len(case.others)))
    else:
        listed = own + distractors(rng, n_others, case.sentence, "held_out", NEAR)
    rng.shuffle(listed)
    return listed


def mark(case: Case, listed: Sequence[str], answer: str) -> Mark:
    """One answer's."""
    reference = Counter(case.expected.split())
    hypothesis = Counter(answer.split())
    return Mark(
        recalled=None if case.name is None else case.name in hypothesis,
        right=sum(min(reference[word], hypothesis[word]) for word in set(listed)),
        wrong=sum(max(0, hypothesis[word] - reference[word]) for word in set(listed)),
        edits=word_edits(case.expected.split(), answer.split()),
        words=reference.total(),
    )


def word_edits(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """Words to exchange, add or remove to make one of the other."""
    row = list(range(len(hypothesis) + 1))
    for i, word in enumerate(reference, 1):
        diagonal = row[0]
        row[0] = i
        for j, other in enumerate(hypothesis, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1]
