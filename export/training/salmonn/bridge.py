"""The demo's bridge: Q-Former, projection and LoRA between its encoders and its language model."""

from __future__ import annotations

from peft import PeftModel
from transformers import LlamaForCausalLM

from ....models.encoders.qformer import QFormerSpec
from ..bridge import Bridge, with_lora
from .encoders import BEATS_SPEC, WINDOW_FRAMES
from .llm import HIDDEN

SPEC = QFormerSpec(hidden=192, n_heads=3, d_ffn=768, d_speech=192, d_audio=BEATS_SPEC.d_model, d_llm=HIDDEN)
N_WINDOWS = SPEC.n_windows(WINDOW_FRAMES // 2)
LORA_RANK, LORA_ALPHA = 8, 32.0


def new_bridge() -> Bridge:
    """Untrained."""
    return Bridge(SPEC)


def adapted(llm: LlamaForCausalLM) -> PeftModel:
    """The demo's language model with its LoRA."""
    return with_lora(llm, LORA_RANK, int(LORA_ALPHA))


def unfreeze(llm: PeftModel) -> None:
    """Let the LLM's own weights be trained too, all but its token embeddings."""
    for name, weight in llm.named_parameters():
        if "embed_tokens" not in name:
            weight.requires_grad_(True)
