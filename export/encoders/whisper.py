"""Whisper's encoder: a Hugging Face or faster-whisper directory -> a module -> its graph.

Source: transformers models/whisper/modeling_whisper.py (docs/reference.md §2.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from ...models.encoders.whisper import FRAME_RATE, INPUT, N_MELS, OUTPUT, WhisperSpec
from ...models.errors import CheckpointError, InputError
from ..formats.checkpoint import Weights, read_json, require_shape, weight_files
from ..formats.ctranslate2 import FILE, CTranslate2Whisper, is_ctranslate2
from ..graphs.onnx_graph import save_graph
from ..graphs.weightless import SaveGraph, weightless

_RIGHT = "SALMONN was trained with openai/whisper-large-v2"
_PREFIXES = ("model.encoder.", "encoder.")
_EMBEDDINGS = ("model.decoder.embed_tokens.weight", "decoder.embed_tokens.weight")


class SpeechEncoder(nn.Module):
    """log_mel [1, n_mels, 2 n] -> speech [1, n, d_model], ln_speech applied: the graph, for any n up to n_positions."""

    def __init__(self, encoder: WhisperEncoder, ln_speech: nn.LayerNorm) -> None:
        super().__init__()
        self.encoder = encoder
        self.ln_speech = ln_speech
        self.conv2 = HalveRate(encoder.conv2)

    def forward(self, log_mel: Tensor) -> Tensor:
        return self.ln_speech(encode(self.encoder, log_mel, self.conv2))


class HalveRate(nn.Module):
    """[B, d, 2 n] -> [B, n, d]: a convolution of width 3, stride 2 and padding 1 as a linear layer.

    The same sums; written so, int8 takes them over.
    """

    def __init__(self, conv: nn.Conv1d) -> None:
        super().__init__()
        n_out, n_in, width = conv.weight.shape
        self.linear = nn.Linear(width * n_in, n_out, device=conv.weight.device)
        with torch.no_grad():
            self.linear.weight.copy_(conv.weight.transpose(1, 2).flatten(1))
            self.linear.bias.copy_(conv.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor) -> Tensor:
        pairs = x.transpose(1, 2).unflatten(1, (-1, 2)).flatten(2)  # frames 2 t and 2 t + 1 side by side
        before = F.pad(pairs[:, :-1, x.shape[1] :], (0, 0, 1, 0))  # frame 2 t - 1
        return self.linear(torch.cat([before, pairs], dim=2))


def encode(encoder: WhisperEncoder, log_mel: Tensor, conv2: HalveRate | None = None) -> Tensor:
    """log_mel [B, n_mels, 2 n] -> [B, n, d_model], for any n up to n_positions.

    transformers' own forward insists on the whole window; fewer frames are what `--context short` hears. conv2 is what
    takes the second convolution's place, where it does.
    """
    x = F.gelu(encoder.conv1(log_mel))
    x = F.gelu(encoder.conv2(x).transpose(1, 2) if conv2 is None else conv2(x))
    x = x + encoder.embed_positions.weight[: x.shape[1]]
    for layer in encoder.layers:
        x = layer(x, None)
    return encoder.layer_norm(x)


def load_whisper(directory: Path) -> tuple[WhisperSpec, WhisperEncoder]:
    """Read the encoder of a Whisper directory, Hugging Face's or faster-whisper's, in float32; not the decoder.

    Raises CheckpointError for anything but an 80-mel Whisper, and for missing or misshapen tensors.
    """
    spec, weights = _open(directory)
    with torch.device("meta"):
        encoder = WhisperEncoder(_config(spec))
    prefix = next((p for p in _PREFIXES if f"{p}conv1.weight" in weights), _PREFIXES[0])
    expected = {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}
    weights.require([prefix + name for name in expected], "Whisper encoder")
    state = {
        name: require_shape(weights.get(prefix + name), shape, prefix + name, directory).clone()
        for name, shape in expected.items()
    }
    weights.close()
    encoder.load_state_dict(state, assign=True)
    return spec, encoder.eval().requires_grad_(False)


def shortened(spec: WhisperSpec, encoder: WhisperEncoder, seconds: float) -> tuple[WhisperSpec, WhisperEncoder]:
    """The same encoder with the positions of so many seconds alone. Raises InputError where it has fewer."""
    n_positions = round(seconds * FRAME_RATE)
    if not 0 < n_positions <= spec.n_positions:
        raise InputError(
            f"--longest-seconds {seconds:g} should be at most the {spec.seconds:g} s that this Whisper hears"
        )
    short = replace(spec, n_positions=n_positions)
    with torch.device("meta"):
        cut = WhisperEncoder(_config(short))
    state = encoder.state_dict()
    positions = "embed_positions.weight"
    cut.load_state_dict({**state, positions: state[positions][:n_positions].clone()}, assign=True)
    return short, cut.eval().requires_grad_(False)


def read_whisper_spec(directory: Path) -> WhisperSpec:
    """Its sizes alone. Raises CheckpointError."""
    return _open(directory)[0]


def read_token_embeddings(directory: Path) -> Tensor:
    """Of its decoder, [vocabulary, d_model] in float32. Raises CheckpointError where there is none."""
    weights = CTranslate2Whisper(directory) if is_ctranslate2(directory) else Weights(directory)
    name = next((name for name in _EMBEDDINGS if name in weights), _EMBEDDINGS[0])
    weights.require([name], "Whisper with its decoder")
    found = weights.get(name).float().clone()
    weights.close()
    return found


def weightless_whisper(spec: WhisperSpec) -> SpeechEncoder:
    """An encoder of these sizes without weights, for `skeleton.RandomWeights` to export."""
    with torch.device("meta"):
        module = SpeechEncoder(WhisperEncoder(_config(spec)), nn.LayerNorm(spec.d_model))
    return weightless(module)


def export_whisper(
    encoder: WhisperEncoder,
    ln_speech: nn.LayerNorm,
    spec: WhisperSpec,
    path: Path,
    save: SaveGraph = save_graph,
) -> None:
    """Write whisper.onnx in float32, or as `save` does."""
    example = torch.zeros(1, spec.n_mels, spec.n_frames)
    save(
        SpeechEncoder(encoder, ln_speech),
        {INPUT: example},
        {OUTPUT: (1, "n_positions", spec.d_model)},
        path,
        {INPUT: {2: "mel_frames"}},
    )


def whisper_files(directory: Path) -> list[Path]:
    """The files that `load_whisper` reads."""
    return [directory / FILE] if is_ctranslate2(directory) else [directory / "config.json", *weight_files(directory)]


def quantization_note(directory: Path) -> str | None:
    """What weights that are stored in integers cost, for the manifest; None where they are floats."""
    kind = CTranslate2Whisper(directory).quantized if is_ctranslate2(directory) else None
    if kind is None:
        return None
    return (
        f"{directory.name} holds Whisper's weights in {kind}: what that rounding lost is not measured by this export, "
        "which compares with these weights; the float weights make a better bundle"
    )


def _open(directory: Path) -> tuple[WhisperSpec, Weights | CTranslate2Whisper]:
    if not is_ctranslate2(directory):
        return _read_config(directory), Weights(directory)
    weights = CTranslate2Whisper(directory)
    spec = WhisperSpec(
        d_model=weights.d_model,
        n_layers=weights.n_layers,
        n_heads=weights.n_heads,
        d_ffn=weights.d_ffn,
        n_mels=weights.n_mels,
        n_positions=weights.n_positions,
    )
    return _of_80_mels(spec, directory), weights


def _read_config(directory: Path) -> WhisperSpec:
    path = directory / "config.json"
    raw = read_json(path)
    if raw.get("model_type") != "whisper":
        raise CheckpointError(f"{path} describes a {raw.get('model_type')!r} model, not Whisper: {_RIGHT}")
    _check_structure(raw, path)
    spec = WhisperSpec(
        d_model=_size(raw, "d_model", path),
        n_layers=_size(raw, "encoder_layers", path),
        n_heads=_size(raw, "encoder_attention_heads", path),
        d_ffn=_size(raw, "encoder_ffn_dim", path),
        n_mels=_size(raw, "num_mel_bins", path),
        n_positions=_size(raw, "max_source_positions", path),
    )
    return _of_80_mels(spec, directory)


def _of_80_mels(spec: WhisperSpec, directory: Path) -> WhisperSpec:
    if spec.n_mels != N_MELS:
        raise CheckpointError(
            f"{directory} reads {spec.n_mels} mel bands, as whisper-large-v3 does, where {N_MELS} are needed: {_RIGHT}"
        )
    return spec


def _config(spec: WhisperSpec) -> WhisperConfig:
    sizes: dict[str, Any] = {
        "num_mel_bins": spec.n_mels,
        "d_model": spec.d_model,
        "encoder_layers": spec.n_layers,
        "encoder_attention_heads": spec.n_heads,
        "encoder_ffn_dim": spec.d_ffn,
        "max_source_positions": spec.n_positions,
        "attn_implementation": "eager",  # plain operators, which every runtime fuses
    }
    return WhisperConfig(**sizes)


def _check_structure(raw: Mapping[str, Any], path: Path) -> None:
    if raw.get("activation_function", "gelu") != "gelu":
        raise CheckpointError(f"{path} says activation_function={raw['activation_function']!r}: only gelu is known")
    if raw.get("scale_embedding", False):
        raise CheckpointError(f"{path} says scale_embedding=true, which no released Whisper does")


def _size(raw: Mapping[str, Any], key: str, path: Path) -> int:
    value = raw.get(key)
    if type(value) is not int or value <= 0:
        raise CheckpointError(f"{path} says {key}={value!r}, which should be a positive number")
    return value
