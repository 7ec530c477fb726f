"""The bridge that is trained between frozen encoders and a language model: encoder frames -> audio tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaForCausalLM

from ...models.encoders.qformer import QFormerSpec
from ..encoders.qformer import ReferenceQFormer
from .shards import View

Disturb = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Another version of one view's speech [n, d] and audio [m, d], as training wants it."""


class Bridge(nn.Module):
    """The two LayerNorms, the Q-Former and the projection: encoder outputs of whole windows -> audio tokens."""

    def __init__(self, spec: QFormerSpec, dropout: float = 0.0) -> None:
        super().__init__()
        self.spec = spec
        self.ln_speech = nn.LayerNorm(spec.d_speech)
        self.ln_audio = nn.LayerNorm(spec.d_audio)
        self.qformer = ReferenceQFormer(spec)
        nn.init.normal_(self.qformer.query, std=0.02)
        for module in self.qformer.modules():
            if isinstance(module, nn.Dropout):
                module.p = dropout

    def forward(self, speech: Tensor, audio: Tensor, real: Tensor) -> Tensor:
        """speech [n * window, d], audio [n * window, d], its real rows [n * window, 1] -> audio tokens [n, d_llm].

        What transformers' Blip2QFormerModel computes, with half the multiplications: there is one query
        (encoders/qformer.py::FoldedQFormer says why).
        """
        return self.project(self.hidden(speech, audio, real))

    def project(self, hidden: Tensor) -> Tensor:
        """Hidden states [n, hidden] -> audio tokens [n, d_llm]."""
        return self.qformer.projection(hidden)

    def hidden(self, speech: Tensor, audio: Tensor, real: Tensor) -> Tensor:
        """What the projection is given: [n, hidden]."""
        fused = torch.cat([self.ln_speech(speech), self.ln_audio(audio) * real], dim=1)
        windows = fused.view(-1, self.spec.window, self.spec.d_encoder)
        model: Any = self.qformer.qformer
        x = model.layernorm(self.qformer.query[0])
        for layer in model.encoder.layer:
            own, cross = layer.attention, layer.crossattention
            x = own.output(own.attention.value(x), x)
            x = cross.output(_attend(cross.attention, x, windows), x)
            x = layer.output_query(layer.intermediate_query(x), x)
        return x


def _attend(attention: Any, x: Tensor, windows: Tensor) -> Tensor:
    """Of queries x [n or 1, hidden] to windows [n, window, d_encoder]: [n, hidden], before the output's projection."""
    n_heads, width = attention.num_attention_heads, attention.attention_head_size
    queries = attention.query(x).unflatten(1, (n_heads, width)) * attention.scaling
    keys = attention.key.weight.unflatten(0, (n_heads, width))
    looked_for = torch.einsum("nhw,hwd->nhd", queries, keys).to(windows.dtype).expand(len(windows), -1, -1)
    weights = torch.softmax(looked_for @ windows.transpose(1, 2), dim=-1)
    heard = weights.to(windows.dtype) @ windows  # [n, n_heads, d_encoder]
    values = attention.value.weight.unflatten(0, (n_heads, width))
    return torch.einsum("nhd,hwd->nhw", heard, values).flatten(1) + attention.value.bias


def encode_views(bridge: Bridge, views: Sequence[View], disturb: Disturb | None = None) -> list[Tensor]:
    """Audio tokens [n_windows, d_llm] of each view, all windows in one pass; float32."""
    speech, audio, real, counts = join_views(bridge.spec, views, disturb)
    return list(bridge(speech, audio, real).float().split(counts))


def join_views(
    spec: QFormerSpec, views: Sequence[View], disturb: Disturb | None = None
) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """What a bridge is given for views one after the other: speech, audio, its real rows; and each view's windows."""
    speech_rows: list[Tensor] = []
    audio_rows: list[Tensor] = []
    real_rows: list[Tensor] = []
    counts: list[int] = []
    for view in views:
        speech = torch.from_numpy(np.asarray(view.speech, np.float32))
        audio = torch.from_numpy(np.asarray(view.audio, np.float32))[: len(speech)]
        if disturb is not None:
            speech, audio = disturb(speech, audio)
        n_audio = len(audio)
        frames = torch.arange(len(speech)).unfold(0, spec.window, spec.stride)
        audio = F.pad(audio, (0, 0, 0, len(speech) - len(audio)))
        speech_rows.append(speech[frames.flatten()])
        audio_rows.append(audio[frames.flatten()])
        real_rows.append((frames.flatten() < n_audio).float()[:, None])
        counts.append(len(frames))
    return torch.cat(speech_rows), torch.cat(audio_rows), torch.cat(real_rows), counts


def with_lora(llm: LlamaForCausalLM, rank: int, alpha: int) -> PeftModel:
    """The language model frozen but for a LoRA on q and v; its first weights leave the model as it was."""
    targets = ["q_proj", "v_proj"]
    options = LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=alpha, target_modules=targets)
    return cast(PeftModel, get_peft_model(llm, options))
