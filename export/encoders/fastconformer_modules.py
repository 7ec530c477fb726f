"""FastConformer in torch: transformers' own modules as the reference, and the same sums written for a graph.

    features ─► Subsample (x 1/8) ─► Layer x n ─► [adapter's Layers] ─► proj ─► audio_tokens

The graph's modules are exact and light: BatchNorm is folded into the depthwise convolution, every other convolution is
a linear layer over channels, scales are folded into weights, and what attention knows of relative positions is a table
made at export. Source: NeMo asr/modules/conformer_encoder.py, speechlm2/modules/perception.py (docs/reference.md §7.3).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ParakeetEncoder, ParakeetEncoderConfig
from transformers.models.parakeet.modeling_parakeet import (
    ParakeetEncoderAttention,
    ParakeetEncoderBlock,
    ParakeetEncoderConvolutionModule,
    ParakeetEncoderFeedForward,
    ParakeetEncoderSubsamplingConv2D,
)

from ...models.encoders.fastconformer import LEAST_SAMPLES, AdapterSpec, FastConformerSpec, n_frames, n_tokens


class Perception(nn.Module):
    """features [1, n_mels, n_frames], all valid -> audio_tokens [1, n_tokens, d_llm]: the reference."""

    def __init__(self, spec: FastConformerSpec, scale_input: bool = False) -> None:
        super().__init__()
        self.encoder = ParakeetEncoder(_encoder_config(spec, scale_input))
        self.encoder.encode_positions = Positions()  # pyright: ignore[reportAttributeAccessIssue]
        self.adapter = None if spec.adapter is None else Adapter(spec.d_model, spec.adapter)
        self.proj = nn.Linear(spec.adapter.d_model if spec.adapter else spec.d_model, spec.d_llm)

    def speech(self, features: Tensor) -> Tensor:
        """What the encoder hears: [1, n_tokens, d_model]."""
        return self.encoder(features.transpose(1, 2)).last_hidden_state

    def forward(self, features: Tensor) -> Tensor:
        speech = self.speech(features)
        return self.proj(speech if self.adapter is None else self.adapter(speech))


class Adapter(nn.Module):
    """NeMo's ConformerEncoder without subsampling: [1, n_tokens, d_encoder] -> [1, n_tokens, d_model]."""

    def __init__(self, d_encoder: int, spec: AdapterSpec) -> None:
        super().__init__()
        config = _block_config(spec)
        self.scale = spec.d_model**0.5 if spec.scale_input else 1.0
        self.pre_encode = nn.Linear(d_encoder, spec.d_model)
        self.positions = Positions()
        self.layers = nn.ModuleList(ParakeetEncoderBlock(config, i) for i in range(spec.n_layers))

    def forward(self, speech: Tensor) -> Tensor:
        x = self.pre_encode(speech) * self.scale
        positions = self.positions(x)
        for layer in self.layers:
            x = layer(x, position_embeddings=positions)
        return x


class Positions(nn.Module):
    """[1, n, d_model] -> sinusoids of the distances n - 1 .. 1 - n: [1, 2 n - 1, d_model]."""

    def forward(self, x: Tensor) -> Tensor:
        return sinusoids(torch.arange(x.shape[1] - 1, -x.shape[1], -1, device=x.device), x.shape[2])[None]


class FastConformer(nn.Module):
    """The same as Perception, for clips up to spec.seconds and a tail: the graph."""

    def __init__(self, perception: Perception, spec: FastConformerSpec) -> None:
        super().__init__()
        encoder = perception.encoder
        adapter = perception.adapter
        self.longest = n_tokens(n_frames(spec.n_samples + LEAST_SAMPLES - 1))
        self.subsampling = Subsample(encoder.subsampling, encoder.input_scale)
        self.layers = nn.ModuleList(_layers(encoder.layers, self.longest))
        self.pre_encode = None if adapter is None else _scaled(adapter.pre_encode, adapter.scale)
        self.adapter_layers = nn.ModuleList([] if adapter is None else _layers(adapter.layers, self.longest))
        self.proj = perception.proj

    def forward(self, features: Tensor) -> Tensor:
        x = self.subsampling(features)
        n = x.shape[1]
        positions = torch.arange(self.longest - n, self.longest + n)
        for layer in self.layers:
            x = layer(x, positions)
        if self.pre_encode is not None:
            x = self.pre_encode(x)
        for layer in self.adapter_layers:
            x = layer(x, positions)
        return self.proj(x)


class Subsample(nn.Module):
    """[1, n_mels, n_frames] -> [1, ceil(n_frames / 8), d_model].

    Frames beyond the last are the zeros that a convolution pads with, as NeMo's mask makes them.
    """

    def __init__(self, module: ParakeetEncoderSubsamplingConv2D, scale: float) -> None:
        super().__init__()
        layers: Any = module.layers
        self.first = layers[0]
        self.depthwise = nn.ModuleList(layers[2::3])
        self.pointwise = nn.ModuleList(_pointwise(conv) for conv in layers[3::3])
        channels = self.first.out_channels
        weight = module.linear.weight.unflatten(1, (channels, -1)).transpose(1, 2).flatten(1)
        self.linear = _linear(weight * scale, module.linear.bias * scale)

    def forward(self, features: Tensor) -> Tensor:
        x = F.relu(self.first(features.transpose(1, 2).unsqueeze(1)))  # [1, channels, frames, bands]
        for depthwise, pointwise in zip(self.depthwise, self.pointwise, strict=True):
            x = F.relu(pointwise(depthwise(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return self.linear(x.permute(0, 2, 3, 1).flatten(2))


class Layer(nn.Module):
    """One Conformer block: half a feed-forward, attention, convolution, the other half, norm."""

    def __init__(self, block: ParakeetEncoderBlock, longest: int) -> None:
        super().__init__()
        self.norm_feed_forward1 = block.norm_feed_forward1
        self.feed_forward1 = FeedForward(block.feed_forward1)
        self.norm_self_att = block.norm_self_att
        self.self_attn = RelativeAttention(block.self_attn, longest)
        self.norm_conv = block.norm_conv
        self.conv = Convolution(block.conv)
        self.norm_feed_forward2 = block.norm_feed_forward2
        self.feed_forward2 = FeedForward(block.feed_forward2)
        self.norm_out = block.norm_out

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        x = x + self.feed_forward1(self.norm_feed_forward1(x))
        x = x + self.self_attn(self.norm_self_att(x), positions)
        x = x + self.conv(self.norm_conv(x))
        x = x + self.feed_forward2(self.norm_feed_forward2(x))
        return self.norm_out(x)


class FeedForward(nn.Module):
    """Half of what the reference's gives."""

    def __init__(self, module: ParakeetEncoderFeedForward) -> None:
        super().__init__()
        self.linear1 = module.linear1
        self.linear2 = _scaled(module.linear2, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(F.silu(self.linear1(x)))


class Convolution(nn.Module):
    """Gate, depthwise convolution with its BatchNorm, Swish; [1, n, d] all the way."""

    def __init__(self, module: ParakeetEncoderConvolutionModule) -> None:
        super().__init__()
        self.pointwise_conv1 = _pointwise(module.pointwise_conv1)
        self.pointwise_conv2 = _pointwise(module.pointwise_conv2)
        conv = module.depthwise_conv
        norm = module.norm
        factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)  # pyright: ignore
        width = conv.kernel_size[0]
        device = conv.weight.device
        self.depthwise_conv = nn.Conv2d(
            conv.in_channels, conv.out_channels, (1, width), padding=(0, width // 2), groups=conv.groups, device=device
        )
        weight = (conv.weight * factor[:, None, None]).unsqueeze(2)
        _assign(self.depthwise_conv, weight, (conv.bias - norm.running_mean) * factor + norm.bias)  # pyright: ignore

    def forward(self, x: Tensor) -> Tensor:
        x = F.glu(self.pointwise_conv1(x), dim=2)
        x = self.depthwise_conv(x.unsqueeze(1).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).squeeze(1)
        return self.pointwise_conv2(F.silu(x))


class RelativeAttention(nn.Module):
    """softmax((q + u) k^T + shift((q + v) p^T)) v of all positions at once.

    p is the projection of the sinusoids of the distances longest - 1 .. -longest, made here once; `positions` says
    which of its rows a clip of n positions needs: n - 1 .. -n, the last only so that shifting is one reshape.
    """

    def __init__(self, module: ParakeetEncoderAttention, longest: int) -> None:
        super().__init__()
        self.d_head = module.head_dim
        scale = module.scaling
        self.linear_q = _linear(module.q_proj.weight * scale, (module.q_proj.bias + module.bias_u.flatten()) * scale)
        self.linear_k = module.k_proj
        self.linear_v = module.v_proj
        self.linear_out = module.o_proj
        self.u_to_v = nn.Parameter((module.bias_v - module.bias_u).flatten() * scale, requires_grad=False)
        distances = torch.arange(longest - 1, -longest - 1, -1, device=module.bias_u.device)
        self.table = nn.Parameter(
            module.relative_k_proj(sinusoids(distances, module.relative_k_proj.in_features)), requires_grad=False
        )

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        q = self.linear_q(x)
        k = self.linear_k(x)
        v = self.linear_v(x)
        p = self.table.index_select(0, positions)
        near = self._heads(q) @ self._heads(k).transpose(2, 3)
        far = self._heads(q + self.u_to_v) @ self._heads(p.unsqueeze(0)).transpose(2, 3)
        mixed = torch.softmax(near + shift(far), dim=3) @ self._heads(v)
        return self.linear_out(mixed.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        """[1, n, heads * d_head] -> [1, heads, n, d_head]."""
        return x.unflatten(2, (-1, self.d_head)).transpose(1, 2)


def shift(x: Tensor) -> Tensor:
    """[1, heads, n, 2 n] over distances n - 1 .. -n -> [1, heads, n, n]: row i begins at distance i.

    row 0   . . . x x x x .        row i starts n - 1 - i further on; in a row of 2 n - 1 that is
    row 1   . . x x x x . .        one column less each time, so the wanted part stands upright
    row 2   . x x x x . . .
    """
    n = x.shape[2]
    flat = x.flatten(2)[:, :, n - 1 : n - 1 + n * (2 * n - 1)]
    return flat.view(1, x.shape[1], n, 2 * n - 1)[..., :n]


def sinusoids(distances: Tensor, d_model: int) -> Tensor:
    """NeMo's relative positions: [n] -> [n, d_model], sines in even columns, cosines in odd ones.

    In bfloat16, the type of the model they are part of, even where all else is computed in float32.
    """
    columns = torch.arange(0, d_model, 2, dtype=torch.float32, device=distances.device)
    angles = distances[:, None] * torch.exp(columns * -(math.log(10000.0) / d_model))
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1).bfloat16().float()


def _layers(blocks: Any, longest: int) -> list[Layer]:
    return [Layer(block, longest) for block in blocks]


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    _assign(layer, weight, bias)
    return layer


def _assign(module: nn.Linear | nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    module.weight = nn.Parameter(weight.detach(), requires_grad=False)
    module.bias = nn.Parameter(bias.detach(), requires_grad=False)


def _scaled(layer: nn.Linear, factor: float) -> nn.Linear:
    return layer if factor == 1.0 else _linear(layer.weight * factor, layer.bias * factor)


def _pointwise(conv: nn.Conv1d | nn.Conv2d) -> nn.Linear:
    """A convolution of width 1 as a linear layer over channels."""
    assert conv.bias is not None
    return _linear(conv.weight.flatten(1), conv.bias)


def _encoder_config(spec: FastConformerSpec, scale_input: bool) -> ParakeetEncoderConfig:
    sizes = _block_sizes(spec)
    return ParakeetEncoderConfig(
        **sizes,
        num_hidden_layers=spec.n_layers,
        num_mel_bins=spec.n_mels,
        subsampling_conv_channels=spec.subsampling_channels,
        scale_input=scale_input,
    )


def _block_config(spec: AdapterSpec) -> ParakeetEncoderConfig:
    return ParakeetEncoderConfig(**_block_sizes(spec))


def _block_sizes(spec: FastConformerSpec | AdapterSpec) -> dict[str, Any]:
    return {
        "hidden_size": spec.d_model,
        "num_attention_heads": spec.n_heads,
        "intermediate_size": spec.d_ffn,
        "conv_kernel_size": spec.conv_kernel,
        "attn_implementation": "eager",
    }
