"""Language model and LoRA: specs, quantization types, and the arithmetic of their memory.

Source: transformers LlamaConfig and Qwen3Config, peft LoraConfig (docs/reference.md §4, §7.4).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

TARGETS = ("q_proj", "v_proj")  # peft's default for LLaMA; SALMONN and canary-qwen keep to them


@dataclass(frozen=True)
class LlmType:
    """A way to keep the weights in a GGUF file."""

    bits_per_weight: float
    """Average; of those with several tensor types (the _m types, iq4_xs) as llama.cpp reports it for a 7B model."""
    ftype: int
    """llama.cpp's llama_ftype."""
    agreement: float
    """Smallest share of greedy tokens that the torch reference would have chosen too, below which no export is made."""


LLM_TYPES = {
    "f32": LlmType(32.0, 0, 0.99),
    "f16": LlmType(16.0, 1, 0.98),
    "q8_0": LlmType(8.5, 7, 0.85),
    "q6_k": LlmType(6.5625, 18, 0.8),
    "q5_k_m": LlmType(5.69, 17, 0.7),
    "q4_k_m": LlmType(4.85, 15, 0.6),
    "q4_1": LlmType(5.0, 3, 0.55),
    "q4_0": LlmType(4.5, 2, 0.5),
    "iq4_xs": LlmType(4.33, 30, 0.5),
    "q3_k_m": LlmType(3.91, 12, 0.4),
}
"""Every type the exporter writes, most precise first."""
_KEPT = LlmType(8.5, -1, 0.85)
"""Of a file that was kept as it is: its greedy tokens are compared with those of its own weights."""


def llm_type(name: str) -> LlmType:
    """One of LLM_TYPES, or what is known of another that a kept GGUF file has: its bits, by its name's first digit."""
    digit = next((int(letter) for letter in name if letter.isdigit()), 8)
    known = LLM_TYPES["f16"] if name == "bf16" else LLM_TYPES.get(name)
    return known or replace(_KEPT, bits_per_weight=digit + 0.5)


GPTQ_TYPES = {"gptq-q4_0": "q4_0", "gptq-q4_1": "q4_1"}
"""What `--llm` takes beside LLM_TYPES, rounded by GPTQ: the type of its file."""
KEEP = "keep"
"""What `--llm` takes instead of a type: the tensors of a GGUF file stay as they are."""
TABLE_TYPES = ("f16", "q8_0", "q6_k", "q5_k", "q4_k", "q4_1", "q4_0")
"""What the embedding and the head of a quantized file may be kept at."""


KV_BYTES = {"f32": 4.0, "f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}
"""Bytes of one value in a key-value cache, by its type."""
KV_BLOCK = 32  # values that q8_0 and q4_0 keep together: a head must hold whole blocks


@dataclass(frozen=True)
class LlmSpec:
    """Sizes of one decoder. audio_tokens [n, hidden] and token ids -> logits [vocab].

    qwen3: LLaMA with an RMSNorm on every head's query and key.
    """

    hidden: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_ffn: int
    vocab: int  # pieces in the tokenizer; the reference's extra random [PAD] row is not one of them
    max_positions: int
    rms_norm_eps: float
    rope_theta: float = 10_000.0
    architecture: Literal["llama", "qwen3"] = "llama"
    head_dim: int | None = None  # width of one head; None: hidden / n_heads
    tied: bool = False  # the head is the embedding

    @property
    def n_params(self) -> int:
        """Weights in the decoder, embedding and head included."""
        attention = 2 * self.hidden * (self.d_q + self.d_kv)
        norms = 2 * self.hidden + (2 * self.d_head if self.architecture == "qwen3" else 0)
        per_layer = attention + 3 * self.hidden * self.d_ffn + norms
        tables = 1 if self.tied else 2
        return self.n_layers * per_layer + tables * self.vocab * self.hidden + self.hidden

    @property
    def d_head(self) -> int:
        """Width of one head."""
        return self.head_dim or self.hidden // self.n_heads

    @property
    def d_q(self) -> int:
        """Width of one query row."""
        return self.d_head * self.n_heads

    @property
    def d_kv(self) -> int:
        """Width of one key or value row."""
        return self.d_head * self.n_kv_heads

    def kv_bytes(self, n_ctx: int, kv_type: str = "f16") -> int:
        """Key-value cache of n_ctx positions, at one of KV_BYTES."""
        return round(2 * self.n_layers * self.d_kv * KV_BYTES[kv_type] * n_ctx)

    def weight_bytes(self, quantization: str) -> int:
        """Approximate size of the GGUF file at one of LLM_TYPES. A tied embedding is kept as finely as a head."""
        bits = llm_type(quantization).bits_per_weight
        finer = max(0.0, LLM_TYPES["q6_k"].bits_per_weight - bits) if self.tied else 0.0
        return round((self.n_params * bits + self.vocab * self.hidden * finer) / 8)


@dataclass(frozen=True)
class LoraSpec:
    """A low-rank adapter: W x + scale B A x on every layer's targets."""

    rank: int
    alpha: float
    targets: tuple[str, ...] = TARGETS

    @property
    def scale(self) -> float:
        """alpha / rank: 4.0 as SALMONN was trained, 2.0 as canary-qwen."""
        return self.alpha / self.rank


VICUNA_7B_V15 = LlmSpec(4096, 32, 32, 32, 11008, 32000, max_positions=4096, rms_norm_eps=1e-5)
VICUNA_13B_V11 = LlmSpec(5120, 40, 40, 40, 13824, 32000, max_positions=2048, rms_norm_eps=1e-6)
QWEN3_1_7B = LlmSpec(
    2048, 28, 16, 8, 6144, 151936, 40960, 1e-6, rope_theta=1e6, architecture="qwen3", head_dim=128, tied=True
)
SALMONN_LORA = LoraSpec(rank=8, alpha=32.0)
CANARY_QWEN_LORA = LoraSpec(rank=128, alpha=256.0)
