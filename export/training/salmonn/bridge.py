"""The demo's bridge: Q-Former, projection and LoRA between its encoders and its language model."""

from __future__ import annotations

from typing import cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from ....models.encoders.qformer import QFormerSpec
from ...encoders.qformer import ReferenceQFormer
from .encoders import BEATS_SPEC, WINDOW_FRAMES
from .llm import HIDDEN

SPEC = QFormerSpec(hidden=192, n_heads=3, d_ffn=768, d_speech=192, d_audio=BEATS_SPEC.d_model, d_llm=HIDDEN)
N_WINDOWS = SPEC.n_windows(WINDOW_FRAMES // 2)
LORA_RANK, LORA_ALPHA = 8, 32.0


class Bridge(nn.Module):
    """The two LayerNorms, the Q-Former and the projection: encoder outputs -> audio tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_speech = nn.LayerNorm(SPEC.d_speech)
        self.ln_audio = nn.LayerNorm(SPEC.d_audio)
        self.qformer = ReferenceQFormer(SPEC)
        nn.init.normal_(self.qformer.query, std=0.02)

    def forward(self, speech: Tensor, audio: Tensor, real: Tensor) -> Tensor:
        """speech [n * 17, d], audio [n * 17, d], which of its rows are real [n * 17, 1] -> audio tokens [n, d_llm]."""
        fused = torch.cat([self.ln_speech(speech), self.ln_audio(audio) * real], dim=1)
        windows = fused.view(-1, SPEC.window, SPEC.d_encoder)
        query = self.qformer.query.expand(len(windows), -1, -1)
        hidden = self.qformer.qformer(query_embeds=query, encoder_hidden_states=windows).last_hidden_state
        return self.qformer.projection(hidden[:, 0])


def with_lora(llm: LlamaForCausalLM) -> PeftModel:
    """The LLM frozen but for LoRA on q and v; its first weights leave the LLM as it was."""
    targets = ["q_proj", "v_proj"]
    options = LoraConfig(task_type="CAUSAL_LM", r=LORA_RANK, lora_alpha=int(LORA_ALPHA), target_modules=targets)
    return cast(PeftModel, get_peft_model(llm, options))


def unfreeze(llm: PeftModel) -> None:
    """Let the LLM's own weights be trained too, all but its token embeddings."""
    for name, weight in llm.named_parameters():
        if "embed_tokens" not in name:
            weight.requires_grad_(True)
