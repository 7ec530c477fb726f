"""Tensor types: a quantization and a tensor's name in, the type that llama.cpp's quantizer gives it out.

Source: llama.cpp src/llama-quant.cpp, llama_tensor_get_type and use_more_bits; a test compares it with the quantizer.
"""

from __future__ import annotations

from gguf import GGMLQuantizationType as Kind

from ...models.llm import LLM_TYPES

BASE = {name: Kind[name.upper().removesuffix("_M")] for name in LLM_TYPES}
"""Type of most matrices."""


def tensor_type(name: str, n_layers: int, quantization: str, tied: bool = False) -> Kind:
    """Type of one tensor by its GGUF name, for rows that are multiples of 256. Raises KeyError for another type.

    Of a model without an importance matrix whose heads share a key and value by less than four: with a matrix the
    first eighth's ffn_down is finer at q4_0 and no finer at iq4_xs. tied: the embedding is the head too, and gets the
    head's type.
    """
    if "norm" in name:
        return Kind.F32
    base = BASE[quantization]
    if name == ("token_embd.weight" if tied else "output.weight"):
        return base if base in (Kind.F32, Kind.F16, Kind.Q8_0) else Kind.Q6_K
    if not name.startswith("blk."):
        return base
    return _in_layer(name.split(".")[-2], int(name.split(".")[1]), n_layers, quantization)


def _in_layer(part: str, layer: int, n_layers: int, quantization: str) -> Kind:
    if quantization == "q3_k_m":
        finest = layer < {"attn_v": 2, "ffn_down": n_layers // 16}.get(part, 0)
        finer = part in ("attn_v", "ffn_down", "attn_output")
        return Kind.Q5_K if finest else Kind.Q4_K if finer else Kind.Q3_K
    if quantization == "iq4_xs":
        return Kind.Q5_K if part == "ffn_down" and layer < n_layers // 8 else Kind.IQ4_XS
    mixed = quantization.endswith("_k_m") and part in ("attn_v", "ffn_down")
    return Kind.Q6_K if mixed and _matters(layer, n_layers) else BASE[quantization]


def _matters(layer: int, n_layers: int) -> bool:
    """The first and last eighth of the layers, and every third between them."""
    eighth = n_layers // 8
    return layer < eighth or layer >= 7 * n_layers // 8 or (layer - eighth) % 3 == 2
