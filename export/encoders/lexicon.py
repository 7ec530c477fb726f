"""A lexicon behind a Q-Former: which of Whisper's tokens a window says, as an embedding of the language model.

A window's hidden state is scored against the token embeddings of Whisper's decoder and a blank, as in CTC. Each of
those tokens has its place among the language model's embeddings: that of the same text, or the mean of the pieces that
the language model makes of it. The mean of the places, each as likely as its token, is added to the projection's audio
token. No released SALMONN has one; `make train-small` makes one (docs/training.md). The checkpoint holds what was
trained of it:

    lexicon.tokens [v]               ids of Whisper's tokens
    lexicon.turn.weight, .bias       [d, d], [d]: hidden state -> what is multiplied with Whisper's embeddings
    lexicon.blank.weight, .bias      [1, d], [1]

Source of the idea: R. Ma et al. 2025, LegoSLM: "Connecting LLM with speech encoder using CTC posteriors".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ...models.errors import CheckpointError
from ..formats.byte_bpe import text_decoder
from ..formats.checkpoint import require, require_shape
from .whisper import read_token_embeddings

_PREFIX = "lexicon."
TOKENS = f"{_PREFIX}tokens"
_TRAINED = tuple(f"{_PREFIX}{part}.{kind}" for part in ("turn", "blank") for kind in ("weight", "bias"))


class Lexicon(nn.Module):
    """Hidden states [..., hidden] -> what is added to audio tokens [..., d_llm]: the graph's part."""

    def __init__(self, turn: nn.Linear, blank: nn.Linear, embeddings: Tensor, places: Tensor) -> None:
        """embeddings [v, hidden]: Whisper's; places [v, d_llm]: the language model's. The blank's place is nothing."""
        super().__init__()
        n_tokens, hidden = embeddings.shape
        self.scores = nn.Linear(hidden, 1 + n_tokens)
        self.places = nn.Linear(1 + n_tokens, places.shape[1], bias=False)
        with torch.no_grad():
            self.scores.weight.copy_(torch.cat([blank.weight, embeddings @ turn.weight]))
            self.scores.bias.copy_(torch.cat([blank.bias, embeddings @ turn.bias]))
            self.places.weight.copy_(torch.cat([torch.zeros(places.shape[1], 1), places.T], 1))

    def forward(self, hidden: Tensor) -> Tensor:
        return self.places(torch.softmax(self.scores(hidden), -1))


@dataclass(frozen=True)
class LanguageModelTokens:
    """What a lexicon needs to know of the language model."""

    encode: Callable[[str], list[int]]
    embeddings: Tensor
    """[n, d_llm]."""


def has_lexicon(state: Mapping[str, Tensor]) -> bool:
    """Whether the checkpoint was trained with one."""
    return any(key.startswith(_PREFIX) for key in state)


def lexicon_keys() -> tuple[str, ...]:
    """Of the checkpoint."""
    return (TOKENS, *_TRAINED)


def load_lexicon(
    state: Mapping[str, Tensor], whisper: Path, llm: LanguageModelTokens, hidden: int, path: Path | str
) -> Lexicon:
    """Out of salmonn.pth['model'], Whisper's decoder and the language model. `path` is for messages.

    Raises CheckpointError when tensors are missing or misshapen, or when Whisper's directory has no decoder.
    """
    require(state, lexicon_keys(), "SALMONN checkpoint with a lexicon", path)
    embeddings = read_token_embeddings(whisper)
    tokens: list[int] = state[TOKENS].tolist()
    if not tokens or not 0 <= min(tokens) <= max(tokens) < len(embeddings) or embeddings.shape[1] != hidden:
        raise CheckpointError(f"{path} has a lexicon of another Whisper than {whisper}: give the one of its training")
    turn, blank = nn.Linear(hidden, hidden), nn.Linear(hidden, 1)
    for name, module in (("turn", turn), ("blank", blank)):
        module.load_state_dict(
            {
                kind: require_shape(state[f"{_PREFIX}{name}.{kind}"].float(), tuple(value.shape), name, path)
                for kind, value in module.state_dict().items()
            }
        )
    decode = text_decoder(whisper)
    places = token_places([decode([token]) for token in tokens], llm)
    return Lexicon(turn, blank, embeddings[tokens], places).eval().requires_grad_(False)


def token_places(texts: Sequence[str], llm: LanguageModelTokens) -> Tensor:
    """[len(texts), d_llm]: where the language model has each text, or the mean of the pieces that it makes of it."""
    return torch.stack([llm.embeddings[llm.encode(text)].float().mean(0) for text in texts])
