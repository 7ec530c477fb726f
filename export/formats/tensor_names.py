"""Tensors of a decoder: shapes, and their names in Hugging Face's files, in GGUF and in a SALM checkpoint.

Source: docs/reference.md §5.3, §7.4, §7.5.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from ...models.llm import LlmSpec

EMBEDDING = "model.embed_tokens.weight"
LAST_NORM = "model.norm.weight"
HEAD = "lm_head.weight"
TABLES = (EMBEDDING, HEAD)
ROPE_DIVISORS = "rope_freqs.weight"
"""GGUF's name of what a stretched model divides its rotary frequencies by."""
SALM_EMBEDDING = "embed_tokens.weight"
SALM_LLM = "llm.base_model.model."
_TOP = {EMBEDDING: "token_embd", LAST_NORM: "output_norm", HEAD: "output"}
_IN_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_LAYER = re.compile(r"model\.layers\.(\d+)\.([\w.]+)\.weight$")
PROJECTIONS = {part.split(".")[1]: part for part in _IN_LAYER if part.endswith("_proj")}
"""What a LoRA can adapt: q_proj -> self_attn.q_proj."""


def shapes(spec: LlmSpec) -> dict[str, tuple[int, ...]]:
    """Every tensor of the model in the order of its file, by Hugging Face's names. A tied model has no head."""
    parts = _layer_shapes(spec)
    layers = {f"model.layers.{n}.{part}.weight": shape for n in range(spec.n_layers) for part, shape in parts.items()}
    table = (spec.vocab, spec.hidden)
    head = {} if spec.tied else {HEAD: table}
    return {EMBEDDING: table} | layers | {LAST_NORM: (spec.hidden,)} | head


def projection_shape(spec: LlmSpec, target: str) -> tuple[int, int]:
    """(out, in) of one of PROJECTIONS, such as q_proj."""
    rows, columns = _layer_shapes(spec)[PROJECTIONS[target]]
    return rows, columns


def _layer_shapes(spec: LlmSpec) -> dict[str, tuple[int, ...]]:
    d = spec.hidden
    ffn = spec.d_ffn
    head_norms = {"self_attn.q_norm": (spec.d_head,), "self_attn.k_norm": (spec.d_head,)}
    return {
        "input_layernorm": (d,),
        "self_attn.q_proj": (spec.d_q, d),
        "self_attn.k_proj": (spec.d_kv, d),
        "self_attn.v_proj": (spec.d_kv, d),
        "self_attn.o_proj": (d, spec.d_q),
        **(head_norms if spec.architecture == "qwen3" else {}),
        "post_attention_layernorm": (d,),
        "mlp.gate_proj": (ffn, d),
        "mlp.up_proj": (ffn, d),
        "mlp.down_proj": (d, ffn),
    }


def layer_part(name: str) -> tuple[int, str] | None:
    """(7, self_attn.q_proj) of model.layers.7.self_attn.q_proj.weight; None for a tensor outside the layers."""
    match = _LAYER.match(name)
    return (int(match[1]), match[2]) if match else None


def gguf_name(name: str) -> str:
    """GGUF's name of a tensor in `shapes`."""
    if name in _TOP:
        return f"{_TOP[name]}.weight"
    found = layer_part(name)
    assert found is not None
    layer, part = found
    return f"blk.{layer}.{_IN_LAYER[part]}.weight"


def rotary_heads(spec: LlmSpec, target: str) -> int:
    """Heads whose rows change places for llama.cpp's rotary order: 0 where it keeps Hugging Face's, as in Qwen3."""
    if spec.architecture != "llama":
        return 0
    return {"q_proj": spec.n_heads, "k_proj": spec.n_kv_heads}.get(target, 0)


def salm_names(wanted: Iterable[str], held: Collection[str]) -> dict[str, str]:
    """Hugging Face's name -> the name in a SALM checkpoint: peft wrapped the model, and what it adapts once more."""
    adapted = {name[: name.index(".lora_")] for name in held if ".lora_" in name}
    return {name: _salm_name(name, adapted, held) for name in wanted}


def _salm_name(name: str, adapted: Collection[str], held: Collection[str]) -> str:
    if name == EMBEDDING:
        return SALM_EMBEDDING  # NeMo moves it out of the language model
    module = SALM_LLM + name.removesuffix(".weight")
    wrapped = f"{module}.base_layer.weight"
    return wrapped if module in adapted or wrapped in held else f"{module}.weight"
