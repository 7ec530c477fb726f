"""Corpus of the demo on disk: shards of rendered training clips, as both front ends hear them.

A shard is `mel-NNN.npy` and `fbank-NNN.npy` (float16 frames of all its clips, one after the other) and
`clips-NNN.json`, written last: a shard without it is made again, so an interrupted run loses at most one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ....models.corpus.examples import Clip, training_clip
from ....models.corpus.sentences import Utterance
from .features import Frames, fbank, log_mel

SHARD = 500  # clips
Draw = Callable[[int], Clip]
"""Clip number n of a corpus."""


@dataclass(frozen=True)
class Rendered:
    """One clip as the encoders hear it."""

    log_mel: Frames
    """[n, 80]: the frames that hear any of the clip; all later ones have the value `floor`."""
    floor: float
    fbank: Frames
    utterance: Utterance | None
    sound: str | None

    def padded_mel(self, n_frames: int) -> Frames:
        """[80, n_frames], silence behind the clip, as Whisper's window wants it."""
        frames = np.full((n_frames, self.log_mel.shape[1]), self.floor, np.float32)
        n = min(n_frames, len(self.log_mel))
        frames[:n] = self.log_mel[:n]
        return frames.T


def render(clip: Clip) -> Rendered:
    """Both front ends over one clip."""
    frames, floor = log_mel(clip.waveform)
    return Rendered(frames, floor, fbank(clip.waveform), clip.utterance, clip.sound)


def is_prose(utterance: Utterance | None) -> bool:
    """Whether this is open English, whose words the demo does not know: it has no answer."""
    return utterance is not None and not utterance.answer


def write_corpus(folder: Path, n_clips: int, seed: int = 0, processes: int = 2, draw: Draw = training_clip) -> None:
    """Render `n_clips` training clips into `folder`, skipping the shards that are there."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = range(-(-n_clips // SHARD))
    missing = [index for index in wanted if not _path(folder, "clips", index, "json").exists()]
    with ProcessPoolExecutor(processes) as pool:
        for done, index in enumerate(pool.map(partial(_write_shard, folder, seed, draw), missing), 1):
            print(f"corpus: shard {index}, {done} of {len(missing)}", flush=True)


def read_corpus(folder: Path) -> list[Rendered]:
    """All rendered clips, their frames memory-mapped."""
    return [clip for path in sorted(folder.glob("clips-*.json")) for clip in _read_shard(folder, path)]


def _write_shard(folder: Path, seed: int, draw: Draw, index: int) -> int:
    first = (seed << 32) + index * SHARD
    clips = [render(draw(number)) for number in range(first, first + SHARD)]
    for kind in ("mel", "fbank"):
        frames = [clip.log_mel if kind == "mel" else clip.fbank for clip in clips]
        np.save(_path(folder, kind, index, "npy"), np.concatenate(frames).astype(np.float16))
    rows = [
        {
            "mel": len(clip.log_mel),
            "fbank": len(clip.fbank),
            "floor": clip.floor,
            "sound": clip.sound,
            "utterance": asdict(clip.utterance) if clip.utterance else None,
        }
        for clip in clips
    ]
    part = _path(folder, "clips", index, "part")
    part.write_text(json.dumps(rows))
    part.rename(part.with_suffix(".json"))
    return index


def _read_shard(folder: Path, path: Path) -> Iterator[Rendered]:
    index = int(path.stem.split("-")[1])
    mel, bank = (np.load(_path(folder, kind, index, "npy"), mmap_mode="r") for kind in ("mel", "fbank"))
    mel_at = bank_at = 0
    for row in json.loads(path.read_text()):
        mel_to = mel_at + row["mel"]
        bank_to = bank_at + row["fbank"]
        utterance = Utterance(**row["utterance"]) if row["utterance"] else None
        yield Rendered(mel[mel_at:mel_to], row["floor"], bank[bank_at:bank_to], utterance, row["sound"])
        mel_at, bank_at = mel_to, bank_to


def _path(folder: Path, kind: str, index: int, suffix: str) -> Path:
    return folder / f"{kind}-{index:03d}.{suffix}"
