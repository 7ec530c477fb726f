"""The language model in torch, one layer in memory at a time: what the GGUF file is compared with.

Float32, LoRA merged in float32, transformers' own LLaMA or Qwen3 layer. One pass over a whole teacher-forced sequence
needs the memory of one layer and the embedding, so a 13B model is checked on a machine that could not hold it. There
is no `generate` here, which would inherit Qwen3's sampling from its generation_config: the caller takes the best logit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle
from transformers import LlamaConfig, Qwen3Config
from transformers.models.llama import modeling_llama as llama
from transformers.models.qwen3 import modeling_qwen3 as qwen3

from ...models.llm import LlmSpec
from ..formats.checkpoint import Weights
from ..formats.tensor_names import EMBEDDING, HEAD, LAST_NORM
from .config import RopeScaling
from .lora import Lora

HEAD_ROWS = 16384  # of the head in float32 at once: Qwen3's 151936 would take 1.2 GB


class _Modules(NamedTuple):
    config: Any
    rotary: Any
    layer: Any
    norm: Any


_MODULES = {
    "llama": _Modules(LlamaConfig, llama.LlamaRotaryEmbedding, llama.LlamaDecoderLayer, llama.LlamaRMSNorm),
    "qwen3": _Modules(Qwen3Config, qwen3.Qwen3RotaryEmbedding, qwen3.Qwen3DecoderLayer, qwen3.Qwen3RMSNorm),
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
    rope: RopeScaling | None = None

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
        layer = OneLayer(self)
        if watch:
            layer.follow(watch)
        for n in range(self.spec.n_layers):
            layer.load(n)
            states = layer.through(states)
            progress(n + 1, self.spec.n_layers)
        with torch.no_grad():
            norm = _MODULES[self.spec.architecture].norm(self.spec.hidden, self.spec.rms_norm_eps)
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

    def layer(self, n: int, names: Iterable[str]) -> dict[str, Tensor]:
        """Tensors of layer n by their names in it, float32, the LoRA merged."""
        state: dict[str, Tensor] = {}
        for name in names:
            weight = self.weights.get(f"model.layers.{n}.{name}").float()
            target = name.removesuffix(".weight").split(".")[-1]
            state[name] = self.lora.merged(weight, n, target, self.lora_scale)
        self.weights.close()  # pages of a mapped shard count as ours until then
        return state


class OneLayer:
    """The one layer that is in memory, on the CPU or a GPU: any of the model's, as it was loaded last."""

    def __init__(self, llm: ReferenceLlm, device: str = "cpu") -> None:
        modules = _MODULES[llm.spec.architecture]
        config = modules.config(**_config(llm.spec, llm.rope))
        self._llm = llm
        self._device = device
        self._rotary = modules.rotary(config).to(device)
        with torch.device("meta"):
            self._layer: torch.nn.Module = modules.layer(config, layer_idx=0).eval()
        self._n = self._sequence = 0

    @property
    def linears(self) -> dict[str, torch.nn.Linear]:
        """By the Hugging Face name of their weights."""
        named = self._layer.named_modules()
        return {self._name(name): module for name, module in named if isinstance(module, torch.nn.Linear)}

    def load(self, n: int) -> None:
        """Layer n in the place of the one before, which goes first."""
        self._layer.to("meta")
        state = self._llm.layer(n, self._layer.state_dict())
        self._layer.load_state_dict({name: value.to(self._device) for name, value in state.items()}, assign=True)
        self._n = n

    def through(self, states: Sequence[Tensor]) -> list[Tensor]:
        """Each sequence [n, hidden] through the layer, one after the other."""
        found: list[Tensor] = []
        for self._sequence, x in enumerate(states):
            with torch.no_grad():
                found.append(self._through(x.unsqueeze(0).to(self._device)).to(x.device))
        return found

    def follow(self, watch: Watch, names: Collection[str] | None = None) -> list[RemovableHandle]:
        """From now on tells what the linears (of these names) read. Handles that end it."""
        named = self._layer.named_modules()
        linears = {name: module for name, module in named if isinstance(module, torch.nn.Linear)}
        return [
            module.register_forward_pre_hook(partial(self._tell, watch, name))
            for name, module in linears.items()
            if names is None or self._name(name) in names
        ]

    def _name(self, module: str) -> str:
        return f"model.layers.{self._n}.{module}.weight"

    def _tell(self, watch: Watch, name: str, _: torch.nn.Module, given: tuple[Tensor, ...]) -> None:
        (inputs,) = given
        watch(self._name(name), self._sequence, inputs.reshape(-1, inputs.shape[-1]))

    def _through(self, x: Tensor) -> Tensor:
        positions = torch.arange(x.shape[1], device=x.device).unsqueeze(0)
        mask = torch.full((x.shape[1], x.shape[1]), float("-inf"), device=x.device).triu(1)[None, None]
        out = self._layer(
            x, attention_mask=mask, position_ids=positions, position_embeddings=self._rotary(x, positions)
        )
        return (out[0] if isinstance(out, tuple) else out)[0]


def _config(spec: LlmSpec, rope: RopeScaling | None) -> dict[str, Any]:
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
        "rope_parameters": _rope_parameters(spec.rope_theta, rope),
        "attn_implementation": "eager",
    }


def _rope_parameters(theta: float, rope: RopeScaling | None) -> dict[str, Any]:
    """As transformers names them."""
    return {"rope_type": "llama3" if rope else "default", "rope_theta": theta, **(asdict(rope) if rope else {})}
