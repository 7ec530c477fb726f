"""`auricle-bench demo-eval`: sentences, voices, sounds and people never trained on -> how good the demo model is.

Word error: substitutions, insertions and deletions, divided by the words spoken (bench/word_errors.py). The threshold
is the avg_logprob that 95 % of the right transcripts of held-out sentences reach.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...models.corpus.examples import (
    INTENT_PROMPT,
    Example,
    held_out,
    intent,
    intent_examples,
    named_sound,
    query_examples,
    slot_examples,
    sound_examples,
)
from ...models.corpus.people import Recording, people
from ...models.corpus.sentences import vocabulary
from ...models.errors import InputError
from ...runtime.engine import Engine, load
from ..word_errors import WordErrors, total, word_errors

N_SENTENCES, N_SOUNDS, N_SLOTS = 300, 140, 200
N_LISTED = 10  # words that are listened for in one of the scores
PASSED = 0.95  # of the right transcripts, by the threshold
Progress = Callable[[str, int, int], None]


def run(arguments: argparse.Namespace, tell: Progress) -> None:
    """The command: prints the table, then one JSON object as the last line."""
    with load(arguments.bundle) as engine:
        name = engine.bundle.manifest.name
        precision = engine.bundle.manifest.quantization
        scores = evaluate(engine, arguments.seed, tell)
        doubts = _doubts(engine, scores.threshold, tell)
    full = None
    if arguments.f32:
        with load(arguments.f32) as engine:
            full = transcribe(engine, "seen", arguments.seed, tell).total
    print(f"{name}, encoders {precision.encoders}, llm {precision.llm}, seed {arguments.seed}")
    for what, value in (
        ("word error, voices of training", scores.wer_seen),
        ("  the same at fp32 / f32", full),
        (f"  the same with {N_LISTED} words listed", scores.wer_listed),
        ("word error, unseen voices", scores.wer_unseen),
        *((f"  {voice}", rate) for voice, rate in sorted(scores.by_voice.items())),
        ("sounds named", scores.sound_accuracy),
        *((f"  {sound}", share) for sound, share in sorted(scores.by_sound.items()) if share < 1),
        ("slots filled", scores.slot_accuracy),
        ("spoken questions answered word for word", scores.query_accuracy),
        ("keywords, all three in order", scores.keyword_accuracy),
        ("commands as JSON, all three parts", scores.intent_accuracy),
        *(doubts.rows() if doubts else ()),
    ):
        print(f"{what:<42} {'-' if value is None else f'{value:7.2%}'}")
    print(f"{'threshold of avg_logprob':<42} {scores.threshold:7.3f}")
    line = {
        "wer_seen": scores.wer_seen,
        "wer_unseen": scores.wer_unseen,
        "sound_accuracy": scores.sound_accuracy,
        "slot_accuracy": scores.slot_accuracy,
        "wer_seen_f32": full,
        "wer_listed": scores.wer_listed,
        "threshold": scores.threshold,
        "wer_people": doubts and doubts.wer_near,
        "prose_below": doubts and doubts.prose_below,
    }
    print(json.dumps({k: v if v is None else round(v, 5) for k, v in line.items()}))


@dataclass(frozen=True)
class Quality:
    """One bundle's scores, fractions."""

    wer_seen: float
    wer_listed: float
    """With words of its world listed that may occur, and do no more than others."""
    wer_unseen: float
    sound_accuracy: float
    slot_accuracy: float
    query_accuracy: float
    keyword_accuracy: float
    intent_accuracy: float
    threshold: float
    """avg_logprob that PASSED of the right transcripts reach."""
    by_voice: dict[str, float]  # word error of each unseen voice
    by_sound: dict[str, float]  # share of each class that was named


def evaluate(engine: Engine, seed: int, progress: Progress) -> Quality:
    """Every score of the demo evaluation."""
    seen = transcribe(engine, "seen", seed, progress)
    engine.keywords = random.Random(seed).sample(sorted(vocabulary()), N_LISTED)
    listed = transcribe(engine, "seen", seed, progress)
    engine.keywords = ()
    unseen = transcribe(engine, "unseen", seed, progress)
    sounds = _by_class(engine, seed, progress)
    return Quality(
        wer_seen=seen.total,
        wer_listed=listed.total,
        wer_unseen=unseen.total,
        sound_accuracy=_mean([right for rights in sounds.values() for right in rights]),
        slot_accuracy=_exact(engine, slot_examples(N_SLOTS, seed), "slots", progress),
        query_accuracy=_exact(engine, query_examples(N_SLOTS, seed), "questions", progress),
        keyword_accuracy=_exact(engine, query_examples(N_SLOTS, seed, "keywords"), "keywords", progress),
        intent_accuracy=_exact(engine, intent_examples(N_SLOTS, seed), "intents", progress),
        threshold=threshold([*seen.sure, *unseen.sure]),
        by_voice={voice: errors.rate for voice, errors in unseen.errors.items()},
        by_sound={name: _mean(rights) for name, rights in sounds.items()},
    )


@dataclass(frozen=True)
class Transcripts:
    """Of the held-out sentences of one split."""

    errors: dict[str, WordErrors]
    """By voice."""
    sure: list[float]
    """avg_logprob of those that are right."""

    @property
    def total(self) -> float:
        """Word error over all voices."""
        return total(self.errors.values()).rate


def transcribe(engine: Engine, split: Literal["seen", "unseen"], seed: int, progress: Progress) -> Transcripts:
    """N_SENTENCES held-out sentences."""
    errors: dict[str, WordErrors] = {}
    sure: list[float] = []
    for done, example in enumerate(held_out(split, N_SENTENCES, seed), 1):
        voice = example.clip.voice or ""
        answer = engine.ask(example.clip.waveform, example.prompt)
        errors[voice] = errors.get(voice, WordErrors(0, 0)) + word_errors(example.expected, answer.text, str.split)
        if answer.text == example.expected:
            sure += [final.avg_logprob for final in answer.segments if final.avg_logprob is not None]
        progress(f"{split} voices", done, N_SENTENCES)
    return Transcripts(errors, sure)


def threshold(sure: list[float]) -> float:
    """The avg_logprob that PASSED of these reach; 0 of none, which nothing passes."""
    return float(np.quantile(sure, 1 - PASSED)) if sure else 0.0


@dataclass(frozen=True)
class Doubts:
    """What becomes of recordings of people."""

    wer_near: float
    """Word error of cards and commands."""
    near_below: float
    """Share of their transcripts below the threshold."""
    wer_prose: float
    prose_below: float
    prose_none: float
    """Share of its segments whose JSON is no command."""

    def rows(self) -> tuple[tuple[str, float], ...]:
        """For the table."""
        return (
            ("word error, people's cards and commands", self.wer_near),
            ("  their transcripts below the threshold", self.near_below),
            ("word error, people's prose", self.wer_prose),
            ("  its transcripts below the threshold", self.prose_below),
            ("  its JSON without a command", self.prose_none),
        )


def _doubts(engine: Engine, least: float, progress: Progress) -> Doubts | None:
    """None where there are no recordings."""
    try:
        recordings = people()
    except InputError:
        return None
    near = [each for each in recordings if not each.prose]
    prose = [each for each in recordings if each.prose]
    progress("people", 0, len(recordings))
    wer_near, near_below = _of_people(engine, near, least)
    wer_prose, prose_below = _of_people(engine, prose, least)
    none = [final.text == intent(None) for each in prose for final in engine.ask(each.waveform, INTENT_PROMPT).segments]
    return Doubts(wer_near, near_below, wer_prose, prose_below, _mean(none))


def _of_people(engine: Engine, recordings: list[Recording], least: float) -> tuple[float, float]:
    """Word error, and the share of transcripts (one for each segment) less sure than `least`."""
    answers = [engine.ask(each.waveform, "asr") for each in recordings]
    pairs = zip(recordings, answers, strict=True)
    errors = total(word_errors(each.text, answer.text, str.split) for each, answer in pairs)
    below = [
        final.avg_logprob is not None and final.avg_logprob < least for answer in answers for final in answer.segments
    ]
    return errors.rate, _mean(below)


def _by_class(engine: Engine, seed: int, progress: Progress) -> dict[str, list[bool]]:
    rights: dict[str, list[bool]] = {}
    for done, example in enumerate(sound_examples(N_SOUNDS, seed), 1):
        name = example.clip.sound or ""
        rights.setdefault(name, []).append(named_sound(_answer(engine, example)) == name)
        progress("sounds", done, N_SOUNDS)
    return rights


def _exact(engine: Engine, examples: Iterable[Example], what: str, progress: Progress) -> float:
    rights: Counter[bool] = Counter()
    for done, example in enumerate(examples, 1):
        rights[_answer(engine, example) == example.expected] += 1
        progress(what, done, N_SLOTS)
    return rights[True] / max(1, rights.total())


def _answer(engine: Engine, example: Example) -> str:
    return engine.ask(example.clip.waveform, example.prompt).text


def _mean(rights: list[bool]) -> float:
    return sum(rights) / max(1, len(rights))
