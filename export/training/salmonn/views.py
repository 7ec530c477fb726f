"""Views of the demo's clips: encoded whole or cut off while someone speaks, Whisper's window padded or short -> shards.

Live captions read a segment while it is spoken, so the model must say what was heard so far and no more. Where words
end is known from the letters that the speech encoder spells (CTC, forced alignment).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from ....models.corpus.sentences import Utterance
from ...encoders.beats import Beats
from ...encoders.whisper import encode
from ..shards import View, read_shard, shard_names, write_shard
from .bridge import Layout
from .corpus import Rendered, is_prose
from .encoders import WINDOW_FRAMES, spell
from .features import Frames

_CUT = 0.35  # of the views
_GROUP = 400  # clips per file
_BATCH = 16  # clips encoded at once
_LATE = 3  # encoder frames (20 ms each) that CTC may name a word's last letter after its end


@dataclass(frozen=True)
class Encoders:
    """The frozen encoders, what spells from the first one's frames, and what they are given."""

    whisper: WhisperEncoder
    letters: nn.Module
    beats: Beats
    layout: Layout


def write_views(folder: Path, clips: list[Rendered], encoders: Encoders, part: tuple[int, int]) -> None:
    """One view of every clip into `folder`; of the groups of clips, every part[1]-th from part[0]. Made once."""
    folder.mkdir(parents=True, exist_ok=True)
    groups = range(part[0], -(-len(clips) // _GROUP), part[1])
    for group in groups:
        name = f"{group:03d}"
        if name in shard_names(folder):
            continue
        views = _views(clips[group * _GROUP : (group + 1) * _GROUP], group, encoders)
        write_shard(folder, name, list(views))
        print(f"views: {group + 1} of {groups.stop}", flush=True)


def read_views(folder: Path) -> list[View]:
    """All of them, their frames memory-mapped."""
    return [view for name in shard_names(folder) for view in read_shard(folder, name)]


@torch.no_grad()
def _views(clips: list[Rendered], seed: int, encoders: Encoders) -> Iterator[View]:
    rng = random.Random(seed)
    layout = encoders.layout
    order = sorted(clips, key=lambda clip: len(clip.log_mel))  # clips of like length are encoded together
    for start in range(0, len(order), _BATCH):
        batch = order[start : start + _BATCH]
        chosen = [row for row in range(len(batch)) if rng.random() < _CUT]
        ends = word_ends([batch[row] for row in chosen], encoders)
        cut = {row: _cut_off(batch[row], found, rng) for row, found in zip(chosen, ends, strict=True)}
        as_cut = [cut.get(row) or clip for row, clip in enumerate(batch)]
        longest = max(len(clip.log_mel) for clip in as_cut)
        alone = rng.random() < layout.short
        n_windows = min(layout.windows_of(longest) + rng.randint(0, 1) if alone else layout.n_windows, layout.n_windows)
        n_rows = n_windows * layout.spec.window
        n_frames = 2 * n_rows if n_windows < layout.n_windows else WINDOW_FRAMES
        mel = torch.from_numpy(np.stack([clip.padded_mel(n_frames) for clip in as_cut]))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            speech = encode(encoders.whisper, mel)[:, :n_rows].half().numpy()
        for row, clip in enumerate(as_cut):
            audio = encoders.beats(torch.from_numpy(clip.fbank.astype(np.float32))[None])[0].half().numpy()
            half = cut.get(row) is not None and not is_prose(batch[row].utterance)
            yield View(speech[row], audio[:n_rows], clip.utterance, clip.sound, half)


def _cut_off(clip: Rendered, ends: list[float], rng: random.Random) -> Rendered | None:
    """The clip until a moment in it, with the words that ended by then. ends: in encoder frames.

    Of open English, whose words are not asked for, a second at least.
    """
    prose = is_prose(clip.utterance)
    shortest = 100 if prose else 30
    longest = len(clip.log_mel) - 10
    if longest <= shortest:
        return None
    at = rng.randint(shortest, longest)
    if ends and rng.random() < 0.5:  # just behind a word
        at = min(max(shortest, int(2 * rng.choice(ends)) + rng.randint(4, 24)), longest)
    mel = clip.log_mel[:at]
    floor = max(float(mel.max()) - 2.0, -1.5)
    utterance = clip.utterance
    if utterance is not None and not prose:
        words = utterance.text.split()
        n_words = sum(end + _LATE <= at / 2 for end in ends)
        utterance = Utterance(" ".join(words[:n_words]), "") if n_words else None
    return replace(clip, log_mel=mel, floor=floor, fbank=_bank(clip, at), utterance=utterance)


def _bank(clip: Rendered, n_frames: int) -> Frames:
    """The filter bank of as much time, at least one patch of it."""
    return clip.fbank[: max(n_frames - 2, 16)]


@torch.no_grad()
def word_ends(clips: list[Rendered], encoders: Encoders) -> list[list[float]]:
    """Encoder frame of each word's last letter, of each clip; [] where nobody speaks, and of open English."""
    if not clips:
        return []
    n_frames = min(WINDOW_FRAMES, -(-max(len(clip.log_mel) for clip in clips) // 32) * 32)
    mel = torch.from_numpy(np.stack([clip.padded_mel(n_frames) for clip in clips]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = encode(encoders.whisper, mel)
    scores = F.log_softmax(encoders.letters(hidden.float()), -1).numpy()
    return [
        _align(scores[row], clip.utterance.text) if clip.utterance and not is_prose(clip.utterance) else []
        for row, clip in enumerate(clips)
    ]


def _align(scores: NDArray[np.float32], text: str) -> list[float]:
    """Viterbi over CTC's states: log-probabilities [T, letters + 1] and the text -> where each word ends."""
    labels = spell(text).numpy()
    states = np.zeros(2 * len(labels) + 1, np.int64)
    states[1::2] = labels
    can_skip = np.zeros(len(states), bool)
    can_skip[3::2] = labels[1:] != labels[:-1]
    best = np.full(len(states), -np.inf)
    best[:2] = scores[0, states[:2]]
    back = np.zeros((len(scores), len(states)), np.int8)
    for t in range(1, len(scores)):
        one = np.concatenate([[-np.inf], best[:-1]])
        two = np.concatenate([[-np.inf, -np.inf], best[:-2]])
        choices = np.stack([best, one, np.where(can_skip, two, -np.inf)])
        back[t] = choices.argmax(0)
        best = choices.max(0) + scores[t, states]
    state = len(states) - 1 if best[-1] >= best[-2] else len(states) - 2
    last_frame = np.zeros(len(labels))
    for t in range(len(scores) - 1, -1, -1):
        if state % 2 and not last_frame[state // 2]:
            last_frame[state // 2] = t
        state -= int(back[t, state])
    ends = np.cumsum([len(word) + 1 for word in text.split()]) - 2  # index of each word's last letter
    return [float(last_frame[index]) for index in ends]
