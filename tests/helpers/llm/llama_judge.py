"""llama.cpp's low-level API as the judge of an exported GGUF file."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import llama_cpp as llama
import numpy as np


@llama.llama_log_callback
def _silent(_level: int, _text: bytes, _data: ctypes.c_void_p) -> None: ...


class Judge:
    """One GGUF file opened in llama.cpp, everything in float32."""

    def __init__(
        self,
        path: Path,
        adapter: Path | None = None,
        factor: float = 1.0,
        vocab_only: bool = False,
        n_ctx: int = 256,
    ) -> None:
        llama.llama_log_set(_silent, ctypes.c_void_p(0))
        options = llama.llama_model_default_params()
        options.n_gpu_layers, options.vocab_only = 0, vocab_only
        self.model: Any = llama.llama_model_load_from_file(str(path).encode(), options)
        assert self.model, f"llama.cpp does not load {path}"
        self.vocab: Any = llama.llama_model_get_vocab(self.model)
        self.context: Any = None
        if vocab_only:
            return
        context = llama.llama_context_default_params()
        context.n_ctx = context.n_batch = context.n_ubatch = n_ctx
        context.type_k = context.type_v = 0  # float32; flash attention would round to float16 all the same
        context.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
        context.n_threads = context.n_threads_batch = 1
        self.context = llama.llama_init_from_model(self.model, context)
        if adapter:
            loaded = llama.llama_adapter_lora_init(self.model, str(adapter).encode())
            assert loaded, "llama.cpp does not load the adapter"
            handles = (llama.llama_adapter_lora_p_ctypes * 1)(loaded)
            scales = (ctypes.c_float * 1)(factor)
            assert cast(Any, llama).llama_set_adapters_lora(self.context, handles, 1, scales) == 0

    def tokens(self, text: str, specials: bool = False) -> list[int]:
        """No BOS; `specials` are ids where the text names them, or are text."""
        raw = text.encode()
        room = (llama.llama_token * 512)()
        n = llama.llama_tokenize(self.vocab, raw, len(raw), room, 512, False, specials)
        assert n >= 0
        return list(room[:n])

    def prefill(self, ids: list[int], start: int = 0) -> None:
        self._decode(llama.llama_batch_init(len(ids), 0, 1), len(ids), start, lambda b: self._fill(b, ids))

    def prefill_audio(self, audio_tokens: np.ndarray, start: int) -> None:
        flat = np.ascontiguousarray(audio_tokens, np.float32)
        batch = llama.llama_batch_init(len(flat), flat.shape[1], 1)
        self._decode(batch, len(flat), start, lambda b: ctypes.memmove(b.embd, flat.ctypes.data, flat.nbytes))

    def logits(self) -> np.ndarray:
        n = llama.llama_vocab_n_tokens(self.vocab)
        return np.ctypeslib.as_array(llama.llama_get_logits_ith(self.context, -1), shape=(n,)).copy()

    def restart(self) -> None:
        """Nothing has been read yet."""
        memory: Any = llama.llama_get_memory(self.context)
        llama.llama_memory_clear(memory, True)

    def text(self, ids: list[int]) -> str:
        room = ctypes.create_string_buffer(256)
        pieces = bytearray()
        for token in ids:
            n = llama.llama_token_to_piece(self.vocab, token, room, 256, 0, False)
            pieces += room.raw[:n]
        return pieces.decode(errors="replace")

    def close(self) -> None:
        if self.context:
            llama.llama_free(self.context)
        llama.llama_model_free(self.model)

    def _decode(self, batch: Any, n: int, start: int, fill: Callable[[Any], object]) -> None:
        batch.n_tokens = n
        fill(batch)
        for i in range(n):
            batch.pos[i], batch.n_seq_id[i], batch.logits[i] = start + i, 1, i == n - 1
            batch.seq_id[i][0] = 0
        assert llama.llama_decode(self.context, batch) == 0
        llama.llama_batch_free(batch)

    @staticmethod
    def _fill(batch: Any, ids: list[int]) -> None:
        for i, token in enumerate(ids):
            batch.token[i] = token
