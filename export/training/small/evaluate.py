"""Evaluation of `small` in training: recordings of people, held-out sentences by a held-out voice -> word error.

Word error in lower case without punctuation. People's recordings are only ever looked at: none chooses a checkpoint.

`python -m auricle.export.training.small.evaluate --work DIR --out DIR` writes them as sound files with a table each,
for `auricle-bench quality --data DIR/people.tsv` and whatever else reads `audio <TAB> text`.
"""

from __future__ import annotations

import argparse
import sys
import wave
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ....models.audio import SAMPLE_RATE, Waveform
from ....models.corpus.people import Recording, people
from ....models.errors import AuricleError
from ..salmonn.evaluate import edits
from .announcements import announcements
from .corpus import MAX_SECONDS, Texts, held_out_clip


def held_out(texts: Texts, n: int) -> list[Recording]:
    """Held-out sentences by flite's slt, who is held out whole."""
    clips = [(seed, held_out_clip(texts, seed)) for seed in range(n)]
    return [Recording(f"slt {seed}", clip.waveform, clip.utterance.text) for seed, clip in clips if clip.utterance]


def word_error(
    recordings: Sequence[Recording], transcribe: Callable[[Waveform], str], show: bool = False
) -> tuple[float, list[str]]:
    """Word edits over words of reference, and the hypotheses; a recording over 10 s is transcribed in halves."""
    n_edits = n_words = 0
    hypotheses: list[str] = []
    for recording in recordings:
        n_parts = -(-len(recording.waveform) // int(MAX_SECONDS * SAMPLE_RATE))
        parts = np.array_split(recording.waveform, n_parts)
        hypothesis = " ".join(transcribe(part) for part in parts)
        n_edits += edits(recording.text.split(), hypothesis.split())
        n_words += len(recording.text.split())
        hypotheses.append(hypothesis)
        if show:
            print(f"    {recording.name}: {hypothesis}", flush=True)
    return n_edits / max(n_words, 1), hypotheses


def write_table(recordings: Sequence[Recording], folder: Path, name: str) -> Path:
    """`name`.tsv, and a 16-bit wav for each in a folder `name` beside it; returns the table's path."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    rows: list[str] = []
    for number, recording in enumerate(recordings):
        file = Path(name) / f"{number:04}.wav"
        with wave.open(str(folder / file), "wb") as sound:
            sound.setnchannels(1)
            sound.setsampwidth(2)
            sound.setframerate(SAMPLE_RATE)
            sound.writeframes((np.clip(recording.waveform, -1, 1) * 32767).round().astype("<i2").tobytes())
        rows.append(f"{file}\t{recording.text}\n")
    table = folder / f"{name}.tsv"
    table.write_text("".join(rows))
    return table


def main(arguments: list[str] | None = None) -> int:
    """Parse, write the tables; returns the exit status."""
    module = "auricle.export.training.small.evaluate"
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="of the training: prose.txt has held-out lines too")
    parser.add_argument(
        "--out", type=Path, required=True, help="directory for people.tsv, announcements.tsv, slt.tsv and their sounds"
    )
    parser.add_argument("--sentences", type=int, default=600, help="held-out ones by slt (default %(default)s)")
    a = parser.parse_args(arguments)
    try:
        texts = Texts.load(a.work / "prose.txt", held_out=True)
        recordings = {"people": people(), "announcements": announcements(), "slt": held_out(texts, a.sentences)}
    except AuricleError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    for name, spoken in recordings.items():
        n_words = sum(len(recording.text.split()) for recording in spoken)
        print(f"{write_table(spoken, a.out, name)}: {len(spoken)} recordings, {n_words} words")
    return 0


if __name__ == "__main__":
    sys.exit(main())
