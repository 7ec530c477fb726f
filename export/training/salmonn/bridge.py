"""The demo's bridge: Q-Former, projection and LoRA between its encoders and its language model."""

from __future__ import annotations

from dataclasses import dataclass

from peft import PeftModel
from transformers import LlamaForCausalLM

from ....models.encoders.qformer import QFormerSpec
from ....models.families.salmonn import Hearing
from ..bridge import with_lora
from .encoders import BEATS_SPEC, WINDOW_FRAMES
from .llm import HIDDEN

LORA_RANK, LORA_ALPHA = 8, 32.0


@dataclass(frozen=True)
class Layout:
    """What of a clip the speech encoder is given, and how its frames become audio tokens."""

    spec: QFormerSpec
    hears: Hearing
    short: float
    """Share of the training views that hear the clip alone; the others hear all 10 s."""

    @property
    def n_windows(self) -> int:
        """Audio tokens of the longest clip."""
        return self.spec.n_windows(WINDOW_FRAMES // 2)

    def windows_of(self, n_frames: int) -> int:
        """Windows that hold n_frames of mel, at least a second, at most all."""
        return min(-(-max(n_frames // 2, 50) // self.spec.window), self.n_windows)


OWN_SPEECH = Layout(
    QFormerSpec(hidden=192, n_heads=3, d_ffn=768, d_speech=192, d_audio=BEATS_SPEC.d_model, d_llm=HIDDEN),
    hears="window",
    short=0.35,
)
"""On the encoder of 2 million weights that is trained here."""
TINY_EN = Layout(
    QFormerSpec(
        hidden=256,
        n_heads=4,
        d_ffn=1024,
        d_speech=384,
        d_audio=BEATS_SPEC.d_model,
        d_llm=HIDDEN,
        second_per_window=0.16,
        second_stride=0.16,
    ),
    hears="clip",
    short=0.97,
)
"""On whisper-tiny.en's encoder, frozen."""


def adapted(llm: LlamaForCausalLM) -> PeftModel:
    """The demo's language model with its LoRA."""
    return with_lora(llm, LORA_RANK, int(LORA_ALPHA))


def unfreeze(llm: PeftModel) -> None:
    """Let the LLM's own weights be trained too, all but its token embeddings."""
    for name, weight in llm.named_parameters():
        if "embed_tokens" not in name:
            weight.requires_grad_(True)
