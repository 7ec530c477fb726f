"""The language model in torch, one layer in memory at a time: what the GGUF file is compared with.

Float32, LoRA merged in float32, transformers' own LLaMA or Qwen3 layer. One pass over a whole teacher-forced sequence
needs the memory of one layer and the embedding, so a 13B model is checked on a machine that could not hold it. There
is no `generate` here, which would inherit Qwen3's sampling from its generation_config: the caller takes the best logit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, Qwen3Config
from transformers.models.llama import modeling_llama as llama
from transformers.models.qwen3 import modeling_qwen3 as qwen3

from ..models.llm import LlmSpec
from .checkpoint import Weights
from .decoder import EMBEDDING, HEAD, LAST_NORM
from .lora import Lora

HEAD_ROWS = 16384  # of the head in float32 at once: Qwen3's 151936 would take 1.2 GB
_MODULES: dict[str, tuple[Any, Any, Any, Any]] = {
    "llama": (LlamaConfig, llama.LlamaRotaryEmbedding, llama.LlamaDecoderLayer, llama.LlamaRMSNorm),
    "qwen3": (Qwen3Config, qwen3.Qwen3RotaryEmbedding, qwen3.Qwen3DecoderLayer, qwen3.Qwen3RMSNorm),
}


Watch = Callable[[str, int, Tensor], None]
"""Told the Hugging Face name of a linear's weight, which sequence, and what it reads of that: float32 [n, n_in]."""


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
        x = torch.cat([self.embed(before), audio_tokens, self.embed(after)])
        (x,) = self.run([x], progress)
        with torch.no_grad():
            head = self.weights.get(EMBEDDING if self.spec.tied else HEAD)[: self.spec.vocab]
            last = x[-len(after) :]
            return torch.cat([last @ rows.float().T for rows in head.split(HEAD_ROWS)], dim=-1)

    def run(
        self, sequences: Sequence[Tensor], progress: Callable[[int, int], None], watch: Watch | None = None
    ) -> list[Tensor]:
        """What the head reads of each sequence [n, hidden]; every layer is loaded once, for all of them.

        watch is told what each linear reads of each sequence, the head last.
        """
        states = list(sequences)
        config_class, rotary_class, layer_class, norm_class = _MODULES[self.spec.architecture]
        config = config_class(**_config(self.spec))
        rotary = rotary_class(config)
        with torch.device("meta"):
            layer: torch.nn.Module = layer_class(config, layer_idx=0).eval()
        reading = _Reading(watch)
        reading.follow(layer)
        with torch.no_grad():
            for n in range(self.spec.n_layers):
                layer.load_state_dict(self._layer(n, layer), assign=True)
                reading.layer = n
                for reading.sequence, x in enumerate(states):
                    states[reading.sequence] = _through(layer, rotary, x)
                self.weights.close()  # pages of a mapped shard count as ours until then
                progress(n + 1, self.spec.n_layers)
            norm = norm_class(self.spec.hidden, self.spec.rms_norm_eps)
            norm.weight = torch.nn.Parameter(self.weights.get(LAST_NORM).float())
            states = [norm(x) for x in states]
        if watch:
            for index, x in enumerate(states):
                watch(EMBEDDING if self.spec.tied else HEAD, index, x)
        return states

    def embed(self, ids: Sequence[int]) -> Tensor:
        """float32 [len(ids), hidden]."""
        table = self.weights.get(EMBEDDING)
        return table[torch.tensor(ids, dtype=torch.long)].float()

    def _layer(self, n: int, layer: torch.nn.Module) -> dict[str, Tensor]:
        state: dict[str, Tensor] = {}
        for name in layer.state_dict():
            weight = self.weights.get(f"model.layers.{n}.{name}").float()
            target = name.removesuffix(".weight").split(".")[-1]
            state[name] = self.lora.merged(weight, n, target, self.lora_scale)
        return state


class _Reading:
    """Hooks on the linears of the one layer that is in memory; `layer` says which it is, `sequence` what it reads."""

    def __init__(self, watch: Watch | None) -> None:
        self._watch = watch
        self.layer = self.sequence = 0

    def follow(self, layer: torch.nn.Module) -> None:
        """Every linear of this module tells what it reads."""
        if self._watch is None:
            return
        for name, module in layer.named_modules():
            if isinstance(module, torch.nn.Linear):
                module.register_forward_pre_hook(partial(self._tell, name))

    def _tell(self, name: str, _: torch.nn.Module, given: tuple[Tensor, ...]) -> None:
        assert self._watch is not None
        (inputs,) = given
        self._watch(f"model.layers.{self.layer}.{name}.weight", self.sequence, inputs.reshape(-1, inputs.shape[-1]))


def _through(layer: torch.nn.Module, rotary: torch.nn.Module, x: Tensor) -> Tensor:
    """One sequence [n, hidden] through the layer that is loaded."""
    x = x.unsqueeze(0)
    positions = torch.arange(x.shape[1]).unsqueeze(0)
    mask = torch.full((x.shape[1], x.shape[1]), float("-inf")).triu(1)[None, None]
    out = layer(x, attention_mask=mask, position_ids=positions, position_embeddings=rotary(x, positions))
    return (out[0] if isinstance(out, tuple) else out)[0]


def _config(spec: LlmSpec) -> dict[str, Any]:
    return {
        "vocab_size": spec.vocab,
        "hidden_size": spec.hidden,
        "intermediate_size": spec.d_ffn,
        "num_hidden_layers": spec.n_layers,
        "num_attention_heads": spec.n_heads,
        "num_key_value_heads": spec.n_kv_heads,
        "head_dim": spec.d_head,
        "max_position_embeddings": spec.max_positions,
        "rms_norm_eps": spec.rms_norm_eps,
        "rope_theta": spec.rope_theta,
        "attn_implementation": "eager",
    }
