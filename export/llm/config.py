"""A language model's config.json -> LlmSpec; what llama.cpp would compute in another way is refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models.errors import CheckpointError
from ...models.llm import LlmSpec


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3's stretched rotary positions: slow ones turn `factor` times slower than trained, fast ones as they were.

    Source: transformers modeling_rope_utils.py, _compute_llama3_parameters.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int

    def divisors(self, spec: LlmSpec) -> NDArray[np.float32]:
        """What each frequency is divided by, float32 [d_head / 2]."""
        wavelengths = 2 * np.pi * spec.rope_theta ** (np.arange(0, spec.d_head, 2) / spec.d_head)
        low, high = self.low_freq_factor, self.high_freq_factor
        kept = np.clip((self.original_max_position_embeddings / wavelengths - low) / (high - low), 0.0, 1.0)
        return np.divide(1.0, (1 - kept) / self.factor + kept, dtype=np.float32)


def llama_spec(config: dict[str, Any], n_pieces: int, directory: Path) -> LlmSpec:
    """Sizes of a LLaMA; the vocabulary is the tokenizer's. Raises CheckpointError."""
    where = f"{directory.name}/config.json"
    _require(config, {"model_type": "llama", "hidden_act": "silu"}, where, "SALMONN's Vicuna")
    _require_off(config, ("attention_bias", "mlp_bias"), where, "SALMONN's Vicuna")
    n_heads = _size(config, "num_attention_heads", where)
    spec = LlmSpec(
        **_sizes({"num_key_value_heads": n_heads, **config}, where),
        vocab=n_pieces,
        rope_theta=_rope_theta({"rope_theta": 10_000.0, **config}, where, ("default", "llama3")),
        tied=bool(config.get("tie_word_embeddings", False)),
    )
    d_head = config.get("head_dim") or spec.d_head
    if d_head * n_heads != spec.hidden or n_heads % spec.n_kv_heads or d_head % 2:
        raise CheckpointError(
            f"{where} has heads that do not divide its width: {n_heads} heads, {spec.n_kv_heads} "
            f"key-value heads, hidden_size {spec.hidden}, head_dim {d_head}"
        )
    return spec


def qwen3_spec(config: dict[str, Any], directory: Path) -> LlmSpec:
    """Sizes of a dense Qwen3; the vocabulary is every row of the embedding. Raises CheckpointError."""
    where = f"{directory.name}/config.json"
    _require(config, {"model_type": "qwen3", "hidden_act": "silu"}, where, "a dense Qwen3")
    _require_off(config, ("attention_bias", "use_sliding_window"), where, "a dense Qwen3")
    spec = LlmSpec(
        **_sizes(config, where),
        vocab=_size(config, "vocab_size", where),
        rope_theta=_rope_theta(config, where),
        architecture="qwen3",
        head_dim=_size({"head_dim": 128, **config}, "head_dim", where),  # transformers' default
        tied=bool(config.get("tie_word_embeddings", False)),
    )
    if spec.n_heads % spec.n_kv_heads or spec.d_head % 2:
        raise CheckpointError(
            f"{where} has {spec.n_heads} heads of {spec.d_head} and {spec.n_kv_heads} key-value heads, "
            "which no Qwen3 has: download it again"
        )
    return spec


def embedding_rows(config: dict[str, Any], directory: Path) -> int:
    """Rows of the embedding, which a byte-level vocabulary may not fill. Raises CheckpointError."""
    return _size(config, "vocab_size", f"{directory.name}/config.json")


def _sizes(config: dict[str, Any], where: str) -> dict[str, Any]:
    """What both architectures write the same way."""
    return {
        "hidden": _size(config, "hidden_size", where),
        "n_layers": _size(config, "num_hidden_layers", where),
        "n_heads": _size(config, "num_attention_heads", where),
        "n_kv_heads": _size(config, "num_key_value_heads", where),
        "d_ffn": _size(config, "intermediate_size", where),
        "max_positions": _size(config, "max_position_embeddings", where),
        "rms_norm_eps": _number(config, "rms_norm_eps", where),
    }


def _require(config: dict[str, Any], values: dict[str, str], where: str, model: str) -> None:
    for key, wanted in values.items():
        if config.get(key) != wanted:
            raise CheckpointError(f"{where} has {key} {config.get(key)!r}: {model} has {wanted!r}")


def _require_off(config: dict[str, Any], keys: tuple[str, ...], where: str, model: str) -> None:
    for key in keys:
        if config.get(key):
            raise CheckpointError(f"{where} has {key} on: {model} has it off")


def _rope(config: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """How positions are turned, and its kind: `rope_parameters` as newer transformers write it, or `rope_scaling`."""
    rope: dict[str, Any] = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return rope, rope.get("rope_type") or rope.get("type") or "default"


def _rope_theta(config: dict[str, Any], where: str, known: tuple[str, ...] = ("default",)) -> float:
    rope, kind = _rope(config)
    if kind not in known:
        raise CheckpointError(
            f"{where} stretches positions ({kind}): take the model as released, not a -16k version or the like"
        )
    return _number({**config, **rope}, "rope_theta", where)


def rope_scaling(config: dict[str, Any], directory: Path) -> RopeScaling | None:
    """Llama 3's, where there is one. Raises CheckpointError for numbers that it does not know."""
    where = f"{directory.name}/config.json"
    rope, kind = _rope(config)
    if kind == "default":
        return None
    found = RopeScaling(
        factor=_number(rope, "factor", where),
        low_freq_factor=_number(rope, "low_freq_factor", where),
        high_freq_factor=_number(rope, "high_freq_factor", where),
        original_max_position_embeddings=_size(rope, "original_max_position_embeddings", where),
    )
    if found.factor < 1 or found.low_freq_factor >= found.high_freq_factor:
        raise CheckpointError(
            f"{where} has a rope_scaling that Llama 3 does not know: factor should be 1 or more, low_freq_factor below "
            "high_freq_factor"
        )
    return found


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
