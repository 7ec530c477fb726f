"""Initialization of a small Whisper: heads that already look at their neighbours.

Whisper adds sinusoids to its features and must find out by itself that attention can be local. With thousands of
hours it does; with ten, a plainly initialised encoder learnt frequent sentences by heart and stayed at 35 % word error.
Here the queries of each head start as the keys turned by a fixed number of frames, so the first steps see a small
time-delay network. Everything stays trainable, and the file format knows nothing of it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.models.whisper.modeling_whisper import WhisperEncoder

_OFFSETS = ((-4.0, -1.3, 1.3, 4.0), (-6.0, -2.0, 2.0, 6.0), (-9.0, -3.0, 3.0, 9.0), (-14.0, -2.0, 2.0, 14.0))
"""Frames (20 ms) that each head of each layer starts looking away from its own."""
_SHARPNESS = (1.25, 1.5, 1.6, 1.7)  # by layer: the positions are a smaller part of what later layers read
_SKIPPED = {9.0: 4, 14.0: 8}  # heads that look far skip the fastest sinusoids, which tell only near frames apart


@torch.no_grad()
def look_at_neighbours(encoder: WhisperEncoder, log_mel: Tensor) -> None:
    """Initialise an encoder in place; `log_mel` [B, 80, n] are samples to scale its convolutions by."""
    _scale_convolutions(encoder, log_mel)
    layers: Any = encoder.layers  # torch types a module's children as Tensor or Module
    for layer, offsets, sharpness in zip(layers, _OFFSETS, _SHARPNESS, strict=True):
        attention = layer.self_attn
        for projection in (attention.q_proj, attention.k_proj):
            torch.nn.init.normal_(projection.weight, std=0.03)
        for projection in (attention.v_proj, attention.out_proj, layer.fc1):
            torch.nn.init.normal_(projection.weight, std=0.8 / math.sqrt(projection.in_features))
        torch.nn.init.normal_(layer.fc2.weight, std=0.5 / math.sqrt(layer.fc2.in_features))
        for head, offset in enumerate(offsets):
            _turn(attention.q_proj.weight, attention.k_proj.weight, head, offset, sharpness)


def _turn(query: Tensor, key: Tensor, head: int, offset: float, sharpness: float) -> None:
    """Make head's score of frames i and j a sum of cosines of i + offset - j: highest where j = i + offset."""
    width = query.shape[0]
    half = width // 2
    per_head = width // len(_OFFSETS[0])
    skipped = _SKIPPED.get(abs(offset), 0)
    for pair in range(per_head // 2):
        column = skipped + pair
        row = head * per_head + 2 * pair
        angle = offset * math.exp(-math.log(10000) / (half - 1) * column)
        cos = sharpness * math.cos(angle)
        sin = sharpness * math.sin(angle)
        key[row, column] += sharpness
        key[row + 1, half + column] += sharpness
        query[row, column] += cos
        query[row, half + column] += sin
        query[row + 1, half + column] += cos
        query[row + 1, column] -= sin


def _scale_convolutions(encoder: WhisperEncoder, log_mel: Tensor) -> None:
    """Features as loud as the sinusoids they are added to: neither drowns the other."""
    for convolution, level in ((encoder.conv1, 1.0), (encoder.conv2, 0.7)):
        first = F.gelu(encoder.conv1(log_mel))
        out = first if convolution is encoder.conv1 else F.gelu(encoder.conv2(first))
        convolution.weight.mul_(level / out.std())
        if convolution.bias is not None:
            convolution.bias.zero_()
