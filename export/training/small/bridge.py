"""The bridge of `small` and its first training: CTC on the Q-Former's hidden state, in the language model's pieces.

The projection to the language model is then set to say the pieces' embeddings, before that is ever run: this costs a
fraction of running it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor, nn
from torch.nn import functional as F

from ....models.encoders.qformer import QFormerSpec
from ..bridge import Bridge, hear_views
from ..shards import View, read_shard, shard_names
from ..trainer import Trainer

SPEC = QFormerSpec(
    hidden=512, n_heads=8, d_ffn=2048, d_speech=512, d_audio=96, d_llm=576, second_per_window=0.08, second_stride=0.08
)
_BATCH_ROWS = 24 * 60  # encoder frames of one step: 29 s
_SHIFT, _NOISE = 8, 0.25
N_MERGES = 1000
"""920 pieces of 2.7 letters in the training texts, 98.7 % of them ones that are seen often; 5.5 a second are said."""


class Reader(nn.Module):
    """The Q-Former's hidden state -> CTC scores of the blank (0) and of the pieces (from 1).

    Weights of its own: against the language model's embeddings, where letters lie close together, it learned three
    times as slowly.
    """

    def __init__(self, hidden: int, n_pieces: int) -> None:
        super().__init__()
        self.scores = nn.Linear(hidden, 1 + n_pieces)

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden [n, hidden] -> [n, 1 + n_pieces], float32."""
        return self.scores(hidden).float()


class Vocabulary:
    """The pieces that CTC spells words with: the language model's tokenizer cut to its first merges.

    A word is then made of the short pieces that occur everywhere. Of its whole tokens every second one would be seen
    too rarely to be learned.
    """

    def __init__(self, tokenizer: Tokenizer, n_merges: int = N_MERGES) -> None:
        """tokenizer: a byte-level BPE, left as it is."""
        description = json.loads(tokenizer.to_str())
        merges = description["model"]["merges"][:n_merges]
        description["model"]["merges"] = merges
        vocab = description["model"]["vocab"]
        self._pieces = Tokenizer.from_str(json.dumps(description))
        pieces = [*ByteLevel.alphabet(), *("".join(merge) for merge in merges)]
        self.ids = tuple(sorted(vocab[piece] for piece in set(pieces) if piece in vocab))
        self.index = {token: number for number, token in enumerate(self.ids, 1)}

    def encode(self, text: str) -> list[int]:
        """CTC's labels of a text; none of an empty one."""
        if not text:
            return []
        return [self.index[token] for token in self._pieces.encode(f" {text}", add_special_tokens=False).ids]

    def decode(self, scores: Tensor) -> str:
        """Greedy CTC of scores [n_windows, 1 + n]."""
        best = torch.unique_consecutive(scores.argmax(-1)).tolist()
        return self._pieces.decode([self.ids[number - 1] for number in best if number]).strip()


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


def ctc_loss(reader: Reader, hidden: Sequence[Tensor], targets: Sequence[Sequence[int]]) -> Tensor:
    """Mean CTC loss per label; hidden [n_windows, hidden] of each clip."""
    lengths = [len(rows) for rows in hidden]
    labels = torch.tensor([label for target in targets for label in target], dtype=torch.int64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = reader(torch.cat(list(hidden)))
    padded = nn.utils.rnn.pad_sequence(list(F.log_softmax(scores, -1).split(lengths)))
    sizes = torch.tensor([len(target) for target in targets])
    return F.ctc_loss(padded, labels, torch.tensor(lengths), sizes, zero_infinity=True)


@torch.no_grad()
def fit_projection(bridge: Bridge, reader: Reader, embeddings: Tensor, views: Sequence[View]) -> None:
    """Set the projection to say what the reader hears: of each window the embeddings of the pieces, as likely as each.

    embeddings [n_pieces, d_llm]: the language model's. By least squares over the windows of `views`; a blank is zero.
    """
    bridge.eval()
    hidden = torch.cat(hear_views(bridge, views)).float()
    bridge.train()
    wanted = torch.softmax(reader(hidden), -1)[:, 1:] @ embeddings.float()
    found = torch.linalg.lstsq(F.pad(hidden, (0, 1), value=1.0).double(), wanted.double()).solution.float()
    bridge.qformer.projection.weight.copy_(found[:-1].T)
    bridge.qformer.projection.bias.copy_(found[-1])


def train_bridge(
    trainer: Trainer,
    bridge: Bridge,
    reader: Reader,
    vocabulary: Vocabulary,
    shards: Shards,
) -> None:
    """CTC alone, until the trainer's time is spent."""
    for _ in trainer:
        views = shards.batch()
        targets = [vocabulary.encode(view.utterance.text if view.utterance else "") for view in views]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = hear_views(bridge, views, disturb)
        trainer.step(ctc_loss(reader, hidden, targets))
