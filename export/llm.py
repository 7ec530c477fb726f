"""The language model: a Hugging Face LLaMA directory and SALMONN's LoRA -> llm.gguf, lora.gguf when asked.

One tensor at a time, so a 13B model needs little more memory than its largest tensor. The vocabulary ends
where the tokenizer does: the reference adds a random [PAD] row, which is dropped. Source: docs/reference.md §4, §5.3.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
import torch

from ..models.bundle import ADAPTER_FILE, LLM_FILE
from ..models.errors import CheckpointError, InputError
from ..models.llm import LLM_TYPES, SALMONN_LORA, LlmSpec
from .checkpoint import Weights, open_weights, read_json
from .fingerprint import Fingerprint, check_base, fingerprint
from .gguf_file import (
    ARCHITECTURE,
    LORA_SCALE,
    RawTensor,
    Tensor,
    require_room,
    rotary_rows,
    write_tensors,
)
from .lora import Lora, require_fit, write_adapter
from .mixture import tensor_type
from .progress import Report, no_report
from .quantize import DIRECT, quantize, require_type
from .random_weights import weight_pool
from .tokenizer import Vocabulary, read_vocabulary

LoraMode = Literal["merged", "adapter", "both"]

RELEASE_BYTES = 1 << 30  # mapped weights given back to the system after so much was read
VOCABULARY_BYTES = 16 << 20  # more than any LLaMA vocabulary takes in a file
_TOP = {
    "model.embed_tokens.weight": "token_embd",
    "model.norm.weight": "output_norm",
    "lm_head.weight": "output",
}
_IN_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_LAYER = re.compile(r"model\.layers\.(\d+)\.([\w.]+)\.weight$")
_FIXED = {"model_type": "llama", "hidden_act": "silu"}
_OFF = ("attention_bias", "mlp_bias", "tie_word_embeddings")


@dataclass(frozen=True)
class Llm:
    """An opened base model: nothing but its headers and vocabulary is in memory."""

    directory: Path
    spec: LlmSpec
    weights: Weights
    vocabulary: Vocabulary
    fingerprint: Fingerprint


def read_llm(directory: Path) -> Llm:
    """Open a Hugging Face LLaMA directory: config.json, tokenizer.model, safetensors or .bin shards.

    Raises CheckpointError for another architecture, missing or unknown tensors (named), wrong shapes, or
    a vocabulary that does not fit the weights.
    """
    config = read_json(directory / "config.json")
    vocabulary = read_vocabulary(directory / "tokenizer.model")
    spec = _spec(config, len(vocabulary), directory)
    weights = open_weights(directory)
    shapes = _shapes(spec)
    weights.require(shapes, "LLaMA")
    _require_known(weights.names(), shapes, directory)
    for name, shape in shapes.items():
        _require_shape(name, weights.shape(name), shape, directory)
    found = fingerprint(spec, weights, directory, str(config.get("_name_or_path") or ""))
    return Llm(directory, spec, weights, vocabulary, found)


def export_llm(
    llm: Llm,
    lora: Lora,
    out: Path,
    *,
    quantization: str,
    mode: LoraMode = "merged",
    lora_scale: float | None = None,
    n_threads: int = 1,
    force: bool = False,
    progress: Report = no_report,
    verbose: bool = False,
) -> list[Path]:
    """Write llm.gguf and, for mode adapter or both, lora.gguf into the directory `out`; returns their paths.

    merged: the LoRA is in the weights at lora_scale (alpha / rank when None). adapter: llm.gguf is the base
    alone. both: merged weights, and an adapter that a runtime adds at (wanted scale - lora_scale). A
    quantized type needs the f16 file beside it on disk until it is done. Raises CheckpointError for the wrong
    base unless `force`, InputError for an unknown type or too little disk.
    """
    require_type(quantization)
    require_fit(lora, llm.spec, llm.directory.name)
    if not force:
        check_base(llm.spec, llm.fingerprint)
    scale = lora.spec.scale if lora_scale is None else lora_scale
    if not math.isfinite(scale):
        raise InputError(f"LoRA scale {scale} is not possible: SALMONN was trained with {lora.spec.scale:g}")
    require_room(out, disk_bytes(llm.spec, quantization), f"writing the language model as {quantization}")
    written = [out / LLM_FILE]
    merge = None if mode == "adapter" else (lora, scale)
    if quantization in DIRECT:
        write_gguf(llm, written[0], quantization, merge, progress)
    else:
        _quantized(llm, written[0], quantization, merge, n_threads, progress, verbose)
    if mode != "merged":
        written.append(out / ADAPTER_FILE)
        write_adapter(written[-1], lora, llm.spec, progress)
    return written


def disk_bytes(spec: LlmSpec, quantization: str) -> int:
    """Room needed while exporting: the file, and for a quantized type the f16 file it is made from."""
    kept = spec.weight_bytes(quantization)
    passing = 0 if quantization in DIRECT else spec.weight_bytes("f16")
    return round(1.05 * (kept + passing)) + 2 * VOCABULARY_BYTES


def write_gguf(
    llm: Llm,
    path: Path,
    quantization: str,
    merge: tuple[Lora, float] | None = None,
    progress: Report = no_report,
) -> None:
    """Write the model as f16 or f32 (norms always f32), with (lora, scale) merged in float32 on the way."""
    writer = gguf.GGUFWriter(None, ARCHITECTURE)
    _add_metadata(writer, llm.spec, llm.fingerprint.directory, quantization, merge[1] if merge else 0.0)
    _add_vocabulary(writer, llm.vocabulary)
    try:
        write_tensors(writer, path, _tensors(llm, quantization, merge), f"write {quantization}", progress)
    finally:
        llm.weights.close()


def write_random_llm(
    spec: LlmSpec, vocabulary: Vocabulary, path: Path, quantization: str, seed: int, progress: Report = no_report
) -> None:
    """Write a model of these sizes with random weights, its blocks of the types llama.cpp's quantizer would choose.

    Little memory is used, and nothing but the file's own room on disk. Rows must be multiples of 256.
    """
    writer = gguf.GGUFWriter(None, ARCHITECTURE)
    _add_metadata(writer, spec, f"random weights, seed {seed}", quantization, SALMONN_LORA.scale)
    _add_vocabulary(writer, vocabulary)
    write_tensors(writer, path, random_tensors(spec, quantization, seed), f"write {quantization}", progress)


def random_tensors(spec: LlmSpec, quantization: str, seed: int) -> list[RawTensor]:
    """Every tensor of the model in the order of its file: norms are 1, the rest is random."""
    rng = np.random.default_rng(seed)
    shapes = {_gguf_name(name): shape for name, shape in _shapes(spec).items()}
    kinds = {name: tensor_type(name, spec.n_layers, quantization) for name in shapes}
    pools = cache(lambda kind: weight_pool(kind, rng))

    def tensor(name: str) -> RawTensor:
        shape, kind = shapes[name], kinds[name]
        if len(shape) == 1:
            return RawTensor(name, shape, kind, lambda: [np.ones(shape, np.float32)])
        raw = RawTensor(name, shape, kind, lambda: pools(kind).take(raw.n_blocks))
        return raw

    return [tensor(name) for name in shapes]


def _quantized(
    llm: Llm,
    path: Path,
    quantization: str,
    merge: tuple[Lora, float] | None,
    n_threads: int,
    progress: Report,
    verbose: bool,
) -> None:
    passing = path.with_name(path.stem + ".f16.gguf.part")
    try:
        write_gguf(llm, passing, "f16", merge, progress)
        quantize(passing, path, quantization, n_threads, progress, verbose)
    finally:
        passing.unlink(missing_ok=True)


def _tensors(llm: Llm, quantization: str, merge: tuple[Lora, float] | None) -> Iterator[Tensor]:
    """In the model's own order, so that the same weights make the same file, however they are sharded."""
    reader = _Reader(llm, merge)
    for name, shape in _shapes(llm.spec).items():
        dtype = np.float32 if quantization == "f32" or len(shape) == 1 else np.float16
        yield Tensor(_gguf_name(name), shape, dtype, lambda name=name: reader.read(name))


class _Reader:
    """Reads tensors as the GGUF file wants them, and gives mapped files back to the system now and then."""

    def __init__(self, llm: Llm, merge: tuple[Lora, float] | None) -> None:
        self._llm = llm
        self._merge = merge
        self._n_read = 0

    def read(self, name: str) -> np.ndarray:
        spec, weights = self._llm.spec, self._llm.weights
        if self._n_read > RELEASE_BYTES:  # pages of a mapped shard count as ours until it is closed
            weights.close()
            self._n_read = 0
        weight = weights.get(name)
        self._n_read += weight.nbytes
        if match := _LAYER.match(name):
            layer, part = int(match[1]), match[2]
            if self._merge:
                lora, scale = self._merge
                weight = lora.merged(weight, layer, part.removeprefix("self_attn."), scale)
            heads = {"self_attn.q_proj": spec.n_heads, "self_attn.k_proj": spec.n_kv_heads}
            return rotary_rows(_array(weight), heads[part]) if part in heads else _array(weight)
        return _array(weight[: spec.vocab] if weight.ndim == 2 else weight)


def _array(weight: torch.Tensor) -> np.ndarray:
    return (weight.float() if weight.dtype == torch.bfloat16 else weight).detach().numpy()


def _gguf_name(name: str) -> str:
    if name in _TOP:
        return f"{_TOP[name]}.weight"
    match = _LAYER.match(name)
    assert match is not None
    return f"blk.{match[1]}.{_IN_LAYER[match[2]]}.weight"


def _add_metadata(writer: gguf.GGUFWriter, spec: LlmSpec, name: str, quantization: str, lora_scale: float) -> None:
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_file_type(LLM_TYPES[quantization].ftype)
    writer.add_vocab_size(spec.vocab)
    writer.add_context_length(spec.max_positions)
    writer.add_embedding_length(spec.hidden)
    writer.add_block_count(spec.n_layers)
    writer.add_feed_forward_length(spec.d_ffn)
    writer.add_head_count(spec.n_heads)
    writer.add_head_count_kv(spec.n_kv_heads)
    writer.add_rope_dimension_count(spec.hidden // spec.n_heads)
    writer.add_rope_freq_base(spec.rope_theta)
    writer.add_layer_norm_rms_eps(spec.rms_norm_eps)
    writer.add_float32(LORA_SCALE, lora_scale)


def _add_vocabulary(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    """BOS is never added by the tokenizer: SALMONN's two prompt halves must not get one each."""
    writer.add_tokenizer_model("llama")
    writer.add_token_list(vocabulary.pieces)
    writer.add_token_scores(vocabulary.scores)
    writer.add_token_types(vocabulary.types)
    writer.add_bos_token_id(vocabulary.bos)
    writer.add_eos_token_id(vocabulary.eos)
    writer.add_unk_token_id(vocabulary.unk)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(True)


def _spec(config: dict[str, Any], n_pieces: int, directory: Path) -> LlmSpec:
    where = f"{directory.name}/config.json"
    for key, wanted in _FIXED.items():
        if config.get(key) != wanted:
            raise CheckpointError(f"{where} has {key} {config.get(key)!r}: SALMONN's Vicuna has {wanted!r}")
    for key in _OFF:
        if config.get(key):
            raise CheckpointError(f"{where} has {key} on: SALMONN's Vicuna has it off")
    n_heads = _size(config, "num_attention_heads", where)
    spec = LlmSpec(
        hidden=_size(config, "hidden_size", where),
        n_layers=_size(config, "num_hidden_layers", where),
        n_heads=n_heads,
        n_kv_heads=_size({"num_key_value_heads": n_heads, **config}, "num_key_value_heads", where),
        d_ffn=_size(config, "intermediate_size", where),
        vocab=n_pieces,
        max_positions=_size(config, "max_position_embeddings", where),
        rms_norm_eps=_number(config, "rms_norm_eps", where),
        rope_theta=_rope_theta(config, where),
    )
    d_head = config.get("head_dim") or spec.hidden // n_heads
    if d_head * n_heads != spec.hidden or n_heads % spec.n_kv_heads or d_head % 2:
        raise CheckpointError(
            f"{where} has heads that do not divide its width: {n_heads} heads, {spec.n_kv_heads} "
            f"key-value heads, hidden_size {spec.hidden}, head_dim {d_head}"
        )
    return spec


def _rope_theta(config: dict[str, Any], where: str) -> float:
    """From `rope_theta`, or `rope_parameters` as newer transformers write it; any scaling is refused."""
    rope: dict[str, Any] = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind != "default":
        raise CheckpointError(
            f"{where} stretches positions ({kind}): take the model without that, not its -16k version"
        )
    merged = {"rope_theta": 10_000.0, **config, **rope}
    return _number(merged, "rope_theta", where)


def _size(config: dict[str, Any], key: str, where: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise CheckpointError(f"{where} has {key} {value!r}: it should be a whole number above 0")
    return value


def _number(config: dict[str, Any], key: str, where: str) -> float:
    value = config.get(key)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not value > 0:
        raise CheckpointError(f"{where} has {key} {value!r}: it should be a number above 0")
    return float(value)


def _shapes(spec: LlmSpec) -> dict[str, tuple[int, ...]]:
    """Every tensor of the model, by Hugging Face's names; the vocabulary's rows may be more in the files."""
    d, ffn, kv = spec.hidden, spec.d_ffn, spec.d_kv
    layer = {
        "input_layernorm": (d,),
        "self_attn.q_proj": (d, d),
        "self_attn.k_proj": (kv, d),
        "self_attn.v_proj": (kv, d),
        "self_attn.o_proj": (d, d),
        "post_attention_layernorm": (d,),
        "mlp.gate_proj": (ffn, d),
        "mlp.up_proj": (ffn, d),
        "mlp.down_proj": (d, ffn),
    }
    names = {"model.embed_tokens": (spec.vocab, d)}
    for n in range(spec.n_layers):
        names |= {f"model.layers.{n}.{part}": shape for part, shape in layer.items()}
    names |= {"model.norm": (d,), "lm_head": (spec.vocab, d)}
    return {f"{name}.weight": shape for name, shape in names.items()}


def _require_known(names: Iterable[str], known: Collection[str], directory: Path) -> None:
    strange = [name for name in names if name not in known and not name.endswith("rotary_emb.inv_freq")]
    if strange:
        more = f" and {len(strange) - 3} more" if len(strange) > 3 else ""
        raise CheckpointError(f"{directory} holds {', '.join(strange[:3])}{more}, which no Vicuna has")


def _require_shape(name: str, found: tuple[int, ...], wanted: tuple[int, ...], directory: Path) -> None:
    if name in _TOP and len(found) == len(wanted) == 2 and found[1] == wanted[1]:
        if found[0] < wanted[0]:
            raise CheckpointError(
                f"{directory}: {name} has {found[0]} rows for the {wanted[0]} pieces of tokenizer.model: "
                "they belong to different models"
            )
    elif found != wanted:
        raise CheckpointError(f"{directory}: {name} is {list(found)} but config.json says {list(wanted)}")
