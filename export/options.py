"""Options of one export, whatever the family."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..models.bundle import is_mean_logprob
from ..models.errors import InputError
from ..models.llm import GPTQ_TYPES, KEEP
from ..models.precision import DEFAULT_PRECISION, PrecisionName
from .llm.export import LoraMode
from .llm.gptq_linear import require_gptq
from .llm.quantize import TableTypes, require_type, require_weighted

EMBEDDING_BESIDE_GPTQ = "q8_0"


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What every export is asked."""

    out: Path
    encoders: PrecisionName = DEFAULT_PRECISION
    llm: str = "q4_k_m"
    lora: LoraMode = "merged"
    lora_scale: float | None = None
    name: str | None = None
    licence: tuple[str, ...] = ()
    force: bool = False
    chats: bool = True
    """The language model was trained to chat before it was taught to listen."""
    min_avg_logprob: float | None = None
    """An answer below it was not understood: GenerationInfo."""
    threads: int | None = None
    imatrix: Path | Literal["auto"] | None = None
    """A file that says how strongly each input of the language model is driven, or measured here."""
    calibrate: Path | None = None
    """What "auto" and GPTQ listen to; None: the demo's clips."""
    token_embedding_type: str | None = None
    output_tensor_type: str | None = None
    aligner: Path | None = None
    """The directory of a small Whisper, for a bundle that times words."""

    def __post_init__(self) -> None:
        if self.min_avg_logprob is not None and not is_mean_logprob(self.min_avg_logprob):
            raise InputError(f"--min-logprob {self.min_avg_logprob:g} must be 0 or less: a mean log-probability")
        if self.llm != KEEP:
            require_type(self.llm_type)
        if self.imatrix is not None:
            require_weighted(self.llm)
        if self.calibrate is not None and self.imatrix != "auto" and not self.gptq:
            raise InputError(
                f"--calibrate {self.calibrate} is for --imatrix auto and --llm gptq-q4_0 to hear: give one of them too"
            )
        if self.gptq:
            require_gptq()
            if self.lora == "adapter":
                raise InputError(
                    f"--llm {self.llm} rounds the weights with the LoRA in them: give --lora merged or both"
                )

    @property
    def gptq(self) -> bool:
        """Whether the linears are rounded by GPTQ."""
        return self.llm in GPTQ_TYPES

    @property
    def llm_type(self) -> str:
        """The type of the file, one of LLM_TYPES, or KEEP."""
        return GPTQ_TYPES.get(self.llm, self.llm)

    def tables(self, tied: bool) -> TableTypes:
        """With GPTQ's linears an embedding of 4 bits would be what hurts most, and only rows of it are read."""
        fine = EMBEDDING_BESIDE_GPTQ if self.gptq and not tied else None
        return TableTypes(self.token_embedding_type or fine, self.output_tensor_type)
