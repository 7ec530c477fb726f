"""Joint training of demo-salm: projection, LoRA, then everything at once."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer
from torch import nn
from transformers import ParakeetEncoder, Qwen3ForCausalLM

from ..trainer import Trainer
from .corpus import Spoken
from .encoder import SPEC, Batches, encode, heard_slots, padded, spelling_loss
from .llm import LetterTokens, answer_loss
from .prompts import ask, batch_of

LORA_RANK, LORA_ALPHA = 16, 32
_SPELLING = 0.3  # weight of the encoder's own lesson, so that it goes on learning to hear
_FITTED_ON = 384  # clips
_RIDGE = 1e-3


@dataclass(frozen=True)
class Parts:
    """What is trained together."""

    encoder: ParakeetEncoder
    head: nn.Linear
    projection: nn.Linear
    llm: Qwen3ForCausalLM
    """With its LoRA."""


def with_lora(llm: Qwen3ForCausalLM) -> PeftModel:
    """The LLM with LoRA on q and v, its own weights trainable too: alone, the adapter of so small a model is little."""
    options = LoraConfig(task_type="CAUSAL_LM", r=LORA_RANK, lora_alpha=LORA_ALPHA, target_modules=["q_proj", "v_proj"])
    model = cast(PeftModel, get_peft_model(llm, options))
    model.requires_grad_(True)
    return model


def new_projection() -> nn.Linear:
    """Encoder rows -> audio tokens."""
    return nn.Linear(SPEC.d_model, SPEC.d_llm)


@torch.no_grad()
def fit_projection(
    projection: nn.Linear, encoder: ParakeetEncoder, head: nn.Linear, letters: LetterTokens, clips: list[Spoken]
) -> float:
    """Start the projection as the least-squares way from the encoder to the letter tokens the LLM can already read.

    Returns the share of their variance that it explains.
    """
    encoder.eval()
    hidden = []
    wanted = []
    some = sorted(random.Random(0).sample(clips, min(_FITTED_ON, len(clips))), key=lambda clip: len(clip.log_mel))
    for start in range(0, len(some), 16):
        rows, sizes = encode(encoder, *padded([clip.log_mel for clip in some[start : start + 16]]))
        for row, size in zip(rows, sizes, strict=True):
            hidden.append(row[:size])
            wanted.append(letters(heard_slots(head, row[:size])))
    x = torch.cat(hidden).double()
    y = torch.cat(wanted).double()
    x_mean = x.mean(0)
    y_mean = y.mean(0)
    x = x - x_mean
    y = y - y_mean
    weight = torch.linalg.solve(x.T @ x + _RIDGE * len(x) * torch.eye(x.shape[1]), x.T @ y)
    projection.weight.copy_(weight.T)
    projection.bias.copy_(y_mean - x_mean @ weight)
    return float(1 - (y - x @ weight).var() / y.var())


def train_joint(trainer: Trainer, parts: Parts, tokenizer: Tokenizer, clips: list[Spoken]) -> None:
    """Teach hearing, writing and looking up at once, until the trainer's time is spent.

    Every use of a clip writes its names anew, so no spelling can be learned by heart.
    """
    rng = random.Random()
    generator = np.random.default_rng()
    batches = Batches(clips)
    parts.encoder.train()
    for _ in trainer:
        longest = batch_of(rng)
        group = batches.next()[: len(longest)]
        asked = [ask(clip.sentence, longest[0], rng, tokenizer) for clip in group]
        features = padded([clip.log_mel for clip in group], generator)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden, sizes = encode(parts.encoder, *features)
            tokens = [row[:size] for row, size in zip(parts.projection(hidden), sizes, strict=True)]
            loss = answer_loss(parts.llm, asked, tokens)
        spelling = spelling_loss(parts.head, hidden.float(), sizes, [clip.sentence for clip in group])
        trainer.step(loss + _SPELLING * spelling)
