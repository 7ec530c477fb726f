"""Recordings of people with what they say: the nearest there is to the demo's world, and prose, which is far from it.

Of the Debian package pocketsphinx-testdata (BSD-2): playing cards, commands and a reader of prose; and a speech.
"""

from __future__ import annotations

import wave
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from ..audio import SAMPLE_RATE, Waveform
from ..errors import InputError

PEOPLE = Path("/usr/share/pocketsphinx/test/data")
_JFK = "and so my fellow americans ask not what your country can do for you ask what you can do for your country"
_SPEECH = "jfk.wav"
_COMMANDS = {"goforward.raw": "go forward ten meters", "something.raw": "go somewhere and do something"}
_WORDS_CORRECTED = {"a more a amiable": "a more amiable"}


@dataclass(frozen=True)
class Recording:
    """Something a person said."""

    name: str
    waveform: Waveform
    text: str

    @property
    def prose(self) -> bool:
        """Whether it is read or spoken prose: no card and no command."""
        return self.name.startswith("librivox") or self.name == _SPEECH


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
    with resources.as_file(resources.files("auricle.export") / _SPEECH) as path:
        found.append(Recording(_SPEECH, _read(path), _JFK))
    return found


def _read(path: Path) -> Waveform:
    if path.suffix == ".raw":
        samples = np.fromfile(path, np.int16)
    else:
        with wave.open(str(path)) as file:
            assert file.getframerate() == SAMPLE_RATE, path
            samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)[:: file.getnchannels()]
    return (samples / 32768).astype(np.float32)
