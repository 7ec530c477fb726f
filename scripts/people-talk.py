"""People who talk for minutes: their recordings in any order, level, room and noise -> talk.wav, words.tsv beside it.

    .venv/bin/python scripts/people-talk.py --bundle small --minutes 20 --out build/people-talk
    .venv/bin/auricle-bench live small --source build/people-talk/talk.wav --words build/people-talk/words.tsv

The recordings are Debian's (models/corpus/people.py, export/training/small/announcements.py), none of them ever trained
on. What is said is known; when each word ends is the opinion of the bundle's aligner (docs/words.md says how good).
"""

from __future__ import annotations

import argparse
import random
import sys
import wave
from pathlib import Path

import numpy as np
from auricle.export.training.small.announcements import announcements
from auricle.models.audio import SAMPLE_RATE, Waveform
from auricle.models.corpus import voices
from auricle.models.corpus.people import Recording, people
from auricle.models.errors import AuricleError, InputError
from auricle.runtime.aligner.aligner import Aligner
from auricle.runtime.bundle import open_bundle
from auricle.runtime.system.ort import OrtOptions

PAUSE_S = (0.8, 2.5)
ROOM_SHARE, ROOM_S = 0.3, (0.1, 0.5)
NOISE_SHARE, NOISE_DB = 0.5, (15.0, 40.0)
PEAK_DB = (-24.0, -1.0)
QUIET = 1e-4  # rms of the noise in pauses: no room is silent


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--bundle", default="small", help="one with an aligner (default %(default)s)")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    arguments = parser.parse_args()
    try:
        bundle = open_bundle(arguments.bundle)
        if bundle.manifest.aligner is None:
            raise InputError(f"{arguments.bundle} has no aligner: give a bundle that has one, such as small")
        write(arguments.out, Aligner(bundle, OrtOptions()), arguments.minutes * 60, arguments.seed)
    except AuricleError as error:
        print(f"people-talk: {error}", file=sys.stderr)
        return 2
    return 0


def write(out: Path, aligner: Aligner, seconds: float, seed: int) -> None:
    """talk.wav, 16 bit at 16 kHz, and words.tsv: the second at which each word ends, a tab, the word."""
    rng, generator = random.Random(seed), np.random.default_rng(seed)
    recordings = [*people(), *announcements()]
    queue: list[Recording] = []
    out.mkdir(parents=True, exist_ok=True)
    n = n_words = 0
    with (
        wave.open(str(out / "talk.wav"), "wb") as sound,
        (out / "words.tsv").open("w", encoding="utf-8") as words,
    ):
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(SAMPLE_RATE)
        while n < seconds * SAMPLE_RATE:
            if not queue:
                queue = rng.sample(recordings, len(recordings))  # each once, then all again
            recording = queue.pop()
            spoken = [*recording.text.split()]
            timed = aligner.words(recording.waveform, recording.text)
            ends = [word.end_s for word in timed]
            if len(ends) != len(spoken):  # no opinion: evenly
                ends = list(np.linspace(0, len(recording.waveform) / SAMPLE_RATE, len(spoken) + 1)[1:])
            for word, end_s in zip(spoken, ends, strict=True):
                print(f"{n / SAMPLE_RATE + end_s:.3f}\t{word}", file=words)
            n_words += len(spoken)
            pause = np.zeros(int(rng.uniform(*PAUSE_S) * SAMPLE_RATE), np.float32)
            heard = np.concatenate([_somewhere(recording.waveform, rng, generator), pause])
            heard += generator.normal(0, QUIET, len(heard))
            sound.writeframes(np.round(np.clip(heard, -1, 1) * 32767).astype("<i2").tobytes())
            n += len(heard)
    print(f"{out / 'talk.wav'}: {n / SAMPLE_RATE / 60:.1f} minutes, {n_words} words")


def _somewhere(waveform: Waveform, rng: random.Random, generator: np.random.Generator) -> Waveform:
    """As it sounds in another room, with other noise, at another level."""
    if rng.random() < ROOM_SHARE:
        waveform = voices.reverberate(waveform, generator, rng.uniform(*ROOM_S))
    if rng.random() < NOISE_SHARE:
        waveform = voices.add_noise(waveform, generator, rng.uniform(*NOISE_DB))
    return voices.set_peak(waveform, 10 ** (rng.uniform(*PEAK_DB) / 20))


if __name__ == "__main__":
    sys.exit(main())
