"""How good: the demo model on sentences, voices and sounds drawn from a seed and never trained on.

Word error is Levenshtein over words: substitutions, insertions and deletions, divided by the words spoken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from ..models import demo_corpus as corpus
from ..runtime.engine import Engine

N_SENTENCES, N_SOUNDS, N_SLOTS = 300, 140, 200
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class WordErrors:
    """Errors among words; adds up over sentences."""

    errors: int
    words: int

    @property
    def rate(self) -> float:
        """Errors per word spoken."""
        return self.errors / max(1, self.words)

    def __add__(self, other: WordErrors) -> WordErrors:
        return WordErrors(self.errors + other.errors, self.words + other.words)


def word_errors(reference: str, hypothesis: str) -> WordErrors:
    """The fewest word edits that turn the hypothesis into the reference."""
    said, heard = reference.split(), hypothesis.split()
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, 1):
        previous, row = row, [i]
        for j, other in enumerate(heard, 1):
            row.append(min(previous[j - 1] + (word != other), previous[j] + 1, row[j - 1] + 1))
    return WordErrors(row[-1], len(said))


@dataclass(frozen=True)
class Quality:
    """One bundle's scores, fractions."""

    wer_seen: float
    wer_unseen: float
    sound_accuracy: float
    slot_accuracy: float
    query_accuracy: float
    keyword_accuracy: float
    intent_accuracy: float
    by_voice: dict[str, float]  # word error of each unseen voice
    by_sound: dict[str, float]  # share of each class that was named


def evaluate(engine: Engine, seed: int, progress: Progress) -> Quality:
    """Every score of the demo evaluation."""
    seen = transcribe(engine, "seen", seed, progress)
    unseen = transcribe(engine, "unseen", seed, progress)
    sounds = _by_class(engine, seed, progress)
    return Quality(
        wer_seen=_total(seen).rate,
        wer_unseen=_total(unseen).rate,
        sound_accuracy=_mean([right for rights in sounds.values() for right in rights]),
        slot_accuracy=_exact(engine, corpus.slot_examples(N_SLOTS, seed), "slots", progress),
        query_accuracy=_exact(engine, corpus.query_examples(N_SLOTS, seed), "questions", progress),
        keyword_accuracy=_exact(engine, corpus.query_examples(N_SLOTS, seed, "keywords"), "keywords", progress),
        intent_accuracy=_exact(engine, corpus.intent_examples(N_SLOTS, seed), "intents", progress),
        by_voice={voice: errors.rate for voice, errors in unseen.items()},
        by_sound={name: _mean(rights) for name, rights in sounds.items()},
    )


def transcribe(
    engine: Engine, split: Literal["seen", "unseen"], seed: int, progress: Progress
) -> dict[str, WordErrors]:
    """Word errors by voice on N_SENTENCES held-out sentences."""
    errors: dict[str, WordErrors] = {}
    for done, example in enumerate(corpus.held_out(split, N_SENTENCES, seed), 1):
        voice = example.clip.voice or ""
        made = word_errors(example.expected, _answer(engine, example))
        errors[voice] = errors.get(voice, WordErrors(0, 0)) + made
        progress(f"{split} voices", done, N_SENTENCES)
    return errors


def wer(engine: Engine, split: Literal["seen", "unseen"], seed: int, progress: Progress) -> float:
    """Word error over all voices of a split."""
    return _total(transcribe(engine, split, seed, progress)).rate


def _by_class(engine: Engine, seed: int, progress: Progress) -> dict[str, list[bool]]:
    rights: dict[str, list[bool]] = {}
    for done, example in enumerate(corpus.sound_examples(N_SOUNDS, seed), 1):
        name = example.clip.sound or ""
        rights.setdefault(name, []).append(corpus.named_sound(_answer(engine, example)) == name)
        progress("sounds", done, N_SOUNDS)
    return rights


def _exact(engine: Engine, examples: Iterable[corpus.Example], what: str, progress: Progress) -> float:
    rights: Counter[bool] = Counter()
    for done, example in enumerate(examples, 1):
        rights[_answer(engine, example) == example.expected] += 1
        progress(what, done, N_SLOTS)
    return rights[True] / max(1, rights.total())


def _answer(engine: Engine, example: corpus.Example) -> str:
    return engine.ask(example.clip.waveform, example.prompt).text


def _total(errors: dict[str, WordErrors]) -> WordErrors:
    return sum(errors.values(), WordErrors(0, 0))


def _mean(rights: list[bool]) -> float:
    return sum(rights) / max(1, len(rights))
