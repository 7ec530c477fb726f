"""Corpus of demo-salm: named sentences spoken by the demo's voices -> log-mel frames on disk.

The front end is the maths of docs/reference.md §7.2 up to the logarithm; the normalization over a clip is left to
`normalized`, so that training may cut clips. A shard is `mel-NNN.npy` (float16 frames of all its clips, one after the
other) and `clips-NNN.json`, written last: a shard without it is made again.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ....models.audio import SAMPLE_RATE, Waveform
from ....models.corpus import voices
from ....models.corpus.examples import disturb, quiet_clip
from ....models.corpus.names import Name, NamedSentence, named_sentence, ordinary_sentence
from ....models.encoders import fastconformer as fc

N_MELS = 80
SHARD = 500  # clips
Frames = NDArray[np.float32]


@dataclass(frozen=True)
class Spoken:
    """One clip as the encoder hears it, and what is said in it."""

    log_mel: NDArray[np.float16] | Frames
    """[n, 80], not normalized."""
    sentence: NamedSentence


def log_mel(waveform: Waveform) -> Frames:
    """ln of the mel powers of a clip: [n_samples // 160, 80], not normalized."""
    emphasized = np.concatenate([waveform[:1], waveform[1:] - np.float32(fc.PRE_EMPHASIS) * waveform[:-1]])
    padded = np.pad(emphasized, fc.N_FFT // 2)
    frames = sliding_window_view(padded, fc.N_FFT)[:: fc.HOP_LENGTH][: fc.n_frames(len(waveform))]
    edge = (fc.N_FFT - fc.WIN_LENGTH) // 2
    power = np.abs(np.fft.rfft(frames * np.pad(window(), edge))) ** 2
    return np.log(power @ filter_bank().T + fc.LOG_GUARD).astype(np.float32)


def normalized(frames: NDArray[np.float16] | Frames) -> Frames:
    """Each mel's mean 0 and unbiased standard deviation 1 over the clip [n, 80]."""
    wide = frames.astype(np.float32)
    return (wide - wide.mean(0)) / (wide.std(0, ddof=1) + fc.STD_GUARD)


@cache
def filter_bank() -> Frames:
    """Slaney mel filters [80, 257], 0 to 8000 Hz, rounded to BF16 as a checkpoint stores them."""
    top = 15.0 + np.log(8000.0 / 1000.0) / (np.log(6.4) / 27.0)
    mels = np.linspace(0.0, top, N_MELS + 2)
    hz = np.where(mels < 15.0, mels * 200.0 / 3.0, 1000.0 * np.exp((mels - 15.0) * (np.log(6.4) / 27.0)))
    bins = np.linspace(0.0, SAMPLE_RATE / 2, fc.N_BINS)
    left = hz[:-2, None]
    centre = hz[1:-1, None]
    right = hz[2:, None]
    triangles = np.maximum(0.0, np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)))
    return _rounded(triangles * (2.0 / (right - left)))


@cache
def window() -> Frames:
    """The symmetric Hann window [400], rounded to BF16."""
    return _rounded(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(fc.WIN_LENGTH) / (fc.WIN_LENGTH - 1)))


def write_corpus(folder: Path, n_clips: int, seed: int = 0, processes: int = 2) -> None:
    """Render `n_clips` training clips into `folder`, skipping the shards that are there."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [index for index in range(-(-n_clips // SHARD)) if not _path(folder, "clips", index, "json").exists()]
    with ProcessPoolExecutor(processes) as pool:
        for done, index in enumerate(pool.map(partial(_write_shard, folder, seed), missing), 1):
            print(f"corpus: shard {index}, {done} of {len(missing)}", flush=True)


def read_corpus(folder: Path) -> list[Spoken]:
    """All rendered clips."""
    return [clip for path in sorted(folder.glob("clips-*.json")) for clip in _read_shard(folder, path)]


def training_clip(seed: int) -> tuple[Waveform, NamedSentence]:
    """A random training clip: a sentence, two, the beginning of one, or nobody; six in ten have synthetic names."""
    rng = random.Random(f"salm {seed}")
    generator = np.random.default_rng([seed, 7])
    kind = rng.choices(("one", "two", "begun", "nobody"), (0.73, 0.08, 0.15, 0.04))[0]
    if kind == "nobody":
        return quiet_clip(generator), NamedSentence("")
    sentence = _sentence(rng)
    if kind == "two":
        other = _sentence(rng)
        sentence = NamedSentence(f"{sentence.frame} {other.frame}", sentence.names + other.names)
    if kind == "begun":
        frame = sentence.frame.split()
        begun = " ".join(frame[: rng.randint(1, len(frame))])
        sentence = NamedSentence(begun, sentence.names[: begun.count("{}")])
    return disturb(voices.speak(sentence.spoken, voices.training_voice(rng), rng), generator), sentence


def _sentence(rng: random.Random) -> NamedSentence:
    return named_sentence(rng, "train") if rng.random() < 0.62 else ordinary_sentence(rng, "train")


def _write_shard(folder: Path, seed: int, index: int) -> int:
    first = (seed << 32) + index * SHARD
    clips = [training_clip(number) for number in range(first, first + SHARD)]
    frames = [log_mel(waveform) for waveform, _ in clips]
    np.save(_path(folder, "mel", index, "npy"), np.concatenate(frames).astype(np.float16))
    rows = [
        {"n": len(mel), "frame": sentence.frame, "names": [name.code for name in sentence.names]}
        for mel, (_, sentence) in zip(frames, clips, strict=True)
    ]
    part = _path(folder, "clips", index, "part")
    part.write_text(json.dumps(rows))
    part.rename(part.with_suffix(".json"))
    return index


def _read_shard(folder: Path, path: Path) -> Iterator[Spoken]:
    frames = np.load(_path(folder, "mel", int(path.stem.split("-")[1]), "npy"), mmap_mode="r")
    start = 0
    for row in json.loads(path.read_text()):
        sentence = NamedSentence(row["frame"], tuple(Name.from_code(code) for code in row["names"]))
        yield Spoken(frames[start : start + row["n"]], sentence)
        start += row["n"]


def _path(folder: Path, kind: str, index: int, suffix: str) -> Path:
    return folder / f"{kind}-{index:03d}.{suffix}"


def _rounded(values: NDArray[np.float64]) -> Frames:
    return torch.from_numpy(values).bfloat16().float().numpy()
