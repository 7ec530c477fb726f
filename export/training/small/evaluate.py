"""Evaluation of `small` in training: recordings of people, held-out sentences by a held-out voice -> word error.

Word error in lower case without punctuation. People's recordings are only ever looked at: none chooses a checkpoint.

`python -m auricle.export.training.small.evaluate --work DIR --out DIR` writes both as sound files with a table each,
for `auricle-bench quality --data DIR/people.tsv` and whatever else reads `audio <TAB> text`.
"""

from __future__ import annotations

import argparse
import sys
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from ....models.audio import SAMPLE_RATE, Waveform
from ....models.errors import AuricleError, InputError
from ..salmonn.evaluate import edits
from .corpus import MAX_SECONDS, Texts, held_out_clip

PEOPLE = Path("/usr/share/pocketsphinx/test/data")
"""Of the Debian package pocketsphinx-testdata (BSD-2): playing cards, commands and a reader of prose."""
_JFK = "and so my fellow americans ask not what your country can do for you ask what you can do for your country"
_COMMANDS = {"goforward.raw": "go forward ten meters", "something.raw": "go somewhere and do something"}
_WORDS_CORRECTED = {"a more a amiable": "a more amiable"}


@dataclass(frozen=True)
class Recording:
    """Something a person said."""

    name: str
    waveform: Waveform
    text: str


def people() -> list[Recording]:
    """Thirteen recordings, 122 words. Raises InputError where the package is not installed."""
    if not PEOPLE.is_dir():
        raise InputError(f"{PEOPLE} is missing: install the Debian package pocketsphinx-testdata")
    found: list[Recording] = []
    for folder, transcript in (("cards", "cards.transcription"), ("librivox", "transcription")):
        for line in (PEOPLE / folder / transcript).read_text().splitlines():
            text, _, name = line.removeprefix("<s>").rpartition("</s>")
            words = " ".join(text.split())
            for wrong, right in _WORDS_CORRECTED.items():
                words = words.replace(wrong, right)
            file = name.strip(" ()") + ".wav"
            found.append(Recording(f"{folder}/{file}", _read(PEOPLE / folder / file), words))
    found += [Recording(name, _read(PEOPLE / name), text) for name, text in _COMMANDS.items()]
    with resources.as_file(resources.files("auricle.export") / "jfk.wav") as path:
        found.append(Recording("jfk.wav", _read(path), _JFK))
    return found


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
    """Parse, write both tables; returns the exit status."""
    module = "auricle.export.training.small.evaluate"
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="of the training: prose.txt has held-out lines too")
    parser.add_argument("--out", type=Path, required=True, help="directory for people.tsv, slt.tsv and their sounds")
    parser.add_argument("--sentences", type=int, default=600, help="held-out ones by slt (default %(default)s)")
    a = parser.parse_args(arguments)
    try:
        recordings = {"people": people(), "slt": held_out(Texts.load(a.work / "prose.txt", held_out=True), a.sentences)}
    except AuricleError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    for name, spoken in recordings.items():
        n_words = sum(len(recording.text.split()) for recording in spoken)
        print(f"{write_table(spoken, a.out, name)}: {len(spoken)} recordings, {n_words} words")
    return 0


def _read(path: Path) -> Waveform:
    if path.suffix == ".raw":
        samples = np.fromfile(path, np.int16)
    else:
        with wave.open(str(path)) as file:
            assert file.getframerate() == SAMPLE_RATE, path
            samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)[:: file.getnchannels()]
    return (samples / 32768).astype(np.float32)


if __name__ == "__main__":
    sys.exit(main())
