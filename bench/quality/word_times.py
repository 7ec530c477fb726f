"""`auricle-bench word-times`: sentences that flite speaks, with the durations it gives -> how far word times are.

flite gives the end of every phone (`-psdur`); a word has as many of them as it has when it is spoken alone. Sentences
where the sum is another are left out. The text aligned is the right one: the language model has no part in it.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from ...models.errors import InputError
from ...runtime.aligner.aligner import Aligner
from ...runtime.audio.decode import read_audio
from ...runtime.bundle import open_bundle
from ...runtime.system.ort import OrtOptions
from ..report.plots import Chart, Curve, curves, draw, require_place
from .support_texts import drawn

SENTENCES = (
    "the weather in london will be cold and rainy until next thursday",
    "please remind me to call my brother before seven o'clock",
    "she wrote three letters to the garden club and never sent them",
    "turn off the lamp in the kitchen and lock the front door",
    "he was not an ill disposed young man unless to be selfish is to be ill disposed",
    "what did the doctor say about the medicine for your cough",
    "the train to boston leaves from platform nine in twenty minutes",
    "ask not what your country can do for you",
)
"""Those by which the aligner's correction was chosen (models/aligner.py::AlignerSpec.late_frames)."""
VOICES = ("slt", "rms", "awb", "kal16")
PAUSE = "pau"
Span = tuple[float, float]
Progress = Callable[[str, int, int], None]


def run(arguments: argparse.Namespace, progress: Progress) -> int:
    """Prints a table by voice, and one JSON line last. Raises InputError, BundleError."""
    require_place(arguments.picture)
    bundle = open_bundle(arguments.bundle)
    if bundle.manifest.aligner is None:
        raise InputError(f"{bundle.directory} has no aligner: export it with --aligner")
    aligner = Aligner(bundle, OrtOptions())
    said = drawn(arguments.clips, random.Random(arguments.seed)) if arguments.clips else SENTENCES
    errors: dict[str, list[float]] = {voice: [] for voice in VOICES}
    took_ms: list[float] = []
    done = 0
    for voice in VOICES:
        for sentence in said:
            progress("words", done, len(VOICES) * len(said))
            done += 1
            found, ms = _sentence_errors(aligner, sentence, voice)
            errors[voice] += found
            took_ms += ms
    aligner.close()
    print(f"{'voice':<8}{'boundaries':>11}{'median ms':>11}{'90 % ms':>9}{'largest ms':>12}")
    rows = {**errors, "all": [each for found in errors.values() for each in found]}
    for name, found in rows.items():
        if found:
            print(f"{name:<8}{len(found):>11}{_ms(found, 50):>11.0f}{_ms(found, 90):>9.0f}{_ms(found, 100):>12.0f}")
    if arguments.picture:
        arguments.picture.write_bytes(draw(_within(errors), 1).png)
    every = rows["all"]
    summary = {"boundaries": len(every), "median_ms": _ms(every, 50), "p90_ms": _ms(every, 90)}
    print(json.dumps(summary | {"median_segment_ms": round(float(np.median(took_ms)))}))
    return 0


def _within(errors: dict[str, list[float]]) -> Chart:
    """How many of the boundaries of each voice are no further off than that."""
    lines: list[Curve] = []
    for voice, found in errors.items():
        shares = [100 * n / max(1, len(found)) for n in range(len(found) + 1)]
        lines.append(Curve(f"flite {voice}", [0.0, *sorted(1e3 * error for error in found)], shares))
    return curves("Word times", "", lines, "off by at most, ms", "boundaries, %")


def _sentence_errors(aligner: Aligner, sentence: str, voice: str) -> tuple[list[float], list[float]]:
    """Seconds by which each start and end is wrong, and the milliseconds it took; none where flite is not followed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        phones = _phones(sentence, voice, path)
        spans = word_spans(phones, [n_phones(word, voice) for word in sentence.split()])
        if spans is None:
            return [], []
        clip = read_audio(path)
    start = time.perf_counter()
    found = aligner.words(clip, sentence)
    ms = (time.perf_counter() - start) * 1e3
    pairs = zip(found, spans, strict=True)
    return [abs(d) for word, (a, b) in pairs for d in (word.start_s - a, word.end_s - b)], [ms]


def word_spans(phones: list[tuple[str, float]], counts: list[int]) -> list[Span] | None:
    """Start and end of each word, from (phone, its end in seconds); None where the counts are not those."""
    starts = [0.0, *(end for _, end in phones[:-1])]
    spoken = [(start, end) for start, (phone, end) in zip(starts, phones, strict=True) if phone != PAUSE]
    if len(spoken) != sum(counts) or 0 in counts:
        return None
    ends = np.cumsum(counts)
    return [(spoken[end - n][0], spoken[end - 1][1]) for n, end in zip(counts, ends.tolist(), strict=True)]


@cache
def n_phones(word: str, voice: str) -> int:
    """Of a word that stands alone."""
    with tempfile.TemporaryDirectory() as folder:
        return sum(phone != PAUSE for phone, _ in _phones(word, voice, Path(folder) / "word.wav"))


def _phones(text: str, voice: str, path: Path) -> list[tuple[str, float]]:
    command = ["flite", "-voice", voice, "-psdur", "-t", text, "-o", str(path)]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        raise InputError("flite is not installed: install the package flite") from None
    pairs = (each.rsplit(":", 1) for each in told.split())
    return [(phone, float(end)) for phone, end in pairs]


def _ms(errors: list[float], percent: float) -> float:
    return round(float(np.percentile(errors, percent)) * 1e3, 1)
