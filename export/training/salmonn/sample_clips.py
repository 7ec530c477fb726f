"""The sample clips that travel with the demo bundle: held-out sentences and sounds, each with its prompt and answer."""

from __future__ import annotations

import json
import wave
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Literal

import numpy as np

from ....models.audio import SAMPLE_RATE, Waveform
from ....models.corpus import keyword_cases as demo_keywords
from ....models.corpus.examples import Clip, Example, expected_answer, held_out_clip, over_sound, sound_clip
from ....models.corpus.sentences import Utterance
from ....models.families import salm

_LONGEST = 3.6  # seconds, so that ten clips stay under 1.2 MB
_SEED = 2026
_LISTED = 5  # words with each clip that says a name

_SPOKEN: tuple[tuple[str, str, Literal["seen", "unseen"], Callable[[Utterance], bool]], ...] = (
    ("command", "asr", "seen", lambda said: said.text.startswith("turn ")),
    ("reminder", "slot_filling:task", "seen", lambda said: "task" in said.slots),
    ("weather", "slot_filling:city", "seen", lambda said: "weather" in said.text),
    ("sum", "speech_query", "seen", lambda said: " plus " in said.text),
    ("shopping", "keywords", "seen", lambda said: "shopping" in said.text),
    ("unseen-voice", "asr", "unseen", lambda said: "person" in said.slots),
)
_SOUNDS = ("siren", "birds")
_OVER = (("speech-over-rain", "rain", "audio_speech_description"), ("speech-over-dog", "dog", "audiocaption"))


def write_samples(folder: Path) -> list[Path]:
    """Write ten WAV files (16 kHz, 16 bit) and clips.json with the file, task, prompt and expected answer of each."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, str]] = []
    paths: list[Path] = []
    for name, example in samples():
        path = folder / f"{name}.wav"
        write_wave(path, example.clip.waveform)
        row = {"file": path.name, "task": example.task, "prompt": example.prompt, "expected": example.expected}
        rows.append(row)
        paths.append(path)
    (folder / "clips.json").write_text(json.dumps(rows, indent=2) + "\n")
    return paths


def write_named_samples(folder: Path, n: int = 6) -> list[Path]:
    """The second demo's: the first `n` short held-out clips that say a held-out name, each with a list of words.

    Nothing is chosen by how well the model hears it. A row of clips.json has `keywords` beside the others' fields.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = []
    paths: list[Path] = []
    for number, case in enumerate(demo_keywords.cases(True, 4 * n, _SEED)):
        if len(paths) == n or len(case.waveform) > _LONGEST * SAMPLE_RATE:
            continue
        paths.append(folder / f"name-{len(paths) + 1}.wav")
        write_wave(paths[-1], case.waveform)
        listed = demo_keywords.word_list(case, _LISTED, True, f"{_SEED} {number}")
        row = {"file": paths[-1].name, "task": "asr", "prompt": salm.TASKS["asr"]}
        rows.append({**row, "expected": case.expected, "keywords": listed})
    (folder / "clips.json").write_text(json.dumps(rows, indent=2) + "\n")
    return paths


def samples() -> Iterator[tuple[str, Example]]:
    """Names and examples of the sample clips."""
    for name, task, split, wanted in _SPOKEN:
        clip = _find(split, wanted)
        yield name, Example(clip, task, expected_answer(clip.utterance, None, task))
    for name in _SOUNDS:
        clip = sound_clip(name, np.random.default_rng(_SEED))
        short = Clip(clip.waveform[: 3 * SAMPLE_RATE], sound=name)
        yield name, Example(short, "audiocaption", expected_answer(None, name, "audiocaption"))
    for name, sound, task in _OVER:
        clip = over_sound(_find("seen", lambda said: "device" in said.slots), sound, np.random.default_rng(_SEED))
        yield name, Example(clip, task, expected_answer(clip.utterance, sound, task))


def write_wave(path: Path, waveform: Waveform) -> None:
    """Mono, 16 kHz, 16 bit."""
    pcm = np.clip(np.rint(waveform * 32767), -32768, 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(pcm.tobytes())


def _find(split: Literal["seen", "unseen"], wanted: Callable[[Utterance], bool]) -> Clip:
    """The first short held-out clip of a suitable sentence."""
    clips = (held_out_clip(split, index, _SEED) for index in count())
    return next(
        clip
        for clip in clips
        if clip.utterance and wanted(clip.utterance) and len(clip.waveform) <= _LONGEST * SAMPLE_RATE
    )
