"""Calibration set: recordings with the prompts asked about them -> audio tokens, token ids and answers.

The demo's clips, or a folder of recordings; a file of text lines too, to compare with what generic tools do.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from ...models.audio import SAMPLE_RATE, Waveform
from ...models.errors import InputError
from ...models.prompt import PromptInfo, first_task
from ...runtime.audio.decode import read_audio

LISTS = (".txt", ".json")  # beside the recordings, not among them


@dataclass(frozen=True)
class Example:
    """One question about one recording; or a text alone, which is the prompt."""

    audio: Path | None
    prompt: str
    answer: str | None
    """What follows, where it is known."""

    def waveform(self, n_samples: int) -> Waveform:
        """The recording's first n_samples. Raises AudioError."""
        assert self.audio is not None
        return read_audio(self.audio, max_seconds=n_samples / SAMPLE_RATE)


@dataclass(frozen=True)
class Calibration:
    """Examples, and what they are called."""

    name: str
    examples: tuple[Example, ...]

    @property
    def key(self) -> str:
        """Changes when a recording or a text does, without reading the recordings."""
        stats = [each.audio.stat() if each.audio else None for each in self.examples]
        return repr([(e, s.st_size, s.st_mtime_ns) if s else e for e, s in zip(self.examples, stats, strict=True)])


def calibration(source: Path | None, info: PromptInfo) -> Calibration:
    """None: the demo's clips. A folder: its recordings. A file: its lines. Raises InputError."""
    if source is None:
        return _demo(info)
    try:
        return _folder(source, info) if source.is_dir() else _lines(source)
    except OSError as error:
        raise InputError(
            f"{source} cannot be read ({error.strerror}): give --calibrate a folder of recordings"
        ) from None


def _demo(info: PromptInfo) -> Calibration:
    """The clips shipped with the demo; a family that has not the task is asked its first one, its answer unknown."""
    folder = Path(str(resources.files("auricle.models"))) / "demo" / "clips"
    clips: list[dict[str, str]] = json.loads((folder / "clips.json").read_text(encoding="utf-8"))
    examples: list[Example] = []
    for clip in clips:
        known = clip["task"].partition(":")[0] in info.tasks
        prompt = info.prompt_for(clip["task"]) if known else first_task(info)
        examples.append(Example(folder / clip["file"], prompt, clip["expected"] if known else None))
    return Calibration("Auricle's demo clips", tuple(examples))


def _folder(folder: Path, info: PromptInfo) -> Calibration:
    """Every file is a recording but hidden ones and LISTS; NAME.txt beside NAME.wav says what is said in it."""
    paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    recordings = [path for path in paths if path.suffix.lower() not in LISTS]
    if not recordings:
        raise InputError(f"{folder} holds no recordings: put some sound files there, NAME.txt beside NAME.wav")
    prompt = first_task(info)
    found = [Example(path, prompt, _transcript(path.with_suffix(".txt"))) for path in recordings]
    return Calibration(folder.resolve().name, tuple(found))


def _lines(path: Path) -> Calibration:
    lines = [line.strip() for line in _text(path).splitlines()]
    examples = tuple(Example(None, line, None) for line in lines if line)
    if not examples:
        raise InputError(f"{path} holds no text: give --calibrate a folder of recordings, or a file of text lines")
    return Calibration(path.name, examples)


def _transcript(path: Path) -> str | None:
    return (_text(path).strip() or None) if path.is_file() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(
            f"{path} is not text in UTF-8: give --calibrate a folder of recordings, NAME.txt beside NAME.wav"
        ) from None
