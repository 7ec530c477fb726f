"""SALM: spec of FastConformer, projection and a language model with LoRA; its prompt.

Source: NeMo speechlm2/models/salm.py, common/prompts/qwen.py (docs/reference.md §7).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..encoders import fastconformer
from ..encoders.fastconformer import CANARY_QWEN, FEATURIZER, FRAMES_AXIS, INPUT, OUTPUT, FastConformerSpec
from ..graph_io import GraphInfo, TensorInfo
from ..llm import CANARY_QWEN_LORA, QWEN3_1_7B, LlmSpec, LoraSpec
from ..prompt import KEYWORDS, MAX_KEYWORDS, PROMPT, PromptInfo

FAMILY = "salm"
MAX_NEW_TOKENS = 128
AUDIO_TAG = "<|audioplaceholder|>"
IM_START, IM_END = "<|im_start|>", "<|im_end|>"
TASKS = {"asr": f"Transcribe the following: {AUDIO_TAG}"}


@dataclass(frozen=True)
class SalmSpec:
    """Every size of one SALM."""

    fastconformer: FastConformerSpec
    llm: LlmSpec
    lora: LoraSpec
    lists_keywords: ClassVar[bool] = True
    keyword_boost: ClassVar[float] = 0.0

    @property
    def n_samples(self) -> int:
        """Samples of the longest clip that one prompt hears."""
        return self.fastconformer.n_samples

    @property
    def seconds(self) -> float:
        """Of the longest clip."""
        return self.fastconformer.seconds

    @property
    def n_audio_tokens(self) -> int:
        """Audio tokens of the longest clip: 500 at the released sizes."""
        return fastconformer.n_tokens(fastconformer.n_frames(self.n_samples))

    def n_settled(self, n_samples: int) -> int:
        """Leading audio tokens that end before n_samples: what comes later changes them little."""
        return fastconformer.n_frames(max(0, n_samples)) // fastconformer.SUBSAMPLING

    @property
    def graphs(self) -> dict[str, GraphInfo]:
        """The interface that every graph must have."""
        spec = self.fastconformer
        features = TensorInfo(INPUT, (1, spec.n_mels, FRAMES_AXIS))
        audio_tokens = TensorInfo(OUTPUT, (1, "n_tokens", spec.d_llm))
        return {"fastconformer": GraphInfo("fastconformer.onnx", (features,), (audio_tokens,))}

    @property
    def data_files(self) -> tuple[str, ...]:
        """Files of the bundle that are neither a graph nor a GGUF."""
        return (FEATURIZER,)

    def impossible(self) -> str | None:
        """A size that does not go with the others."""
        return None if self.seconds >= 1 else f"a window of {self.seconds} s"


SALM = SalmSpec(CANARY_QWEN, QWEN3_1_7B, CANARY_QWEN_LORA)
RELEASED = {"canary-qwen-2.5b": SALM}


def prompt_info(encode: Callable[[str], Sequence[int]], eos_id: int) -> PromptInfo:
    """How a SALM is asked; encode: text to ids, special tokens parsed. No BOS, no system turn, no thinking."""
    text_turn = f"{IM_START}user\n{PROMPT}{IM_END}\n{IM_START}assistant\n"
    first, _, _ = text_turn.replace(PROMPT, TASKS["asr"]).partition(AUDIO_TAG)
    return PromptInfo(
        turn=text_turn.replace(PROMPT, KEYWORDS + PROMPT),
        text_turn=text_turn,
        system=f"{IM_START}system\n{{system}}{IM_END}\n",
        audio_tag=AUDIO_TAG,
        keywords="Following words may occur in audio: [{words}] ",
        max_keywords=MAX_KEYWORDS,
        tasks=TASKS,
        transcriptions=("asr",),
        normalization="NFC",
        special_tokens=True,
        start_ids=(),
        end_ids=tuple(encode(f"{IM_END}\n")),
        eos_id=eos_id,
        prefix_ids=tuple(encode(first)),
    )
