"""Datasets of the benches: the demo's held-out clips, or a table of recordings -> items with references.

    audio <TAB> reference [<TAB> task or prompt]        a line each; paths are relative to the table

A first line with names of columns (audio or path, text or sentence, task ...) may put them in any order among others.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..models.audio import Waveform
from ..models.corpus import examples
from ..models.errors import InputError
from ..models.prompt import PromptInfo
from ..runtime.audio.decode import open_audio, read_audio

Progress = Callable[[str, int, int], None]
N_DEMO = 200
COLUMNS = {
    "audio": ("audio", "path", "file", "filename", "wav", "clip"),
    "reference": ("reference", "text", "sentence", "transcript", "transcription", "caption", "expected"),
    "task": ("task", "prompt"),
}
"""What a header may call each column."""
_SHOWN = 5  # missing files that are named
_CAPTIONS = (
    "audiocaption",
    "audiocaption_v2",
    "audio_speech_description",
    "fluent_speech_audio",
    "music_description",
)
"""Tasks whose answers describe; of a family that has them."""


def quiet(stage: str, done: int, total: int) -> None:
    """A progress that nobody watches."""


@dataclass(frozen=True)
class Item:
    """One question about one clip, and the answer that is right."""

    audio: str
    """Path of a recording, or of float32 [n_samples] at 16 kHz as .npy."""
    reference: str
    prompt: str
    kind: str
    """How it is scored: "words" (word errors), "sound" (the demo's class is named), "caption" (words in common),
    "exact" (the same words or not)."""
    origin: str
    """What a message calls it."""


def demo_items(asked: PromptInfo, n: int | None, seed: int, folder: Path, progress: Progress) -> list[Item]:
    """n held-out sentences by voices of training and half as many sounds, drawn from the seed, written into a folder.

    No sounds for a model that has no task for them. Raises InputError where the synthesizers are missing.
    """
    n_words = N_DEMO if n is None else n
    drawn = list(examples.held_out("seen", n_words, seed))
    drawn += [e for e in examples.sound_examples(-(-n_words // 2), seed) if e.task in asked.tasks]
    items: list[Item] = []
    for index, example in enumerate(drawn):
        path = folder / f"demo-{index}.npy"
        np.save(path, example.clip.waveform)
        kind = "words" if example.task == "asr" else "sound"
        reference = example.expected if kind == "words" else example.clip.sound or ""
        items.append(Item(str(path), reference, asked.prompt_for(example.task), kind, f"demo clip {index}"))
        progress("clips", index + 1, len(drawn))
    return items


def table_items(table: Path, asked: PromptInfo, task: str, n: int | None, seed: int) -> list[Item]:
    """The lines of a table, or n of them drawn from the seed, in their order. `task` where a line has none.

    asked: how the model is asked, with its tasks by name.
    Raises InputError for a line that cannot be read, naming it, and for recordings that are not there, all at once.
    """
    lines = _lines(table)
    columns = _header(lines[0][1]) if lines else None
    if columns is not None:
        lines = lines[1:]
    if not lines:
        raise InputError(f"{table} holds no clips: give lines of an audio file, a tab and what it says")
    items = [_item(table, asked, number, line.split("\t"), columns, task) for number, line in lines]
    if n is not None and n < len(items):
        chosen = set(random.Random(seed).sample(range(len(items)), n))
        items = [item for index, item in enumerate(items) if index in chosen]
    _check_audio(items)
    return items


def load_clip(item: Item) -> Waveform:
    """float32 [n_samples] at 16 kHz. Raises AudioError."""
    return np.load(item.audio) if item.audio.endswith(".npy") else read_audio(item.audio)


def named_kind(task: str, asked: PromptInfo) -> str:
    """How answers to a task, or to its prompt, are scored."""
    prompt = asked.prompt_for(task)
    kinds = {"words": asked.transcriptions, "caption": _CAPTIONS}
    return next((kind for kind, names in kinds.items() if prompt in map(asked.tasks.get, names)), "exact")


def _lines(table: Path) -> list[tuple[int, str]]:
    """(line number, line) of those that are not blank."""
    try:
        text = table.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{table} cannot be read ({error.strerror}): give a TSV file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{table} is not UTF-8 text at byte {error.start}: save it as UTF-8") from None
    return [(number, line.rstrip("\r")) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def _header(line: str) -> dict[str, int] | None:
    """Where each column is, if the line names an audio and a reference column."""
    cells = [cell.strip().lower() for cell in line.split("\t")]
    found = {
        column: cells.index(name)
        for column, names in COLUMNS.items()
        for name in [next((name for name in names if name in cells), None)]
        if name is not None
    }
    return found if {"audio", "reference"} <= found.keys() else None


def _item(
    table: Path, asked: PromptInfo, number: int, cells: list[str], columns: dict[str, int] | None, task: str
) -> Item:
    where = f"{table}:{number}"
    if columns is None and len(cells) not in (2, 3):
        raise InputError(
            f"{where} has {len(cells)} columns: write an audio file, a tab, what it says and, perhaps, a tab and a task"
        )
    places = columns or {"audio": 0, "reference": 1, "task": 2}
    if max(places["audio"], places["reference"]) >= len(cells):
        raise InputError(f"{where} has {len(cells)} columns, fewer than the first line names: complete it")
    cell = {column: cells[at].strip() for column, at in places.items() if at < len(cells)}
    if not cell["audio"]:
        raise InputError(f"{where} names no audio file: write one before the tab")
    try:
        prompt = asked.prompt_for(chosen := cell.get("task") or task)
        return Item(str(table.parent / cell["audio"]), cell["reference"], prompt, named_kind(chosen, asked), where)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _check_audio(items: Sequence[Item]) -> None:
    """Every recording is there and begins as one. Raises InputError, AudioError."""
    missing = [item for item in items if not Path(item.audio).is_file()]
    if missing:
        named = "; ".join(f"{item.audio} ({item.origin})" for item in missing[:_SHOWN])
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise InputError(f"{len(missing)} of {len(items)} audio files are not there: {named}{more}; mend the table")
    for path, item in {item.audio: item for item in items}.items():
        try:
            open_audio(path)
        except InputError as error:
            raise InputError(f"{item.origin}: {error}") from None
