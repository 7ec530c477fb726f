"""The bridge that is trained between frozen encoders and a language model: encoder frames -> audio tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

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
        """speech [n * window, d], audio [n * window, d], its real rows [n * window, 1] -> audio tokens [n, d_llm]."""
        fused = torch.cat([self.ln_speech(speech), self.ln_audio(audio) * real], dim=1)
        windows = fused.view(-1, self.spec.window, self.spec.d_encoder)
        query = self.qformer.query.expand(len(windows), -1, -1)
        hidden = self.qformer.qformer(query_embeds=query, encoder_hidden_states=windows).last_hidden_state
        return self.qformer.projection(hidden[:, 0])


def encode_views(bridge: Bridge, views: Sequence[View], disturb: Disturb | None = None) -> list[Tensor]:
    """Audio tokens [n_windows, d_llm] of each view, all windows in one pass; float32."""
    speech_rows: list[Tensor] = []
    audio_rows: list[Tensor] = []
    real_rows: list[Tensor] = []
    counts: list[int] = []
    for view in views:
        speech = torch.from_numpy(np.asarray(view.speech, np.float32))
        audio = torch.from_numpy(np.asarray(view.audio, np.float32))[: len(speech)]
        if disturb is not None:
            speech, audio = disturb(speech, audio)
        speech_rows.append(speech)
        audio_rows.append(F.pad(audio, (0, 0, 0, len(speech) - len(audio))))
        real_rows.append((torch.arange(len(speech)) < len(audio)).float()[:, None])
        counts.append(len(speech) // bridge.spec.window)
    tokens = bridge(torch.cat(speech_rows), torch.cat(audio_rows), torch.cat(real_rows)).float()
    return list(tokens.split(counts))


def with_lora(llm: LlamaForCausalLM, rank: int, alpha: int) -> PeftModel:
    """The language model frozen but for a LoRA on q and v; its first weights leave the model as it was."""
    targets = ["q_proj", "v_proj"]
    options = LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=alpha, target_modules=targets)
    return cast(PeftModel, get_peft_model(llm, options))
