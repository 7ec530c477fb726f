"""SALMONN's window-level Q-Former: the reference, and the same function folded for export.

Source: SALMONN models/salmonn.py::_encode_auditory_feature, models/Qformer.py (docs/reference.md §3). The reference
is transformers' Blip2QFormerModel, equal to SALMONN's after renaming; the graph holds `FoldedQFormer`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from ...models.encoders.beats import BeatsSpec
from ...models.encoders.qformer import AUDIO_INPUT, OUTPUT, SPEECH_INPUT, QFormerSpec
from ...models.encoders.whisper import WhisperSpec
from ...models.errors import CheckpointError
from ..formats.checkpoint import require, require_shape
from ..graphs.onnx_graph import save_graph
from ..graphs.weightless import SaveGraph, weightless
from .lexicon import Lexicon, lexicon_keys

_BERT = "speech_Qformer.bert."
_LINEAR_NORM = ("dense.weight", "dense.bias", "LayerNorm.weight", "LayerNorm.bias")
_LAYER_KEYS = (
    *(
        f"{block}.self.{name}.{kind}"
        for block in ("attention", "crossattention")
        for name in ("query", "key", "value")
        for kind in ("weight", "bias")
    ),
    *(f"{block}.{name}" for block in ("attention.output", "crossattention.output") for name in _LINEAR_NORM),
    "intermediate_query.dense.weight",
    "intermediate_query.dense.bias",
    *(f"output_query.{name}" for name in _LINEAR_NORM),
)
_TOP_KEYS = (
    "speech_query_tokens",
    "ln_speech.weight",
    "ln_speech.bias",
    "ln_audio.weight",
    "ln_audio.bias",
    f"{_BERT}embeddings.LayerNorm.weight",
    f"{_BERT}embeddings.LayerNorm.bias",
    "speech_llama_proj.weight",
    "speech_llama_proj.bias",
)
_IGNORED = (
    "llama_model.",
    "beats.",
    f"{_BERT}embeddings.position_ids",
)  # LoRA is the LLM's; the others are aliases


@dataclass(frozen=True)
class QFormerOptions:
    """What no file of the checkpoint holds, with the released values."""

    n_heads: int | None = None  # hidden // 64, as bert-base
    n_layers: int = 2
    second_per_window: float = 0.333333
    second_stride: float = 0.333333


@dataclass(frozen=True)
class LoadedQFormer:
    """Everything SALMONN trained between its encoders and its LLM."""

    spec: QFormerSpec
    ln_speech: nn.LayerNorm
    ln_audio: nn.LayerNorm
    reference: ReferenceQFormer
    unknown_keys: tuple[str, ...]

    def folded(self) -> FoldedQFormer:
        """The module that is exported."""
        return FoldedQFormer(self.reference)


class ReferenceQFormer(nn.Module):
    """speech [1, T, d], audio [1, n, d], behind their LayerNorms -> audio_tokens [1, n_windows, d_llm]."""

    lexicon: Lexicon | None

    def __init__(self, spec: QFormerSpec) -> None:
        super().__init__()
        self.spec = spec
        self.query = nn.Parameter(torch.zeros(1, 1, spec.hidden))
        self.qformer = Blip2QFormerModel(_config(spec))
        self.projection = nn.Linear(spec.hidden, spec.d_llm)
        self.lexicon = None

    def forward(self, speech: Tensor, audio: Tensor) -> Tensor:
        frames = windows(fuse(speech, audio), self.spec)
        query = self.query.expand(len(frames), -1, -1)
        hidden = self.qformer(query_embeds=query, encoder_hidden_states=frames).last_hidden_state
        tokens = self.projection(hidden) if self.lexicon is None else self.projection(hidden) + self.lexicon(hidden)
        return tokens.transpose(0, 1)


def fuse(speech: Tensor, audio: Tensor) -> Tensor:
    """[1, T, d_speech + d_audio]: audio, the shorter, gains exact zeros at its end (not LayerNorm(0))."""
    zeros = torch.zeros(1, speech.shape[1], audio.shape[2])
    return torch.cat([speech, torch.cat([audio, zeros], dim=1)[:, : speech.shape[1]]], dim=2)


def windows(fused: Tensor, spec: QFormerSpec) -> Tensor:
    """[n_windows, window, d]: whole windows only; the frames behind the last are dropped."""
    n = spec.n_windows(fused.shape[1])
    width = spec.window
    if spec.stride == width:
        return fused[0, : n * width].reshape(n, width, fused.shape[2])
    start = torch.arange(n).unsqueeze(1) * spec.stride
    return fused[0][start + torch.arange(width)]


class FoldedQFormer(nn.Module):
    """The same function with less work, exactly: one query means

    - self-attention's softmax is over one key: its query and key are dead, its value and output one matrix;
    - nothing before layer 0's softmax depends on the audio: its query is a constant per head;
    - keys meet one query per head: the key projection moves onto the query, its bias cancels in the softmax;
    - attention weights sum to 1: values are projected after pooling, per window instead of per frame.
    """

    def __init__(self, reference: ReferenceQFormer) -> None:
        super().__init__()
        self.spec = reference.spec
        source = reference.qformer
        with torch.no_grad():
            x = source.layernorm(reference.query)
            self.layers = nn.ModuleList(_FoldedLayer(layer, self.spec) for layer in source.encoder.layer)
            first = self.layers[0]
            assert isinstance(first, _FoldedLayer)
            x = first.attend_self(x)
            self.first_x = nn.Buffer(x)  # [1, 1, hidden]
            self.first_query = nn.Buffer(first.head_queries(x))  # [n_heads, 1, d_encoder]
            first.forget_query()
        self.projection = reference.projection
        self.lexicon = reference.lexicon

    def forward(self, speech: Tensor, audio: Tensor) -> Tensor:
        frames = windows(fuse(speech, audio), self.spec)  # [n_windows, window, d_encoder]
        x = self.first_x
        queries = self.first_query
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, _FoldedLayer)
            if index:
                x = layer.attend_self(x)
                queries = layer.head_queries(x)
            x = layer.hear(x, queries, frames)
        return self.projection(x) if self.lexicon is None else self.projection(x) + self.lexicon(x)


class _FoldedLayer(nn.Module):
    """One Q-Former layer for one query per window; x is [1, n_windows, hidden]."""

    key: Tensor | None

    def __init__(self, layer: Any, spec: QFormerSpec) -> None:
        super().__init__()
        self.n_heads = spec.n_heads
        self.d_head = spec.hidden // spec.n_heads
        own, cross = layer.attention, layer.crossattention
        self.self_output = _product(own.output.dense, own.attention.value)
        self.self_norm = own.output.LayerNorm
        self.query: nn.Linear | None = cross.attention.query
        by_head = (self.n_heads, self.d_head, spec.d_encoder)
        self.key = nn.Buffer(cross.attention.key.weight.detach().reshape(by_head) * self.d_head**-0.5)
        self.value = nn.Buffer(cross.attention.value.weight.detach().reshape(by_head).transpose(1, 2).contiguous())
        self.value_bias = nn.Buffer(cross.attention.value.bias.detach().clone())
        self.cross_output = cross.output.dense
        self.cross_norm = cross.output.LayerNorm
        self.widen = layer.intermediate_query.dense
        self.narrow = layer.output_query.dense
        self.final_norm = layer.output_query.LayerNorm

    def attend_self(self, x: Tensor) -> Tensor:
        return self.self_norm(self.self_output(x) + x)

    def head_queries(self, x: Tensor) -> Tensor:
        """[n_heads, n_windows, d_encoder]: what each head looks for, in the space of the frames."""
        assert self.query is not None and self.key is not None
        q = self.query(x)[0].unflatten(1, (self.n_heads, self.d_head)).transpose(0, 1)
        return torch.matmul(q, self.key)

    def forget_query(self) -> None:
        """Drop what a constant query no longer needs."""
        self.query = None
        self.key = None

    def hear(self, x: Tensor, queries: Tensor, frames: Tensor) -> Tensor:
        """Cross-attention to each window's frames, then the query branch of the feed-forward."""
        logits = torch.matmul(queries.transpose(0, 1), frames.transpose(1, 2))  # [n_windows, n_heads, window]
        pooled = torch.matmul(torch.softmax(logits, dim=-1), frames)  # [n_windows, n_heads, d_encoder]
        values = torch.matmul(pooled.transpose(0, 1), self.value)  # [n_heads, n_windows, d_head]
        context = values.transpose(0, 1).flatten(1).unsqueeze(0) + self.value_bias
        x = self.cross_norm(self.cross_output(context) + x)
        return self.final_norm(self.narrow(F.gelu(self.widen(x))) + x)


def load_qformer(
    state: Mapping[str, Tensor],
    whisper: WhisperSpec,
    beats: BeatsSpec,
    options: QFormerOptions,
    path: Path | str = "the SALMONN checkpoint",
    lexicon: Lexicon | None = None,
) -> LoadedQFormer:
    """Read the Q-Former out of salmonn.pth['model']; `path` is for messages. lexicon: what stands behind it, if any.

    Raises CheckpointError when tensors are missing or misshapen, or do not fit the encoders.
    """
    needed = _needed(options.n_layers)
    require(state, needed, "SALMONN checkpoint", path)
    spec = _spec(state, whisper, beats, options, path)
    reference = ReferenceQFormer(spec).eval().requires_grad_(False)
    renamed = {_rename(key): state[key] for key in needed if not key.startswith("ln_")}
    expected = {name: tuple(value.shape) for name, value in reference.state_dict().items()}
    reference.load_state_dict({k: require_shape(renamed[k], shape, k, path) for k, shape in expected.items()})
    reference.lexicon = lexicon
    known = {*needed, *(lexicon_keys() if lexicon else ())}
    unknown = [key for key in state if key not in known and not key.startswith(_IGNORED)]
    beyond = [key for key in unknown if key.startswith(f"{_BERT}encoder.layer.{options.n_layers}.")]
    if beyond:
        more = f"{path} has more than {options.n_layers} Q-Former layers"
        raise CheckpointError(f"{more} ({beyond[0]}): set --qformer-layers")
    ln_speech = _layer_norm(state, "ln_speech", whisper.d_model, path)
    ln_audio = _layer_norm(state, "ln_audio", beats.d_model, path)
    return LoadedQFormer(spec, ln_speech, ln_audio, reference, tuple(unknown))


def weightless_qformer(spec: QFormerSpec) -> FoldedQFormer:
    """A folded Q-Former of these sizes without weights, for `skeleton.RandomWeights` to export."""
    with torch.device("meta"):
        module = FoldedQFormer(ReferenceQFormer(spec))
    return weightless(module)


def export_qformer(module: FoldedQFormer, path: Path, save: SaveGraph = save_graph) -> None:
    """Write qformer.onnx in float32, or as `save` does, for speech and audio of any length."""
    spec = module.spec
    inputs = {
        SPEECH_INPUT: torch.zeros(1, 1000, spec.d_speech),
        AUDIO_INPUT: torch.zeros(1, 248, spec.d_audio),
    }
    outputs = {OUTPUT: (1, "n_windows", spec.d_llm)}
    save(module, inputs, outputs, path, {SPEECH_INPUT: {1: "n_positions"}, AUDIO_INPUT: {1: "n_tokens"}})


def _needed(n_layers: int) -> tuple[str, ...]:
    layers = (f"{_BERT}encoder.layer.{n}.{key}" for n in range(n_layers) for key in _LAYER_KEYS)
    return (*_TOP_KEYS, *layers)


def _rename(key: str) -> str:
    for old, new in (("speech_llama_proj.", "projection."), ("speech_query_tokens", "query")):
        if key.startswith(old):
            return key.replace(old, new)
    inner = (
        key.removeprefix(_BERT)
        .replace("embeddings.LayerNorm", "layernorm")
        .replace("attention.self", "attention.attention")
    )
    return f"qformer.{inner}"


def _spec(
    state: Mapping[str, Tensor],
    whisper: WhisperSpec,
    beats: BeatsSpec,
    options: QFormerOptions,
    path: Path | str,
) -> QFormerSpec:
    query = state["speech_query_tokens"]
    projection = state["speech_llama_proj.weight"]
    if query.ndim != 3 or query.shape[:2] != (1, 1):
        raise CheckpointError(f"{path}: speech_query_tokens is {list(query.shape)}; only one query is supported")
    hidden = query.shape[2]
    n_heads = options.n_heads or max(1, hidden // 64)
    if hidden % n_heads:
        raise CheckpointError(f"{path}: {n_heads} Q-Former heads do not divide its width {hidden}: set --qformer-heads")
    spec = QFormerSpec(
        hidden=hidden,
        n_heads=n_heads,
        d_ffn=state[f"{_BERT}encoder.layer.0.intermediate_query.dense.weight"].shape[0],
        d_speech=whisper.d_model,
        d_audio=beats.d_model,
        d_llm=projection.shape[0],
        n_layers=options.n_layers,
        second_per_window=options.second_per_window,
        second_stride=options.second_stride,
    )
    reads = state[f"{_BERT}encoder.layer.0.crossattention.self.key.weight"].shape[1]
    if reads != spec.d_encoder:
        raise CheckpointError(
            f"{path} was trained on {reads} features per frame, but this Whisper and BEATs give "
            f"{spec.d_speech} + {spec.d_audio}: give the encoders it was trained with"
        )
    if not 0 < spec.window <= whisper.n_positions or spec.stride <= 0:
        raise CheckpointError(f"windows of {spec.second_per_window} s every {spec.second_stride} s do not fit the clip")
    return spec


def _config(spec: QFormerSpec) -> Blip2QFormerConfig:
    return Blip2QFormerConfig(
        vocab_size=2,
        hidden_size=spec.hidden,
        num_hidden_layers=spec.n_layers,
        num_attention_heads=spec.n_heads,
        intermediate_size=spec.d_ffn,
        layer_norm_eps=spec.layer_norm_eps,
        encoder_hidden_size=spec.d_encoder,
        cross_attention_frequency=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def _layer_norm(state: Mapping[str, Tensor], name: str, width: int, path: Path | str) -> nn.LayerNorm:
    norm = nn.LayerNorm(width).eval().requires_grad_(False)
    for kind in ("weight", "bias"):
        norm.get_parameter(kind).copy_(require_shape(state[f"{name}.{kind}"], (width,), f"{name}.{kind}", path))
    return norm


def _product(outer: nn.Linear, inner: nn.Linear) -> nn.Linear:
    """One Linear that equals outer(inner(x)), multiplied in float64."""
    weight = outer.weight.double() @ inner.weight.double()
    bias = outer.weight.double() @ inner.bias.double() + outer.bias.double()
    both = nn.Linear(inner.in_features, outer.out_features)
    both.load_state_dict({"weight": weight.float(), "bias": bias.float()})
    return both
