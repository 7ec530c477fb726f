"""Options of the language model: how and where it runs."""

from __future__ import annotations

from dataclasses import dataclass

from ...models.errors import InputError
from ...models.llm import KV_BYTES
from ..system.machine import MAX_THREADS

MAX_BOOST = 20.0  # nats; far below, a listed word is written whatever was said
MAX_LOOKUP = 64  # tokens; a pass of more costs more than it can save
MAX_POSITIONS = 1 << 20  # no model of these families was trained on more


@dataclass(frozen=True)
class LlmOptions:
    """How and where to run. Raises InputError for an impossible value."""

    n_ctx: int | None = None  # positions of the KV cache; None grows to what each question needs
    n_threads: int | None = None  # None: llm_threads()
    n_gpu_layers: int = -1  # -1: all, when this build of llama.cpp can offload
    kv_type: str = "f16"  # one of KV_BYTES; f32 switches flash attention off: for comparing numbers
    repack: bool | None = None  # weights twice in memory, for faster decoding; None: where that pays for short answers
    lora_scale: float | None = None  # None: as exported; another needs the bundle's adapter
    prompt_lookup: int = 0  # tokens guessed at once of what an answer may repeat, and checked in one pass; 0: none
    keyword_boost: float | None = None  # nats added to tokens of listed words; 0 lists them in the prompt alone

    def __post_init__(self) -> None:
        for name, most in (("n_ctx", MAX_POSITIONS), ("n_threads", MAX_THREADS)):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= most:
                raise InputError(f"{name}={value} is not possible: it must be from 1 to {most}")
        if not 0 <= self.prompt_lookup <= MAX_LOOKUP:
            raise InputError(f"prompt_lookup={self.prompt_lookup} is not possible: it must be from 0 to {MAX_LOOKUP}")
        boost = self.keyword_boost
        if boost is not None and not 0 <= boost <= MAX_BOOST:
            raise InputError(f"keyword_boost={boost:g} is not possible: it must be from 0 to {MAX_BOOST:g} nats")
        if self.kv_type not in KV_BYTES:
            raise InputError(f"kv_type={self.kv_type!r} is not possible: it must be one of {', '.join(KV_BYTES)}")
