"""The language model in torch, one layer in memory at a time: what the GGUF file is compared with.

Float32, LoRA merged in float32, transformers' own LLaMA layer. One pass over a whole teacher-forced sequence needs the
memory of one layer and the embedding, so a 13B model is checked on a machine that could not hold it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm, LlamaRotaryEmbedding

from ..models.llm import LlmSpec
from .checkpoint import Weights
from .lora import Lora


@dataclass(frozen=True)
class ReferenceLlm:
    """Where the weights are, and the LoRA to merge on the way."""

    weights: Weights
    spec: LlmSpec
    lora: Lora
    lora_scale: float

    def logits(
        self, before: Sequence[int], audio_tokens: Tensor, after: Sequence[int], progress: Callable[[int, int], None]
    ) -> Tensor:
        """Logits [len(after), vocab]: row i follows after[i]. audio_tokens [n, hidden] float32."""
        x = torch.cat([self._embed(before), audio_tokens, self._embed(after)]).unsqueeze(0)
        config = _config(self.spec)
        positions = torch.arange(x.shape[1]).unsqueeze(0)
        rotary = LlamaRotaryEmbedding(config)(x, positions)
        mask = torch.full((x.shape[1], x.shape[1]), float("-inf")).triu(1)[None, None]
        with torch.device("meta"):
            layer = LlamaDecoderLayer(config, layer_idx=0).eval()
        with torch.no_grad():
            for n in range(self.spec.n_layers):
                layer.load_state_dict(self._layer(n, layer), assign=True)
                out = layer(x, attention_mask=mask, position_ids=positions, position_embeddings=rotary)
                x = out[0] if isinstance(out, tuple) else out
                self.weights.close()  # pages of a mapped shard count as ours until then
                progress(n + 1, self.spec.n_layers)
            norm = LlamaRMSNorm(self.spec.hidden, self.spec.rms_norm_eps)
            norm.weight = torch.nn.Parameter(self.weights.get("model.norm.weight").float())
            head = self.weights.get("lm_head.weight")[: self.spec.vocab]
            return norm(x[0, -len(after) :]) @ head.float().T

    def _embed(self, ids: Sequence[int]) -> Tensor:
        table = self.weights.get("model.embed_tokens.weight")
        return table[torch.tensor(ids, dtype=torch.long)].float()

    def _layer(self, n: int, layer: LlamaDecoderLayer) -> dict[str, Tensor]:
        state: dict[str, Tensor] = {}
        for name in layer.state_dict():
            weight = self.weights.get(f"model.layers.{n}.{name}").float()
            target = name.removeprefix("self_attn.").removesuffix(".weight")
            state[name] = self.lora.merged(weight, n, target, self.lora_scale)
        return state


def _config(spec: LlmSpec) -> LlamaConfig:
    config: Any = LlamaConfig  # its signature does not show all of its fields
    return config(
        vocab_size=spec.vocab,
        hidden_size=spec.hidden,
        intermediate_size=spec.d_ffn,
        num_hidden_layers=spec.n_layers,
        num_attention_heads=spec.n_heads,
        num_key_value_heads=spec.n_kv_heads,
        max_position_embeddings=spec.max_positions,
        rms_norm_eps=spec.rms_norm_eps,
        rope_theta=spec.rope_theta,
        attn_implementation="eager",
    )
