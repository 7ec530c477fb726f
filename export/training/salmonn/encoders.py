"""Encoder training of the demo: Whisper's shape to spell what is said (CTC), BEATs' to name what sounds.

The heads that teach them, letters and tags, are thrown away; BEATs' stays in its file as the predictor.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from ....models.corpus.sounds import SOUND_NAMES
from ....models.encoders.beats import BeatsSpec
from ...encoders.beats import Beats
from ...encoders.whisper import encode
from ..trainer import Trainer
from .corpus import Rendered
from .features import Frames

LETTERS = " abcdefghijklmnopqrstuvwxyz"
WINDOW_FRAMES = 1000  # mel frames: 10 s
_BATCH_FRAMES = 32 * 320  # mel frames per step, so that long and short clips cost the same
BEATS_SPEC = BeatsSpec(d_model=96, n_layers=2, n_heads=4, d_ffn=384, d_patch=64)
_AUGMENTED = 0.3  # of the steps
_TAGS = (*SOUND_NAMES, "speech")
_TAG_FRAMES = 256  # fbank frames a tag is learned from: 2.6 s


def new_whisper(d_model: int = 192, n_layers: int = 4) -> WhisperEncoder:
    """An untrained encoder of 2 million weights that reads 10 s."""
    whisper_config: Any = WhisperConfig  # its signature does not show all of its fields
    config = whisper_config(
        d_model=d_model,
        encoder_layers=n_layers,
        encoder_attention_heads=4,
        encoder_ffn_dim=4 * d_model,
        num_mel_bins=80,
        max_source_positions=WINDOW_FRAMES // 2,
        dropout=0.0,
        attn_implementation="eager",  # trains faster on a CPU than the fused kernel
    )
    return WhisperEncoder(config)


def train_whisper(trainer: Trainer, encoder: WhisperEncoder, head: nn.Module, clips: list[Rendered]) -> None:
    """CTC over letters, on windows about as long as their clips; a few steps hear all 10 s or a long silence first.

    Windows of many lengths teach that what follows a word does not matter, so a few seconds can be encoded alone.
    """
    rng = random.Random()
    generator = np.random.default_rng()
    batches: list[tuple[list[Rendered], int]] = []
    for _ in trainer:
        if not batches:
            batches = _buckets(rng.choices(clips, k=512))
            rng.shuffle(batches)
        group, n_frames, lead = _window(*batches.pop(), rng)
        mel = torch.from_numpy(np.stack([_after_silence(clip, n_frames, lead) for clip in group]))
        targets = [spell(clip.utterance.text if clip.utterance else "") for clip in group]
        if rng.random() < _AUGMENTED:
            mel = augment(mel, generator)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = encode(encoder, mel)
        trainer.step(ctc_loss(head(hidden.float()), targets))


def new_letters(d_model: int) -> nn.Module:
    """The head that spells from the frames of a frozen encoder."""
    return nn.Sequential(nn.LayerNorm(d_model), nn.Linear(d_model, 256), nn.GELU(), nn.Linear(256, len(LETTERS) + 1))


def train_letters(trainer: Trainer, encoder: WhisperEncoder, head: nn.Module, clips: list[Rendered]) -> None:
    """CTC over letters, the encoder frozen: what word ends are found by."""
    rng = random.Random()
    batches: list[tuple[list[Rendered], int]] = []
    for _ in trainer:
        if not batches:
            batches = _buckets(rng.choices([clip for clip in clips if clip.utterance], k=512))
            rng.shuffle(batches)
        group, longest = batches.pop()
        n_frames = min(WINDOW_FRAMES, -(-longest // 32) * 32)
        mel = torch.from_numpy(np.stack([clip.padded_mel(n_frames) for clip in group]))
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = encode(encoder, mel)
        targets = [spell(clip.utterance.text if clip.utterance else "") for clip in group]
        trainer.step(ctc_loss(head(hidden.float()), targets))


def spell(text: str) -> Tensor:
    """Letter numbers from 1; 0 is CTC's blank. An apostrophe is not spelt."""
    return torch.tensor([LETTERS.index(letter) + 1 for letter in text if letter in LETTERS], dtype=torch.int64)


def ctc_loss(scores: Tensor, targets: list[Tensor]) -> Tensor:
    """Mean CTC loss of scores [B, T, letters + 1], over every frame of each row."""
    log_probs = F.log_softmax(scores, -1).transpose(0, 1)
    lengths = torch.full((len(targets),), log_probs.shape[0])
    sizes = torch.tensor([len(target) for target in targets])
    return F.ctc_loss(log_probs, torch.cat(targets), lengths, sizes, zero_infinity=True)


def read_letters(scores: Tensor) -> str:
    """Greedy CTC: the best letter of each frame of [T, letters + 1], repeats and blanks removed."""
    best = torch.unique_consecutive(scores.argmax(-1)).tolist()
    return "".join(LETTERS[index - 1] for index in best if index)


def augment(mel: Tensor, generator: np.random.Generator) -> Tensor:
    """Speakers of other sizes (the mel axis stretched by up to 10 %) and SpecAugment masks. [B, 80, n] -> the same."""
    stretched = generator.random(len(mel)) < 0.5
    if stretched.any():
        rows = torch.from_numpy(stretched)
        mel[rows] = torch.bmm(_stretch(generator.uniform(0.9, 1.1, int(stretched.sum()))), mel[rows])
    for row in mel:
        mean = row.mean()
        for _ in range(2):
            band = int(generator.integers(0, 71))
            row[band : band + int(generator.integers(0, 10))] = mean
        moment = int(generator.integers(0, mel.shape[2] - 29))
        row[:, moment : moment + int(generator.integers(0, 17))] = mean
    return mel


def train_beats(trainer: Trainer, beats: Beats, predictor: nn.Linear, clips: list[Rendered]) -> None:
    """Learn which sounds, and whether speech, are in 2.6 s cut from a clip."""
    generator = np.random.default_rng()
    for _ in trainer:
        group = [clips[int(index)] for index in generator.integers(0, len(clips), 32)]
        bank = torch.from_numpy(np.stack([_cut(clip.fbank, generator) for clip in group]))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = beats(bank)
        scores = predictor(hidden.float())
        loss = F.binary_cross_entropy_with_logits(scores.mean(1), tags(group))
        trainer.step(loss)


def tags(clips: list[Rendered]) -> Tensor:
    """[B, 15]: 1 for the sound that is there and for speech."""
    rows = [[float(clip.sound == name) for name in SOUND_NAMES] + [float(clip.utterance is not None)] for clip in clips]
    return torch.tensor(rows)


def new_predictor(beats: Beats) -> nn.Linear:
    """The head that names sounds from BEATs' tokens; stored in its checkpoint, as the official one has 527 classes."""
    return nn.Linear(beats.spec.d_model, len(_TAGS))


def _buckets(clips: list[Rendered]) -> list[tuple[list[Rendered], int]]:
    """Clips of like length together, with the frames that the longest of them needs."""
    left = sorted(clips, key=lambda clip: len(clip.log_mel))
    out = []
    while left:
        longest = min(WINDOW_FRAMES, len(left[-1].log_mel))
        size = max(8, _BATCH_FRAMES // longest)
        out.append((left[-size:], longest))
        left = left[:-size]
    return out


def _window(group: list[Rendered], longest: int, rng: random.Random) -> tuple[list[Rendered], int, int]:
    """The clips of one step, the frames they are padded to, and the frames of silence before them."""
    choice = rng.random()
    lead = 0
    if choice < 0.05:
        longest = WINDOW_FRAMES
    elif choice < 0.12:
        lead = rng.randint(0, min(250, WINDOW_FRAMES - longest))
        longest += lead
    elif choice < 0.5:
        longest += rng.randint(0, 150)
    n_frames = min(WINDOW_FRAMES, -(-longest // 32) * 32)
    return group[: max(8, _BATCH_FRAMES // n_frames)], n_frames, lead


def _after_silence(clip: Rendered, n_frames: int, lead: int) -> Frames:
    """[80, n_frames]: the clip behind `lead` frames of silence."""
    mel = clip.padded_mel(n_frames - lead)
    return np.pad(mel, ((0, 0), (lead, 0)), constant_values=clip.floor)


def _stretch(factors: np.ndarray) -> Tensor:
    """[B, 80, 80] matrices that read mel bin i at i times the factor, between its neighbours."""
    n_mels = 80
    source = np.clip(np.arange(n_mels) * factors[:, None], 0, n_mels - 1.001)
    low = source.astype(np.int64)
    matrices = np.zeros((len(factors), n_mels, n_mels), np.float32)
    row = np.arange(len(factors))[:, None]
    column = np.arange(n_mels)[None]
    matrices[row, column, low] = 1 - (source - low)
    matrices[row, column, low + 1] += source - low
    return torch.from_numpy(matrices)


def _cut(bank: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    start = int(generator.integers(0, max(1, len(bank) - _TAG_FRAMES)))
    cut = bank[start : start + _TAG_FRAMES].astype(np.float32)
    return np.tile(cut, (-(-_TAG_FRAMES // len(cut)), 1))[:_TAG_FRAMES]
