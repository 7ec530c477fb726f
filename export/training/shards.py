"""Shards of training data: clips behind both frozen encoders, float16 on disk, memory-mapped when read.

A shard is `speech-NAME.npy`, `audio-NAME.npy` (the rows of all its clips, one after the other) and `views-NAME.json`,
written last: a shard without it is made again, so an interrupted run loses at most one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...models.corpus.sentences import Utterance


@dataclass(frozen=True)
class View:
    """One clip, or the beginning of one, behind both encoders; rows are frames of 20 ms."""

    speech: NDArray[np.float16]
    """[n, d_speech]: frames that are whole windows."""
    audio: NDArray[np.float16]
    """[n, d_audio]."""
    utterance: Utterance | None
    """What was said in it; without answer and slots where it was cut off, or is open English."""
    sound: str | None
    cut: bool = False


def write_shard(folder: Path, name: str, views: Sequence[View]) -> None:
    """Write one shard; its JSON appears last and whole."""
    np.save(folder / f"speech-{name}.npy", np.concatenate([view.speech for view in views]))
    np.save(folder / f"audio-{name}.npy", np.concatenate([view.audio for view in views]))
    rows = [
        {
            "speech": len(view.speech),
            "audio": len(view.audio),
            "utterance": asdict(view.utterance) if view.utterance else None,
            "sound": view.sound,
            "cut": view.cut,
        }
        for view in views
    ]
    part = folder / f"views-{name}.part"
    part.write_text(json.dumps(rows))
    part.rename(part.with_suffix(".json"))


def read_shard(folder: Path, name: str) -> list[View]:
    """The views of one shard, their frames memory-mapped."""
    speech, audio = (np.load(folder / f"{kind}-{name}.npy", mmap_mode="r") for kind in ("speech", "audio"))
    found: list[View] = []
    speech_at = audio_at = 0
    for row in json.loads((folder / f"views-{name}.json").read_text()):
        speech_to = speech_at + row["speech"]
        audio_to = audio_at + row["audio"]
        utterance = Utterance(**row["utterance"]) if row["utterance"] else None
        view = View(speech[speech_at:speech_to], audio[audio_at:audio_to], utterance, row["sound"], row["cut"])
        found.append(view)
        speech_at, audio_at = speech_to, audio_to
    return found


def shard_names(folder: Path) -> list[str]:
    """Names of the finished shards, the oldest first."""
    return sorted(path.stem.removeprefix("views-") for path in folder.glob("views-*.json"))


def remove_shard(folder: Path, name: str) -> None:
    """Delete one shard, its JSON first."""
    for kind, suffix in (("views", "json"), ("speech", "npy"), ("audio", "npy")):
        (folder / f"{kind}-{name}.{suffix}").unlink(missing_ok=True)
