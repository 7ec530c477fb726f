"""The bridge of `small` and its first training: a CTC loss against the language model's own input embeddings.

A token's score at a window is the cosine of the bridge's output with that token's embedding, or a learned blank's. So
the Q-Former speaks the language model's embeddings before that is ever run, which costs a fraction of running it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from ....models.encoders.qformer import QFormerSpec
from ...encoders.qformer import ReferenceQFormer
from ..shards import View, read_shard, shard_names
from ..trainer import Trainer
from .corpus import WINDOW

SPEC = QFormerSpec(
    hidden=512, n_heads=8, d_ffn=2048, d_speech=512, d_audio=96, d_llm=576, second_per_window=0.16, second_stride=0.16
)
EMBEDDING_LENGTH = 3.2
"""Of SmolLM2's token embeddings, on average; audio tokens are drawn to it."""
_BATCH_ROWS = 24 * 150  # encoder frames of one step: 72 s
_SHIFT, _NOISE = 8, 0.25
_LENGTH_WEIGHT = 0.02
_NEGATIVES = 5000


class Bridge(nn.Module):
    """The two LayerNorms, the Q-Former and the projection: encoder outputs of whole windows -> audio tokens."""

    def __init__(self, spec: QFormerSpec = SPEC, dropout: float = 0.0) -> None:
        super().__init__()
        self.spec = spec
        self.ln_speech, self.ln_audio = nn.LayerNorm(spec.d_speech), nn.LayerNorm(spec.d_audio)
        self.qformer = ReferenceQFormer(spec)
        nn.init.normal_(self.qformer.query, std=0.02)
        for module in self.qformer.modules():
            if isinstance(module, nn.Dropout):
                module.p = dropout

    def forward(self, speech: Tensor, audio: Tensor, real: Tensor) -> Tensor:
        """speech [n * window, d], audio [n * window, d], its real rows [n * window, 1] -> audio tokens [n, d_llm]."""
        fused = torch.cat([self.ln_speech(speech), self.ln_audio(audio) * real], dim=1)
        windows = fused.view(-1, self.spec.window, self.spec.d_encoder)
        query = self.qformer.query.expand(len(windows), -1, -1)
        hidden = self.qformer.qformer(query_embeds=query, encoder_hidden_states=windows).last_hidden_state
        return self.qformer.projection(hidden[:, 0])


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
    """The language model's tokens that texts are made of."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = tuple(ids)
        self.index = {token: number for number, token in enumerate(self.ids, 1)}

    @classmethod
    def of(cls, texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
        """Every token of the texts, each of which begins with a space."""
        found: set[int] = set()
        for start in range(0, len(texts), 4096):
            for ids in tokenizer(
                [f" {text}" for text in texts[start : start + 4096]], add_special_tokens=False
            ).input_ids:
                found.update(ids)
        return cls(sorted(found))

    def encode(self, text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """CTC's labels of a text, tokens that are not in the vocabulary left out."""
        if not text:
            return []
        ids = tokenizer(f" {text}", add_special_tokens=False).input_ids
        return [self.index[token] for token in ids if token in self.index]

    def decode(self, scores: Tensor, tokenizer: PreTrainedTokenizerBase) -> str:
        """Greedy CTC of scores [n_windows, 1 + n]."""
        best = torch.unique_consecutive(scores.argmax(-1)).tolist()
        return str(tokenizer.decode([self.ids[number - 1] for number in best if number])).strip()


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


def hear(bridge: Bridge, views: Sequence[View], generator: torch.Generator | None = None) -> list[Tensor]:
    """Audio tokens [n_windows, d_llm] of each view, all windows in one pass; with a generator, disturbed."""
    speech_rows = []
    audio_rows = []
    real_rows = []
    counts = []
    for view in views:
        speech = torch.from_numpy(np.asarray(view.speech, np.float32))
        audio = torch.from_numpy(np.asarray(view.audio, np.float32))[: len(speech)]
        if generator is not None:
            speech, audio = _disturbed(speech, audio, generator)
        missing = len(speech) - len(audio)
        real_rows.append((torch.arange(len(speech)) < len(audio)).float()[:, None])
        speech_rows.append(speech)
        audio_rows.append(F.pad(audio, (0, 0, 0, missing)))
        counts.append(len(speech) // WINDOW)
    tokens = bridge(torch.cat(speech_rows), torch.cat(audio_rows), torch.cat(real_rows))
    return list(tokens.split(counts))


def _disturbed(speech: Tensor, audio: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Windows that begin up to 7 frames earlier or later, and noise on the features."""
    shift = int(torch.randint(0, _SHIFT, (1,), generator=generator))
    before = speech[:1].expand(shift, -1)
    speech = torch.cat([before, speech])[: len(speech)] if shift else speech
    audio = torch.cat([audio[:1].expand(shift, -1), audio])[: len(speech)] if shift else audio
    strength = float(torch.rand(1, generator=generator)) * _NOISE
    noise = torch.randn(speech.shape, generator=generator) * (strength * speech.std())
    return speech + noise, audio


def ctc_loss(reader: Reader, tokens: Sequence[Tensor], targets: Sequence[Sequence[int]]) -> Tensor:
    """Mean CTC loss per label, and a pull of the tokens' length to that of embeddings.

    Tokens that nobody said stand against _NEGATIVES of their kind drawn anew each time, not all: a third of the time.
    """
    lengths = [len(rows) for rows in tokens]
    flat = torch.cat(list(tokens)).float()
    labels = torch.tensor([label for target in targets for label in target], dtype=torch.int64)
    others = torch.randint(0, len(reader.embeddings), (_NEGATIVES,))
    chosen, where = torch.unique(torch.cat([labels - 1, others]), return_inverse=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = reader(flat, chosen)
    padded = nn.utils.rnn.pad_sequence(list(F.log_softmax(scores, -1).split(lengths)))
    labels = where[: len(labels)] + 1
    sizes = torch.tensor([len(target) for target in targets])
    loss = F.ctc_loss(padded, labels, torch.tensor(lengths), sizes, zero_infinity=True)
    return loss + _LENGTH_WEIGHT * (flat.norm(dim=-1) - EMBEDDING_LENGTH).square().mean()


def train_bridge(
    trainer: Trainer,
    bridge: Bridge,
    reader: Reader,
    vocabulary: Vocabulary,
    tokenizer: PreTrainedTokenizerBase,
    shards: Shards,
) -> None:
    """CTC alone, until the trainer's time is spent."""
    generator = torch.Generator()
    for _ in trainer:
        views = shards.batch()
        targets = [vocabulary.encode(view.utterance.text if view.utterance else "", tokenizer) for view in views]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            tokens = hear(bridge, views, generator)
        trainer.step(ctc_loss(reader, tokens, targets))
