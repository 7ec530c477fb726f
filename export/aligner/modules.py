"""The aligner's two graphs as torch modules: log-mel -> cross keys and values; ids -> logits and alignment scores."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.whisper.modeling_whisper import WhisperDecoder, WhisperEncoder

from ..encoders.whisper import HalveRate, encode


class CrossKeys(nn.Module):
    """log_mel [1, n_mels, 2 n] -> [2 n_layers, n, d]: what each layer's cross-attention reads, keys before values."""

    def __init__(self, encoder: WhisperEncoder, decoder: WhisperDecoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.conv2 = HalveRate(encoder.conv2)
        attentions: list[Any] = [layer.encoder_attn for layer in decoder.layers]
        self.projections = nn.ModuleList([p for each in attentions for p in (each.k_proj, each.v_proj)])

    def forward(self, log_mel: Tensor) -> Tensor:
        speech = encode(self.encoder, log_mel, self.conv2)
        return torch.cat([projection(speech) for projection in self.projections])


class AlignedDecoder(nn.Module):
    """ids [1, n] behind the n_past whose keys and values are given -> their logits, alignment scores, keys and values.

    One step of greedy decoding, or a whole text in one pass. Scores are taken before the softmax, of the alignment
    heads alone: [n_heads, n, n_positions].
    """

    def __init__(self, decoder: WhisperDecoder, heads: tuple[tuple[int, ...], ...]) -> None:
        super().__init__()
        self.layers = decoder.layers
        self.layer_norm = decoder.layer_norm
        self.n_heads = decoder.config.decoder_attention_heads
        self.by_layer = [[h for at, h in heads if at == layer] for layer in range(len(decoder.layers))]
        self.order = torch.tensor(_order(heads))
        self.embedding = nn.Parameter(decoder.embed_tokens.weight.detach(), requires_grad=False)
        self.positions = nn.Parameter(decoder.embed_positions.weight.detach(), requires_grad=False)
        self.head = nn.Linear(*reversed(self.embedding.shape), bias=False, device="meta")
        self.head.weight = nn.Parameter(self.embedding.clone(), requires_grad=False)  # int8 rounds it on its own

    def forward(self, tokens: Tensor, past: Tensor, cross: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n, n_past = tokens.shape[1], past.shape[1]
        at = torch.arange(n_past, n_past + n)
        x = F.embedding(tokens.to(torch.int64), self.embedding) + F.embedding(at, self.positions)
        unseen = torch.arange(n_past + n)[None] > at[:, None]
        present: list[Tensor] = []
        scores: list[Tensor] = []
        for i, layer in enumerate(cast("list[Any]", list(self.layers))):
            h = layer.self_attn_layer_norm(x)
            attention = layer.self_attn
            k = torch.cat([past[2 * i], attention.k_proj(h)[0]])
            v = torch.cat([past[2 * i + 1], attention.v_proj(h)[0]])
            present += [k, v]
            found = self._split(attention.q_proj(h)[0]) @ self._split(k).transpose(1, 2) * attention.scaling
            x = x + attention.out_proj(self._mix(found.masked_fill(unseen, float("-inf")), v))
            attention = layer.encoder_attn
            q = self._split(attention.q_proj(layer.encoder_attn_layer_norm(x))[0])
            found = q @ self._split(cross[2 * i]).transpose(1, 2) * attention.scaling
            scores += [found[h] for h in self.by_layer[i]]
            x = x + attention.out_proj(self._mix(found, cross[2 * i + 1]))
            x = x + layer.fc2(F.gelu(layer.fc1(layer.final_layer_norm(x))))
        return self.head(self.layer_norm(x)), torch.stack(scores)[self.order], torch.stack(present)

    def _split(self, x: Tensor) -> Tensor:
        """[n, d] -> [n_heads, n, d_head]."""
        return x.unflatten(1, (self.n_heads, -1)).transpose(0, 1)

    def _mix(self, scores: Tensor, values: Tensor) -> Tensor:
        """[n_heads, n, m] and [m, d] -> [1, n, d]."""
        return (scores.softmax(2) @ self._split(values)).transpose(0, 1).flatten(1)[None]


def _order(heads: tuple[tuple[int, ...], ...]) -> list[int]:
    """Where each head stands when they are taken layer by layer."""
    taken = [head for layer in range(1 + max(at for at, _ in heads)) for head in heads if head[0] == layer]
    return [taken.index(head) for head in heads]
