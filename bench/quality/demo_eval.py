"""`auricle-bench demo-eval`: sentences, voices and sounds never trained on -> how good the demo model is.

Word error: substitutions, insertions and deletions, divided by the words spoken (bench/word_errors.py).
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from ...models.corpus.examples import (
    Example,
    held_out,
    intent_examples,
    named_sound,
    query_examples,
    slot_examples,
    sound_examples,
)
from ...runtime.engine import Engine, load
from ..word_errors import WordErrors, total, word_errors

N_SENTENCES, N_SOUNDS, N_SLOTS = 300, 140, 200
Progress = Callable[[str, int, int], None]


def run(arguments: argparse.Namespace, tell: Progress) -> None:
    """The command: prints the table, then one JSON object as the last line."""
    with load(arguments.bundle) as engine:
        name = engine.bundle.manifest.name
        precision = engine.bundle.manifest.quantization
        scores = evaluate(engine, arguments.seed, tell)
    full = None
    if arguments.f32:
        with load(arguments.f32) as engine:
            full = wer(engine, "seen", arguments.seed, tell)
    print(f"{name}, encoders {precision.encoders}, llm {precision.llm}, seed {arguments.seed}")
    for what, value in (
        ("word error, voices of training", scores.wer_seen),
        ("  the same at fp32 / f32", full),
        ("word error, unseen voices", scores.wer_unseen),
        *((f"  {voice}", rate) for voice, rate in sorted(scores.by_voice.items())),
        ("sounds named", scores.sound_accuracy),
        *((f"  {sound}", share) for sound, share in sorted(scores.by_sound.items()) if share < 1),
        ("slots filled", scores.slot_accuracy),
        ("spoken questions answered word for word", scores.query_accuracy),
        ("keywords, all three in order", scores.keyword_accuracy),
        ("commands as JSON, all three parts", scores.intent_accuracy),
    ):
        print(f"{what:<42} {'-' if value is None else f'{value:7.2%}'}")
    line = {
        "wer_seen": scores.wer_seen,
        "wer_unseen": scores.wer_unseen,
        "sound_accuracy": scores.sound_accuracy,
        "slot_accuracy": scores.slot_accuracy,
        "wer_seen_f32": full,
    }
    print(json.dumps({k: v if v is None else round(v, 5) for k, v in line.items()}))


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
        wer_seen=total(seen.values()).rate,
        wer_unseen=total(unseen.values()).rate,
        sound_accuracy=_mean([right for rights in sounds.values() for right in rights]),
        slot_accuracy=_exact(engine, slot_examples(N_SLOTS, seed), "slots", progress),
        query_accuracy=_exact(engine, query_examples(N_SLOTS, seed), "questions", progress),
        keyword_accuracy=_exact(engine, query_examples(N_SLOTS, seed, "keywords"), "keywords", progress),
        intent_accuracy=_exact(engine, intent_examples(N_SLOTS, seed), "intents", progress),
        by_voice={voice: errors.rate for voice, errors in unseen.items()},
        by_sound={name: _mean(rights) for name, rights in sounds.items()},
    )


def transcribe(
    engine: Engine, split: Literal["seen", "unseen"], seed: int, progress: Progress
) -> dict[str, WordErrors]:
    """Word errors by voice on N_SENTENCES held-out sentences."""
    errors: dict[str, WordErrors] = {}
    for done, example in enumerate(held_out(split, N_SENTENCES, seed), 1):
        voice = example.clip.voice or ""
        made = word_errors(example.expected, _answer(engine, example), str.split)
        errors[voice] = errors.get(voice, WordErrors(0, 0)) + made
        progress(f"{split} voices", done, N_SENTENCES)
    return errors


def wer(engine: Engine, split: Literal["seen", "unseen"], seed: int, progress: Progress) -> float:
    """Word error over all voices of a split."""
    return total(transcribe(engine, split, seed, progress).values()).rate


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
