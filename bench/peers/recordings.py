"""Contestants for a table of recordings: a bundle's transcripts beside those of faster-whisper and whisper.cpp.

Everybody hears every recording of the table in each round, from samples in memory, one after the other. faster-whisper
is told the language, as who uses it with an English model would; "beam 5" is what it does unless told otherwise. It
does not hear again what it was unsure of, for then it draws lots, and every round must compute the same. whisper.cpp,
asked the same way, has the same weights in Q8_0.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...models.audio import Waveform
from ...models.bundle import read_manifest
from ...models.errors import InputError
from ..result import OURS, Measure
from .ggml_format import write_recognizer
from .task import SEED, Contestant, Outcome, Task, Work, whole_or_absent

if TYPE_CHECKING:  # a peer's interpreter has neither what reads sound files nor what counts errors
    from ..datasets import Item

_FASTER_WHISPER = "faster-whisper==1.2.1"
_WHISPER_CPP = "pywhispercpp==1.5.1"
_TIMES = [f"<|{number * 0.02:.2f}|>" for number in range(1501)]
"""Whisper's timestamps, the last of its tokens."""
_FILES = "[0-9][0-9][0-9][0-9][0-9].npy"
_BEAMS = {"greedy": 1, "beam 5": 5}
SHORTEST = 17_600
"""Samples: whisper.cpp says nothing about less than a second, and a little more."""


def items(task: Task) -> list[Item]:
    """The table's recordings. Raises InputError without a table or a bundle, or where more than a text is asked."""
    from ..datasets import table_items

    if task.data is None or task.bundle is None:
        raise InputError("recordings are heard from a table by a bundle: give --data TSV and --bundle DIR")
    found = table_items(task.data, read_manifest(task.bundle).prompt, "asr", None, SEED)
    if other := next((item for item in found if item.kind != "words"), None):
        raise InputError(f"{other.origin} asks for more than a transcript: give a table of audio and text")
    return found


def measures(task: Task, name: str, texts: Sequence[str]) -> list[Measure]:
    """Word error of what one of them heard, with its interval, and of how many words."""
    from ..word_errors import percentages, total, word_errors

    errors = [word_errors(item.reference, text) for item, text in zip(items(task), texts, strict=True)]
    rates = percentages(errors, SEED).items()
    found = [Measure(name, measure, "%", (value,), "lower") for measure, value in rates]
    return [*found, Measure(name, "words", "", (total(errors).words,), "neither")]


def write_waveforms(task: Task) -> None:
    """float32 [n_samples] at 16 kHz of each recording, for everybody to hear the same."""
    from ...runtime.audio.decode import read_audio

    folder = _folder(task)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(_FILES):
        old.unlink()
    for number, item in enumerate(items(task)):
        np.save(folder / f"{number:05}.npy", read_audio(Path(item.audio)))


def _waveforms(task: Task) -> list[Waveform]:
    return [np.load(path) for path in sorted(_folder(task).glob(_FILES))]


def _folder(task: Task) -> Path:
    return task.work / "recordings"


def open_ours(task: Task) -> Work:
    """engine.ask, with our own choice of threads unless a number was asked for."""
    from ...runtime.engine import EngineOptions, load
    from ...runtime.llm.options import LlmOptions
    from ...runtime.system.ort import OrtOptions

    assert task.bundle is not None
    threads = None if task.own_threads else task.threads
    engine = load(task.bundle, EngineOptions(OrtOptions("cpu", threads), LlmOptions(n_threads=threads, n_gpu_layers=0)))
    waveforms = _waveforms(task)
    return Work(lambda: Outcome(texts=tuple(engine.ask(waveform, "asr").text for waveform in waveforms)))


def complete(task: Task, weights: Path) -> Path:
    """The directory, or one of links to its files beside a vocabulary.json, which some leave out, of its tokenizer."""
    if any(weights.glob("vocabulary.*")):
        return weights
    folder = task.work / "recognizers" / weights.name
    folder.mkdir(parents=True, exist_ok=True)
    for file in weights.iterdir():
        if not (folder / file.name).exists():
            (folder / file.name).symlink_to(file)
    tokenizer = json.loads((weights / "tokenizer.json").read_text(encoding="utf-8"))
    ids = tokenizer["model"]["vocab"] | {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    tokens = sorted(ids, key=ids.__getitem__)
    if _TIMES[0] not in ids:
        tokens += _TIMES
    (folder / "vocabulary.json").write_text(json.dumps(tokens), encoding="utf-8")
    return folder


def open_faster_whisper(weights: Path, beam_size: int) -> Callable[[Task], Work]:
    """In int8."""

    def opened(task: Task) -> Work:
        import faster_whisper  # pyright: ignore

        library: Any = faster_whisper
        place = str(complete(task, weights))
        model = library.WhisperModel(place, device="cpu", compute_type="int8", cpu_threads=task.threads)
        waveforms = _waveforms(task)

        def transcribe(waveform: Waveform) -> str:
            segments, _ = model.transcribe(waveform, language="en", beam_size=beam_size, temperature=0.0)
            return "".join(segment.text for segment in segments).strip()

        return Work(lambda: Outcome(texts=tuple(map(transcribe, waveforms))))

    return opened


def write_whisper_cpp(weights: Path) -> Callable[[Task], None]:
    """The directory as a file of whisper.cpp's."""

    def write(task: Task) -> None:
        if not (path := _ggml_file(task, weights)).exists():
            with whole_or_absent(path) as temporary:
                write_recognizer(temporary, weights)

    return write


def open_whisper_cpp(weights: Path, beam_size: int) -> Callable[[Task], Work]:
    """In Q8_0."""

    def opened(task: Task) -> Work:
        library: Any = import_module("pywhispercpp.model")
        options: dict[str, Any] = {"params_sampling_strategy": int(beam_size > 1), "n_threads": task.threads}
        if beam_size > 1:
            options["beam_search"] = {"beam_size": beam_size, "patience": -1.0}
        quiet = {"print_progress": False, "print_realtime": False, "redirect_whispercpp_logs_to": None}
        path = str(_ggml_file(task, weights))
        model = library.Model(path, language="en", temperature_inc=0.0, **options, **quiet)
        waveforms = _waveforms(task)

        def transcribe(waveform: Waveform) -> str:
            short = max(0, SHORTEST - len(waveform))
            return "".join(f" {each.text}" for each in model.transcribe(np.pad(waveform, (0, short)))).strip()

        return Work(lambda: Outcome(texts=tuple(map(transcribe, waveforms))))

    return opened


def _ggml_file(task: Task, weights: Path) -> Path:
    return task.work / "recognizers" / f"{weights.name}.q8_0.bin"


def contestants(task: Task) -> dict[str, Contestant]:
    """Ours, and the others with each of the directories, in both ways. InputError where two are called the same."""
    names = [weights.name for weights in task.recognizers]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(f"two recognizers are called {min(twice)}: give directories of different names")
    team = {OURS: Contestant(open_ours, write_waveforms)}
    for weights in task.recognizers:
        for way, beam_size in _BEAMS.items():
            name = f"faster-whisper {weights.name} {way}"
            team[name] = Contestant(open_faster_whisper(weights, beam_size), pip=_FASTER_WHISPER)
            name = f"whisper.cpp {weights.name} {way}"
            opened, written = open_whisper_cpp(weights, beam_size), write_whisper_cpp(weights)
            team[name] = Contestant(opened, written, _WHISPER_CPP, prepared_by_us=True)
    return team
