"""A bridge with a lexicon (export/encoders/lexicon.py) and its first training: CTC in Whisper's tokens.

The language model reads its own embeddings so, of words too that no training has spoken. A projection alone would have
to learn 20,000 places by heart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers.models.whisper.modeling_whisper import WhisperDecoder

from ....models.encoders.qformer import QFormerSpec
from ...encoders.lexicon import TOKENS, LanguageModelTokens, lexicon_keys, token_places
from ...formats.checkpoint import load_torch, require
from ..bridge import Bridge, Disturb, join_views
from ..shards import View
from ..trainer import Trainer
from .bridge import Shards, Vocabulary, ctc_loss, disturb

_BLANK = 10.0
"""The blank's score before training, among tokens' that reach 20."""
_STEP_ROWS = 24 * 60  # encoder frames of one step of CTC: 29 s; steps count more than their size


class Lexicon(nn.Module):
    """Hidden states [n, hidden] -> scores of the blank (0) and of Whisper's tokens (from 1), or audio tokens."""

    embeddings: Tensor
    places: Tensor

    def __init__(self, embeddings: Tensor, places: Tensor) -> None:
        """embeddings [v, hidden]: of Whisper's decoder; places [v, d_llm]."""
        super().__init__()
        hidden = embeddings.shape[1]
        self.turn, self.blank = nn.Linear(hidden, hidden), nn.Linear(hidden, 1)
        nn.init.zeros_(self.blank.weight)
        nn.init.constant_(self.blank.bias, _BLANK)
        self.register_buffer("embeddings", embeddings.detach().float(), persistent=False)
        self.register_buffer("places", places.detach().float(), persistent=False)

    def forward(self, hidden: Tensor, chosen: Tensor | None = None) -> Tensor:
        """[n, 1 + v] scores, or [n, 1 + len(chosen)] of the chosen tokens (from 0)."""
        embeddings = self.embeddings if chosen is None else self.embeddings[chosen]
        return torch.cat([self.blank(hidden).float(), (self.turn(hidden) @ embeddings.T).float()], -1)

    def audio_tokens(self, hidden: Tensor) -> Tensor:
        """[n, d_llm]; the blank's place is nothing."""
        return torch.softmax(self(hidden), -1)[:, 1:].to(hidden.dtype) @ self.places.to(hidden.dtype)


class LexicalBridge(Bridge):
    """A bridge that says its lexicon's audio tokens, and beside them, by its projection, what no word says."""

    def __init__(self, spec: QFormerSpec, lexicon: Lexicon, dropout: float = 0.0) -> None:
        super().__init__(spec, dropout)
        self.lexicon = lexicon
        nn.init.zeros_(self.qformer.projection.weight)
        nn.init.zeros_(self.qformer.projection.bias)

    def project(self, hidden: Tensor) -> Tensor:
        """Hidden states [n, hidden] -> audio tokens [n, d_llm]."""
        return self.qformer.projection(hidden) + self.lexicon.audio_tokens(hidden)


def hidden_states(bridge: Bridge, views: Sequence[View], disturb: Disturb | None = None) -> list[Tensor]:
    """[n_windows, hidden] of each view: what a lexicon reads."""
    speech, audio, real, counts = join_views(bridge.spec, views, disturb)
    return list(bridge.hidden(speech, audio, real).split(counts))


def train_bridge(trainer: Trainer, bridge: LexicalBridge, vocabulary: Vocabulary, shards: Shards) -> None:
    """CTC alone, in Whisper's tokens, until the trainer's time is spent."""
    for _ in trainer:
        views = shards.batch(_STEP_ROWS)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = hidden_states(bridge, views, disturb)
        trainer.step(ctc_loss(bridge.lexicon, hidden, vocabulary.targets(views), length=None))


def lexicon_of(vocabulary: Vocabulary, decoder: WhisperDecoder, llm: LanguageModelTokens) -> Lexicon:
    """An untrained one."""
    places = token_places([str(vocabulary.tokenizer.decode([token])) for token in vocabulary.ids], llm)
    return Lexicon(decoder.embed_tokens.weight[list(vocabulary.ids)], places)


def lexicon_state(lexicon: Lexicon, vocabulary: Vocabulary) -> dict[str, Tensor]:
    """What a checkpoint holds of it, by its names."""
    found = {f"lexicon.{name}": value for name, value in lexicon.state_dict().items()}
    return {**found, TOKENS: torch.tensor(vocabulary.ids, dtype=torch.int32)}


def restore_lexicon(lexicon: Lexicon, checkpoint: Path) -> None:
    """As a finished checkpoint, salmonn.pth, has it. Raises CheckpointError where it has none."""
    state: dict[str, Tensor] = load_torch(checkpoint)["model"]
    require(state, lexicon_keys(), "SALMONN checkpoint with a lexicon", checkpoint)
    lexicon.load_state_dict({name: state[f"lexicon.{name}"].float() for name in lexicon.state_dict()})
