"""`auricle-bench support`: right texts and wrong ones of the same sound -> how well an aligner tells them apart.

Synthetic voices say WordNet's example sentences. Half of them, by voices of their own, calibrate: the numbers in
runtime/aligner/support.py come from here. The other half, by other voices, and recordings of people are only measured.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...models.audio import Waveform
from ...models.corpus.sounds import SOUND_NAMES, synthesize
from ...models.corpus.voices import Voice, speak
from ...models.errors import InputError
from ...runtime.aligner.aligner import Aligner
from ...runtime.aligner.support import LEAST_SUPPORT, Evidence, log_odds, support_of
from ...runtime.audio.decode import read_audio
from ...runtime.bundle import open_bundle
from ...runtime.system.ort import OrtOptions
from ..report.plots import Chart, Curve, curves, draw, require_place
from .support_texts import RIGHT, WRONG, drawn, wrong_texts

CALIBRATED = (Voice("flite", "rms"), Voice("flite", "kal16"), Voice("espeak-ng", "en-us"))
HELD_OUT = (Voice("flite", "slt"), Voice("flite", "awb"), Voice("espeak-ng", "en-gb"))
FOREIGN = {
    "de": ("heute abend wird es kalt und regnerisch", "die kinder spielen im garten hinter dem haus"),
    "fr": ("il fait froid ce soir dans la ville", "les enfants jouent dans le jardin derrière la maison"),
    "es": ("esta noche hace frío en la ciudad", "los niños juegan en el jardín detrás de la casa"),
}
"""Sentences that espeak-ng says with the voice of that name."""
SOUND_SAMPLES = 80_000
N_DRAWS = 1000
_RIDGE = 0.1
Progress = Callable[[str, int, int], None]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """A text beside the sound of one clip."""

    group: str
    clip: int
    kind: str
    """RIGHT, or one of WRONG."""
    evidence: Evidence

    @property
    def support(self) -> float:
        return support_of(self.evidence)


def run(arguments: argparse.Namespace, progress: Progress) -> int:
    """Prints a table, and one JSON line last. Raises InputError, BundleError."""
    require_place(arguments.picture)
    bundle = open_bundle(arguments.bundle)
    if bundle.manifest.aligner is None:
        raise InputError(f"{bundle.directory} has no aligner: export it with --aligner")
    aligner = Aligner(bundle, OrtOptions(threads=arguments.threads))
    started = time.process_time()
    rows = [*_synthetic(aligner, arguments.clips, arguments.seed, progress)]
    ms = (time.process_time() - started) * 1e3 / (2 * arguments.clips)
    rows += _people(aligner, arguments.people, arguments.seed) if arguments.people else []
    told = {**_foreign(aligner, arguments.seed), **_sounds(aligner, arguments.seed)}
    aligner.close()
    of = {name: [row for row in rows if row.group == name] for name in ("calibrated", "held out", "people")}
    weights = fit(of["calibrated"])
    print(f"calibrated: {weights[0]:.3f} x mean + {weights[1]:.3f} x worst + {weights[2]:.3f}")
    groups = {**of, "held out, people": of["held out"] + of["people"]}
    summary = {name: _summary(found, arguments.seed) for name, found in groups.items() if found}
    print("\n".join(_table(summary)))
    for name, values in told.items():
        print(f"{name:<24} support " + ", ".join(f"{value:.2f}" for value in values))
    if arguments.picture:
        chart = _roc({name: groups[name] for name in ("held out", "people") if groups[name]})
        arguments.picture.write_bytes(draw(chart, 1).png)
    print(json.dumps({"weights": [round(w, 3) for w in weights], "ms_per_clip": round(ms), **summary, "told": told}))
    return 0


def _synthetic(aligner: Aligner, n: int, seed: int, progress: Progress) -> Iterator[Judged]:
    rng = random.Random(seed)
    texts = drawn(4 * n, rng)
    groups = (("calibrated", CALIBRATED), ("held out", HELD_OUT))
    for number, said in enumerate(texts[: 2 * n]):
        progress("support", number, 2 * n)
        group, voices = groups[number % 2]
        clip = speak(said, voices[number // 2 % len(voices)], rng).astype(np.float32)
        yield from _judged(aligner, group, number, clip, said, texts[2 * n + number], rng)


def _people(aligner: Aligner, table: Path, seed: int) -> Iterator[Judged]:
    """Lines of audio, tab, what was said."""
    rng = random.Random(seed)
    rows = [line.split("\t") for line in table.read_text(encoding="utf-8").splitlines() if line.strip()]
    if any(len(row) != 2 for row in rows):
        raise InputError(f"{table} must hold lines of an audio file, a tab, and what is said in it")
    others = drawn(len(rows), rng)
    for number, ((path, said), other) in enumerate(zip(rows, others, strict=True)):
        clip = read_audio(table.parent / path)
        yield from _judged(aligner, "people", -1 - number, clip, said, other, rng)


def _judged(
    aligner: Aligner, group: str, number: int, clip: Waveform, said: str, other: str, rng: random.Random
) -> Iterator[Judged]:
    texts = {RIGHT: said, **wrong_texts(said, other, rng)}
    for kind, found in zip(texts, aligner.evidence(clip, [*texts.values()]), strict=True):
        if found is not None:
            yield Judged(group, number, kind, found)


def _foreign(aligner: Aligner, seed: int) -> dict[str, list[float]]:
    """Support of what was said in other languages."""
    rng = random.Random(seed)
    told: dict[str, list[float]] = {}
    for language, texts in FOREIGN.items():
        clips = [speak(text, Voice("espeak-ng", language), rng).astype(np.float32) for text in texts]
        told[f"{language}, what is said"] = [aligner.support(c, t) or 0.0 for c, t in zip(clips, texts, strict=True)]
        english = drawn(len(texts), random.Random(seed))
        told[f"{language}, English text"] = [aligner.support(c, t) or 0.0 for c, t in zip(clips, english, strict=True)]
    return told


def _sounds(aligner: Aligner, seed: int) -> dict[str, list[float]]:
    """Support of a sentence where nobody speaks."""
    rng = np.random.default_rng(seed)
    clips = {name: 0.3 * synthesize(name, rng, SOUND_SAMPLES) for name in SOUND_NAMES}
    clips["white noise"] = rng.normal(0, 0.1, SOUND_SAMPLES).astype(np.float32)
    clips["silence"] = np.zeros(SOUND_SAMPLES, np.float32)
    texts = drawn(len(clips), random.Random(seed))
    found = zip(clips, clips.values(), texts, strict=True)
    return {name: [aligner.support(clip, text) or 0.0] for name, clip, text in found}


def fit(rows: Sequence[Judged]) -> list[float]:
    """Logistic regression by Newton's steps, right and wrong with the same weight: of the mean, the worst, the bias."""
    x = np.array([[row.evidence.mean, row.evidence.worst, 1.0] for row in rows])
    right = np.array([row.kind == RIGHT for row in rows])
    share = np.where(right, 0.5 / max(1, right.sum()), 0.5 / max(1, (~right).sum())) * len(rows)
    weights = np.zeros(3)
    for _ in range(50):
        chance = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        slope = x.T @ (share * (right - chance)) - _RIDGE * weights
        curvature = (x.T * (share * chance * (1 - chance))) @ x + _RIDGE * np.eye(3)
        weights = weights + np.linalg.solve(curvature, slope)
    return weights.tolist()


def area(right: Sequence[float], wrong: Sequence[float]) -> float:
    """Under the curve: how often a right text has more support than a wrong one, ties counted half."""
    above = np.subtract.outer(np.asarray(right), np.asarray(wrong))
    return float((above > 0).mean() + 0.5 * (above == 0).mean())


def _summary(rows: Sequence[Judged], seed: int) -> dict[str, float]:
    """Areas, of each kind of wrong text too; the interval by drawing clips anew."""
    right = [log_odds(row.evidence) for row in rows if row.kind == RIGHT]
    wrong = [row for row in rows if row.kind != RIGHT]
    scores = {kind: [log_odds(row.evidence) for row in wrong if row.kind == kind] for kind in WRONG}
    areas = {kind: round(area(right, found), 4) for kind, found in scores.items()}
    low, high = _interval(rows, seed)
    return {
        "segments": len(rows),
        "area": round(area(right, [log_odds(row.evidence) for row in wrong]), 4),
        "low": low,
        "high": high,
        **areas,
        "right_kept": round(float(np.mean([row.support >= LEAST_SUPPORT for row in rows if row.kind == RIGHT])), 4),
        "wrong_withheld": round(float(np.mean([row.support < LEAST_SUPPORT for row in wrong])), 4),
    }


def _interval(rows: Sequence[Judged], seed: int) -> tuple[float, float]:
    """95 % of the areas when as many clips are drawn anew, each with all its texts."""
    rng = np.random.default_rng(seed)
    clips = sorted({row.clip for row in rows})
    scores: dict[int, tuple[list[float], list[float]]] = {clip: ([], []) for clip in clips}
    for row in rows:
        scores[row.clip][row.kind != RIGHT].append(log_odds(row.evidence))
    areas: list[float] = []
    for _ in range(N_DRAWS):
        drawn = [scores[clips[n]] for n in rng.integers(0, len(clips), len(clips))]
        right, wrong = ([score for clip in drawn for score in clip[at]] for at in (0, 1))
        areas.append(area(right, wrong))
    low, high = np.percentile(areas, (2.5, 97.5))
    return round(float(low), 4), round(float(high), 4)


def _table(summary: dict[str, dict[str, float]]) -> list[str]:
    """A line for each group of clips."""
    kinds = "".join(f"{kind:>11}" for kind in WRONG)
    lines = [f"{'':<18}{'segments':>9}{'area':>8}{'95 %':>17}{kinds}{'right kept':>12}{'wrong withheld':>16}"]
    for name, found in summary.items():
        interval = f"{found['low']:.4f}-{found['high']:.4f}"
        areas = "".join(f"{found[kind]:>11.4f}" for kind in WRONG)
        shares = f"{found['right_kept']:>11.1%}{found['wrong_withheld']:>16.1%}"
        lines.append(f"{name:<18}{found['segments']:>9}{found['area']:>8.4f}{interval:>17}{areas} {shares}")
    return lines


def _roc(groups: dict[str, Sequence[Judged]]) -> Chart:
    lines: list[Curve] = []
    for name, rows in groups.items():
        ordered = sorted(rows, key=lambda row: -log_odds(row.evidence))
        right = np.array([row.kind == RIGHT for row in ordered])
        kept = np.cumsum(right) / right.sum()
        passed = np.cumsum(~right) / (~right).sum()
        lines.append(Curve(name, [0.0, *(100 * passed).tolist()], [0.0, *(100 * kept).tolist()]))
    caption = "Right texts that are kept against wrong ones that pass, for every least support. Up and left is better."
    return curves("Support", caption, lines, "wrong texts that pass, %", "right texts that are kept, %")
