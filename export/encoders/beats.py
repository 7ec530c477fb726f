"""BEATs in torch: the official checkpoint -> a module -> its graph.

Source: microsoft/unilm beats/BEATs.py, backbone.py (docs/reference.md §2.2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...models.encoders.beats import INPUT, N_MELS, OUTPUT, BeatsSpec
from ...models.errors import CheckpointError
from ..formats.checkpoint import load_torch, require, require_shape, tensors_of
from ..graphs.onnx_graph import save_graph
from ..graphs.weightless import SaveGraph, weightless

_CFG_KEY = {
    "d_model": "encoder_embed_dim",
    "n_layers": "encoder_layers",
    "n_heads": "encoder_attention_heads",
    "d_ffn": "encoder_ffn_embed_dim",
    "d_patch": "embed_dim",
    "patch_size": "input_patch_size",
    "conv_pos": "conv_pos",
    "conv_pos_groups": "conv_pos_groups",
    "num_buckets": "num_buckets",
    "max_distance": "max_distance",
}
"""Field of BeatsSpec -> key of the checkpoint's cfg."""

_FIXED = {
    "activation_fn": "gelu",
    "layer_norm_first": False,
    "conv_bias": False,
    "relative_position_embedding": True,
    "gru_rel_pos": True,
    "deep_norm": True,
    "finetuned_model": True,
}
"""The only structure Auricle knows; finetuned_model False is weights SALMONN was not trained with."""

_TRAINING_ONLY = {
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "dropout_input": 0.0,
    "encoder_layerdrop": 0.05,
    "layer_wise_gradient_decay_ratio": 0.6,
    "predictor_dropout": 0.0,
    "predictor_class": 527,
}
"""Keys without effect on the encoder's output, with the released values."""

_FP16_GUARD = 32.0  # q is divided and the logits multiplied by it: nothing in float32, no overflow in float16
_TABLE = "encoder.relative_attention_bias"


class Beats(nn.Module):
    """fbank [B, n_frames, 128] -> tokens [B, spec.n_tokens(n_frames), d_model], time-major: token 8 t + band.

    Parameters bear the official names, except that the relative table is stored once and the positional
    convolution's weight norm is folded: `load_beats` and `official_state` translate.
    """

    def __init__(self, spec: BeatsSpec) -> None:
        super().__init__()
        self.spec = spec
        size = spec.patch_size
        self.patch_embedding = nn.Conv2d(1, spec.d_patch, size, stride=size, bias=False)
        self.layer_norm = nn.LayerNorm(spec.d_patch)
        needs_projection = spec.d_patch != spec.d_model
        self.post_extract_proj = nn.Linear(spec.d_patch, spec.d_model) if needs_projection else nn.Identity()
        self.encoder = _Encoder(spec)

    def forward(self, fbank: Tensor) -> Tensor:
        patches = self.patch_embedding(fbank.unsqueeze(1))  # [B, d_patch, t, band]
        tokens = patches.flatten(2).transpose(1, 2)  # band runs fastest
        return self.encoder(self.post_extract_proj(self.layer_norm(tokens)))


class _Encoder(nn.Module):
    """Positional convolution, LayerNorm, then post-norm layers that share one relative position bias."""

    buckets: Tensor

    def __init__(self, spec: BeatsSpec) -> None:
        super().__init__()
        pad = spec.conv_pos // 2
        conv = nn.Conv1d(spec.d_model, spec.d_model, spec.conv_pos, padding=pad, groups=spec.conv_pos_groups)
        nn.init.normal_(conv.weight, std=math.sqrt(4.0 / (spec.conv_pos * spec.d_model)))
        nn.init.zeros_(cast(Tensor, conv.bias))
        self.pos_conv = nn.Sequential(conv)
        self.layer_norm = nn.LayerNorm(spec.d_model)
        self.relative_attention_bias = nn.Parameter(torch.randn(spec.num_buckets, spec.n_heads) * 0.02)
        self.layers = nn.ModuleList(_Layer(spec) for _ in range(spec.n_layers))
        self.reach = spec.max_distance
        self.register_buffer("buckets", bucket_table(spec), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[1]
        positions = self.pos_conv(x.transpose(1, 2))[:, :, :n]  # an even kernel leaves one too many, at the end
        x = self.layer_norm(x + F.gelu(positions).transpose(1, 2))
        bias = self.position_bias(n)
        for layer in self.layers:
            x = layer(x, bias)
        return x

    def position_bias(self, n: int) -> Tensor:
        """[n_heads, query, key], from the signed distance key - query."""
        by_distance = self.relative_attention_bias.t()[:, self.buckets]  # [n_heads, 2 reach + 1]
        index = torch.arange(n, device=by_distance.device)
        distance = index.unsqueeze(0) - index.unsqueeze(1)
        near = torch.where(distance > self.reach, self.reach, distance)  # not clamp: TensorRT's Clip has no integers
        near = torch.where(near < -self.reach, -self.reach, near) + self.reach
        return by_distance.index_select(1, near.flatten()).unflatten(1, (n, n))


class _Layer(nn.Module):
    """DeepNorm: each branch is added to alpha times its input, then normalised."""

    def __init__(self, spec: BeatsSpec) -> None:
        super().__init__()
        self.alpha = (2 * spec.n_layers) ** 0.25
        self.self_attn = _Attention(spec)
        self.self_attn_layer_norm = nn.LayerNorm(spec.d_model)
        self.fc1 = nn.Linear(spec.d_model, spec.d_ffn)
        self.fc2 = nn.Linear(spec.d_ffn, spec.d_model)
        self.final_layer_norm = nn.LayerNorm(spec.d_model)
        self._initialise((8 * spec.n_layers) ** -0.25)

    def _initialise(self, beta: float) -> None:
        attention = self.self_attn
        for linear, gain in (
            (attention.q_proj, 1.0),
            (attention.k_proj, 1.0),
            (attention.v_proj, beta),
            (attention.out_proj, beta),
            (self.fc1, beta),
            (self.fc2, beta),
        ):
            nn.init.xavier_normal_(linear.weight, gain=gain)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, position_bias: Tensor) -> Tensor:
        x = self.self_attn_layer_norm(self.alpha * x + self.self_attn(x, position_bias))
        return self.final_layer_norm(self.alpha * x + self.fc2(F.gelu(self.fc1(x))))


class _Attention(nn.Module):
    """Self-attention whose position bias is gated, per head and query, by the unscaled query."""

    def __init__(self, spec: BeatsSpec) -> None:
        super().__init__()
        self.n_heads = spec.n_heads
        self.d_head = spec.d_model // spec.n_heads
        self.q_proj = nn.Linear(spec.d_model, spec.d_model)
        self.k_proj = nn.Linear(spec.d_model, spec.d_model)
        self.v_proj = nn.Linear(spec.d_model, spec.d_model)
        self.out_proj = nn.Linear(spec.d_model, spec.d_model)
        self.grep_linear = nn.Linear(self.d_head, 8)
        self.grep_a = nn.Parameter(torch.ones(1, spec.n_heads, 1, 1))

    def forward(self, x: Tensor, position_bias: Tensor) -> Tensor:
        q, k, v = (self._heads(project(x)) for project in (self.q_proj, self.k_proj, self.v_proj))
        scale = self.d_head**-0.5 / _FP16_GUARD
        logits = torch.matmul(q * scale, k.transpose(2, 3)) * _FP16_GUARD + self.gate(q) * position_bias
        mixed = torch.matmul(torch.softmax(logits, dim=-1), v)  # [B, n_heads, n, d_head]
        return self.out_proj(mixed.transpose(1, 2).flatten(2))

    def gate(self, q: Tensor) -> Tensor:
        """[B, n_heads, query, 1]; the 64 -> 8 projection and the sums of four are one 64 -> 2 projection."""
        weight = self.grep_linear.weight.view(2, 4, -1).sum(1)
        a, b = torch.sigmoid(F.linear(q, weight, self.grep_linear.bias.view(2, 4).sum(1))).chunk(2, dim=-1)
        return a * (b * self.grep_a - 1.0) + 2.0

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.n_heads, self.d_head)).transpose(1, 2)


def bucket_of(distance: int, spec: BeatsSpec) -> int:
    """Bucket of a distance key - query: half for each sign, exact up to a quarter, then logarithmic."""
    half = spec.num_buckets // 2
    exact = half // 2
    n = abs(distance)
    if n >= exact:
        far = math.log(n / exact) / math.log(spec.max_distance / exact) * (half - exact)
        n = min(half - 1, exact + int(far))
    return n + (half if distance > 0 else 0)


def bucket_table(spec: BeatsSpec) -> Tensor:
    """Buckets of all distances from -max_distance to max_distance; farther ones share the last."""
    reach = range(-spec.max_distance, spec.max_distance + 1)
    return torch.tensor([bucket_of(distance, spec) for distance in reach], dtype=torch.int64)


def spec_from_cfg(cfg: Mapping[str, Any]) -> BeatsSpec:
    """The sizes in a checkpoint's `cfg`. Raises CheckpointError for a structure that is not known exactly."""
    missing = [key for key in (*_CFG_KEY.values(), *_FIXED) if key not in cfg]
    if missing:
        raise CheckpointError(f"the BEATs cfg lacks {', '.join(missing)}: it is not one of BEATs iter3+")
    unknown = sorted(set(cfg) - set(_CFG_KEY.values()) - set(_FIXED) - set(_TRAINING_ONLY))
    if unknown:
        raise CheckpointError(f"the BEATs cfg has {', '.join(unknown)}, a structure that is not known")
    for key, known in _FIXED.items():
        if cfg[key] != known:
            raise CheckpointError(
                f"the BEATs cfg says {key}={cfg[key]!r}, and only {known!r} is supported: "
                "give BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt"
            )
    wrong = [key for key in _CFG_KEY.values() if type(cfg[key]) is not int or cfg[key] <= 0]
    if wrong:
        raise CheckpointError(f"the BEATs cfg says {wrong[0]}={cfg[wrong[0]]!r}, which should be a positive number")
    spec = BeatsSpec(**{field.name: cfg[_CFG_KEY[field.name]] for field in fields(BeatsSpec)})
    _check_sizes(spec)
    return spec


def cfg_from_spec(spec: BeatsSpec) -> dict[str, Any]:
    """The `cfg` that an official checkpoint of these sizes holds; inverse of `spec_from_cfg`."""
    sizes = {key: getattr(spec, name) for name, key in _CFG_KEY.items()}
    return {**sizes, **_FIXED, **_TRAINING_ONLY}


def load_beats(path: Path) -> tuple[BeatsSpec, Beats]:
    """Read an official BEATs .pt (`cfg`, `model`).

    Raises CheckpointError when it is not one, its structure is unknown, or tensors are missing or misshapen.
    """
    loaded = load_torch(path)
    cfg = loaded.get("cfg")
    state = loaded.get("model")
    if not isinstance(cfg, dict) or not isinstance(state, dict):
        raise CheckpointError(
            f"{path} is not a BEATs checkpoint: it has no 'cfg' and 'model'; "
            "give BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt"
        )
    spec = spec_from_cfg(cast(dict[str, Any], cfg))
    model = Beats(spec).eval()
    tensors = _from_official(tensors_of(cast(dict[str, object], state)), spec, path)
    expected = model.state_dict()
    require(tensors, expected, "BEATs checkpoint", path)
    model.load_state_dict({k: require_shape(tensors[k], tuple(v.shape), k, path) for k, v in expected.items()})
    return spec, model


class AudioEncoder(nn.Module):
    """fbank [1, n_frames, 128] -> audio [1, n_tokens, d_model], ln_audio applied: what is exported."""

    def __init__(self, beats: Beats, ln_audio: nn.LayerNorm) -> None:
        super().__init__()
        self.beats = beats
        self.ln_audio = ln_audio

    def forward(self, fbank: Tensor) -> Tensor:
        return self.ln_audio(self.beats(fbank))


def weightless_beats(spec: BeatsSpec) -> AudioEncoder:
    """An encoder of these sizes without weights, for `skeleton.RandomWeights` to export."""
    with torch.device("meta"):
        module = AudioEncoder(Beats(spec), nn.LayerNorm(spec.d_model))
    module.beats.encoder.buckets = bucket_table(spec)
    return weightless(module)


def export_beats(beats: Beats, ln_audio: nn.LayerNorm, path: Path, save: SaveGraph = save_graph) -> None:
    """Write beats.onnx in float32, or as `save` does, for fbanks of any length from one patch on."""
    save(
        AudioEncoder(beats, ln_audio),
        {INPUT: torch.zeros(1, 498, N_MELS)},
        {OUTPUT: (1, "n_tokens", beats.spec.d_model)},
        path,
        {INPUT: {1: "n_frames"}},
    )


def official_state(model: Beats) -> dict[str, Tensor]:
    """The state dict as the official checkpoint names it: weight norm apart, the table under every layer."""
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    table = state.pop(_TABLE)
    weight = state.pop("encoder.pos_conv.0.weight")
    state["encoder.pos_conv.0.weight_g"] = weight.norm(dim=(0, 1), keepdim=True)
    state["encoder.pos_conv.0.weight_v"] = weight
    for layer in range(model.spec.n_layers):
        state[_alias(layer)] = table
    return state


def _alias(layer: int) -> str:
    return f"encoder.layers.{layer}.self_attn.relative_attention_bias.weight"


def _from_official(state: dict[str, Tensor], spec: BeatsSpec, path: Path) -> dict[str, Tensor]:
    """Official names -> ours. The table is layer 0's; the others may be absent, but must not differ."""
    g, v = _weight_norm(state)
    require(state, [_alias(0), g, v], "BEATs checkpoint", path)
    table = state[_alias(0)]
    for layer in range(1, spec.n_layers):
        alias = state.get(_alias(layer), table)
        if not torch.equal(alias, table):
            raise CheckpointError(f"{path}: layer {layer} has a relative position table of its own, which is not known")
    folded = {_TABLE: table, "encoder.pos_conv.0.weight": _fold_weight_norm(state[g], state[v], path)}
    return {**state, **folded}


def _weight_norm(state: Mapping[str, Tensor]) -> tuple[str, str]:
    modern = "encoder.pos_conv.0.parametrizations.weight.original"
    if modern + "0" in state:
        return modern + "0", modern + "1"
    return "encoder.pos_conv.0.weight_g", "encoder.pos_conv.0.weight_v"


def _fold_weight_norm(g: Tensor, v: Tensor, path: Path) -> Tensor:
    """Weight norm over dim 2: each tap of the kernel has its own length g."""
    if v.ndim != 3 or tuple(g.shape) != (1, 1, v.shape[2]):
        raise CheckpointError(f"{path}: the positional convolution's weight norm is {list(g.shape)}, not one per tap")
    wide = v.to(torch.float64)
    return (wide / wide.norm(dim=(0, 1), keepdim=True) * g.to(torch.float64)).to(torch.float32)


def _check_sizes(spec: BeatsSpec) -> None:
    whole = spec.d_model % spec.n_heads == 0 and spec.d_model % spec.conv_pos_groups == 0
    if not whole or N_MELS % spec.patch_size or spec.num_buckets % 4 or spec.max_distance <= spec.num_buckets // 4:
        raise CheckpointError(f"the BEATs cfg's sizes do not fit together: {spec}")
