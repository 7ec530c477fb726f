"""Encoder of demo-salm: a small FastConformer that first learns to spell what it hears, by its sounds.

At 12.5 tokens per second there are fewer tokens than letters, so the head that teaches it, thrown away later, writes
four letters to a token. Its target is the respelling a synthesizer was given: what can be heard, and no more.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ParakeetEncoder, ParakeetEncoderConfig

from ....models.corpus.names import NamedSentence
from ....models.encoders.fastconformer import FastConformerSpec, n_tokens
from ..salmonn.encoders import augment
from ..trainer import Trainer
from .corpus import N_MELS, Frames, Spoken, normalized
from .llm import HIDDEN, LETTERS, SLOTS

SPEC = FastConformerSpec(
    d_model=192, n_layers=6, n_heads=4, d_ffn=768, conv_kernel=9, subsampling_channels=64, d_llm=HIDDEN,
    n_mels=N_MELS, seconds=10.0,
)  # fmt: skip
_BATCH_FRAMES = 24 * 320  # mel frames per step, so that long and short clips cost the same
_AUGMENTED = 0.4  # of the steps


def new_encoder() -> ParakeetEncoder:
    """An untrained encoder of 5 million weights."""
    parakeet_config: Any = ParakeetEncoderConfig  # its signature does not show all of its fields
    config = parakeet_config(
        hidden_size=SPEC.d_model,
        num_hidden_layers=SPEC.n_layers,
        num_attention_heads=SPEC.n_heads,
        intermediate_size=SPEC.d_ffn,
        conv_kernel_size=SPEC.conv_kernel,
        subsampling_conv_channels=SPEC.subsampling_channels,
        num_mel_bins=SPEC.n_mels,
        scale_input=False,
        dropout=0.0,
        layerdrop=0.0,
        activation_dropout=0.0,
        attention_dropout=0.0,
    )
    return ParakeetEncoder(config)


def new_head() -> nn.Linear:
    """Scores of what each of a token's slots holds: nothing, or a letter."""
    return nn.Linear(SPEC.d_model, SLOTS * (len(LETTERS) + 1))


def train_encoder(trainer: Trainer, encoder: ParakeetEncoder, head: nn.Linear, clips: list[Spoken]) -> None:
    """CTC over the letters of what was spoken, until the trainer's time is spent."""
    batches = Batches(clips)
    generator = np.random.default_rng()
    encoder.train()
    for _ in trainer:
        group = batches.next()
        features = padded([clip.log_mel for clip in group], generator)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden, sizes = encode(encoder, *features)
        trainer.step(spelling_loss(head, hidden.float(), sizes, [clip.sentence for clip in group]))


class Batches:
    """Clips in groups of like length, without end."""

    def __init__(self, clips: list[Spoken], frames: int = _BATCH_FRAMES) -> None:
        self.clips = clips
        self.frames = frames
        self.rng = random.Random()
        self._groups: list[list[Spoken]] = []

    def next(self) -> list[Spoken]:
        """The clips of one step."""
        if not self._groups:
            left = sorted(self.rng.sample(self.clips, min(512, len(self.clips))), key=lambda clip: len(clip.log_mel))
            while left:
                size = max(4, self.frames // len(left[-1].log_mel))
                self._groups.append(left[-size:])
                left = left[:-size]
            self.rng.shuffle(self._groups)
        return self._groups.pop()


def padded(
    clips: Sequence[Frames | NDArray[np.float16]], generator: np.random.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Log-mels [n, 80] of several clips -> normalized features [B, T, 80] and which of their frames are real [B, T].

    With a generator, some batches are disturbed as SpecAugment does.
    """
    frames = [torch.from_numpy(normalized(clip)) for clip in clips]
    features = nn.utils.rnn.pad_sequence(frames, batch_first=True)
    real = torch.arange(features.shape[1]) < torch.tensor([len(one) for one in frames])[:, None]
    if generator is not None and generator.random() < _AUGMENTED:
        features = augment(features.transpose(1, 2).contiguous(), generator).transpose(1, 2) * real[:, :, None]
    return features, real


def encode(encoder: ParakeetEncoder, features: Tensor, real: Tensor) -> tuple[Tensor, list[int]]:
    """Features [B, T, 80] -> hidden [B, T / 8, d], and how many of its rows are each clip's."""
    hidden = encoder(input_features=features, attention_mask=real).last_hidden_state
    return hidden, [n_tokens(size) for size in real.sum(1).tolist()]


def spelling_loss(head: nn.Linear, hidden: Tensor, sizes: list[int], sentences: list[NamedSentence]) -> Tensor:
    """Mean CTC loss of the letters spoken."""
    scores = head(hidden).view(len(hidden), -1, len(LETTERS) + 1)
    targets = [torch.tensor([LETTERS.index(c) + 1 for c in one.spoken], dtype=torch.int64) for one in sentences]
    lengths = torch.tensor([len(target) for target in targets])
    log_probs = F.log_softmax(scores, -1).transpose(0, 1)
    slots = torch.tensor([SLOTS * size for size in sizes])
    return F.ctc_loss(log_probs, torch.cat(targets), slots, lengths, zero_infinity=True)


def heard_slots(head: nn.Linear, hidden: Tensor) -> Tensor:
    """The likeliest letter of every slot: hidden [..., d] -> [..., 4]."""
    return head(hidden).unflatten(-1, (SLOTS, -1)).argmax(-1)


def read_slots(slots: Tensor) -> str:
    """Greedy CTC over slots [n, 4]: repeats and blanks removed."""
    return "".join(LETTERS[index - 1] for index in torch.unique_consecutive(slots.flatten()).tolist() if index)
