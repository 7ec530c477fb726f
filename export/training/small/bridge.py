"""The bridge of `small` and the CTC loss that trains it before the language model is ever run.

It is taught Whisper's tokens (lexicon.py, decoder.py). The demo's bridge, which says embeddings of its own language
model at once, is scored by their cosine.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from ....models.encoders.qformer import QFormerSpec
from ..shards import View, read_shard, shard_names

SPEC = QFormerSpec(
    hidden=512,
    n_heads=8,
    d_ffn=2048,
    d_speech=512,
    d_audio=96,
    d_llm=576,
    n_layers=3,
    second_per_window=0.48,
    second_stride=0.16,
)
EMBEDDING_LENGTH = 3.2
"""Of SmolLM2's token embeddings, on average; audio tokens are drawn to it."""
_BATCH_ROWS = 24 * 150  # encoder frames of a batch: 72 s
_SHIFT, _NOISE = 8, 0.25
_LENGTH_WEIGHT = 0.02
_NEGATIVES = 5000


class Scorer(Protocol):
    """What CTC reads the outputs of a bridge with."""

    embeddings: Tensor
    """[v, d]: of the tokens."""

    def __call__(self, rows: Tensor, chosen: Tensor | None = None, /) -> Tensor:
        """rows [n, d] -> scores [n, 1 + v], the blank's first, or [n, 1 + len(chosen)] of chosen tokens (from 0)."""
        ...


class Reader(nn.Module):
    """Audio tokens -> CTC scores of the blank (0) and of each token of `vocabulary` (from 1)."""

    embeddings: Tensor

    def __init__(self, embeddings: Tensor) -> None:
        """embeddings [n, d_llm]: the language model's, of the tokens that occur."""
        super().__init__()
        self.blank, self.scale = nn.Linear(embeddings.shape[1], 1), nn.Parameter(torch.tensor(20.0))
        self.register_buffer("embeddings", F.normalize(embeddings.float(), dim=-1), persistent=False)

    def forward(self, audio_tokens: Tensor, chosen: Tensor | None = None) -> Tensor:
        """audio_tokens [n, d_llm] -> [n, 1 + vocabulary], or [n, 1 + len(chosen)] of the chosen tokens (from 0)."""
        unit = F.normalize(audio_tokens.float(), dim=-1)
        embeddings = self.embeddings if chosen is None else self.embeddings[chosen]
        return torch.cat([self.blank(unit).float(), self.scale * (unit @ embeddings.T).float()], -1)


class Vocabulary:
    """The tokens that texts are made of, of all that a tokenizer has."""

    def __init__(self, ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> None:
        self.ids = tuple(ids)
        self.tokenizer = tokenizer
        self.index = {token: number for number, token in enumerate(self.ids, 1)}

    @classmethod
    def of(cls, texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
        """Every token of the texts, each of which begins with a space."""
        found: set[int] = set()
        for start in range(0, len(texts), 4096):
            some = [f" {text}" for text in texts[start : start + 4096]]
            for ids in tokenizer(some, add_special_tokens=False).input_ids:
                found.update(ids)
        return cls(sorted(found), tokenizer)

    def encode(self, text: str) -> list[int]:
        """CTC's labels of a text, tokens that are not in the vocabulary left out."""
        if not text:
            return []
        ids = self.tokenizer(f" {text}", add_special_tokens=False).input_ids
        return [self.index[token] for token in ids if token in self.index]

    def targets(self, views: Sequence[View]) -> list[list[int]]:
        """Labels of what is said in each view."""
        return [self.encode(view.utterance.text if view.utterance else "") for view in views]

    def decode(self, scores: Tensor) -> str:
        """Greedy CTC of scores [n_windows, 1 + n]."""
        best = torch.unique_consecutive(scores.argmax(-1)).tolist()
        return str(self.tokenizer.decode([self.ids[number - 1] for number in best if number])).strip()


class Shards:
    """Clips of the shards that are on disk, looked for again now and then as new ones are made."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.folder = folder
        self.rng = rng
        self._views: dict[str, list[View]] = {}
        self._left: list[View] = []

    def batch(self, n_rows: int = _BATCH_ROWS) -> list[View]:
        """Clips of about n_rows encoder frames together, of like length."""
        if len(self._left) < 64:
            self._refresh()
            pool = [view for views in self._views.values() for view in views]
            self._left = self.rng.sample(pool, min(2048, len(pool)))
        first = self._left.pop(self.rng.randrange(len(self._left)))
        near = sorted(self._left, key=lambda view: abs(len(view.speech) - len(first.speech)))
        chosen = [first]
        total = len(first.speech)
        for view in near:
            if total >= n_rows:
                break
            chosen.append(view)
            total += len(view.speech)
        taken = {id(view) for view in chosen}
        self._left = [view for view in self._left if id(view) not in taken]
        return chosen

    def _refresh(self) -> None:
        names = shard_names(self.folder)
        for gone in self._views.keys() - set(names):
            del self._views[gone]
        for name in names:
            if name not in self._views:
                self._views[name] = read_shard(self.folder, name)


def disturb(speech: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
    """Windows that begin up to 7 frames earlier or later, and noise on the features."""
    shift = int(torch.randint(0, _SHIFT, (1,)))
    before = speech[:1].expand(shift, -1)
    speech = torch.cat([before, speech])[: len(speech)] if shift else speech
    audio = torch.cat([audio[:1].expand(shift, -1), audio])[: len(speech)] if shift else audio
    strength = float(torch.rand(1)) * _NOISE
    noise = torch.randn(speech.shape) * (strength * speech.std())
    return speech + noise, audio


def ctc_loss(
    scorer: Scorer,
    tokens: Sequence[Tensor],
    targets: Sequence[Sequence[int]],
    length: float | None = EMBEDDING_LENGTH,
) -> Tensor:
    """Mean CTC loss per label, and a pull of the tokens' length to that of embeddings, `length`; None: no pull.

    Of the tokens that nobody said _NEGATIVES are drawn anew each time, each of which counts for as many as were left
    out: a third of the time.
    """
    lengths = [len(rows) for rows in tokens]
    flat = torch.cat(list(tokens)).float()
    labels = torch.tensor([label for target in targets for label in target], dtype=torch.int64)
    others = torch.randint(0, len(scorer.embeddings), (_NEGATIVES,))
    chosen, where = torch.unique(torch.cat([labels - 1, others]), return_inverse=True)
    said = torch.zeros(len(chosen), dtype=torch.bool)
    said[where[: len(labels)]] = True
    n_others = len(scorer.embeddings) - int(said.sum())
    each_stands_for = math.log(n_others / max(1, int((~said).sum()))) if n_others else 0.0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = scorer(flat, chosen)
    scores = scores + F.pad(each_stands_for * (~said).float(), (1, 0))  # but not the blank
    padded = nn.utils.rnn.pad_sequence(list(F.log_softmax(scores, -1).split(lengths)))
    labels = where[: len(labels)] + 1
    sizes = torch.tensor([len(target) for target in targets])
    loss = F.ctc_loss(padded, labels, torch.tensor(lengths), sizes, zero_infinity=True)
    if length is None:
        return loss
    return loss + _LENGTH_WEIGHT * (flat.norm(dim=-1) - length).square().mean()
