"""The border to llama.cpp: model, context and adapter over llama-cpp-python's low-level API, in ctypes.

Knows nothing about prompts, audio or generation. Not thread-safe: one caller at a time.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...models.errors import BundleError, RunError
from ...models.llm import KV_BYTES, LlmSpec
from ..system.compute_thread import llm_thread
from ..system.machine import patient_openmp

with patient_openmp():
    import llama_cpp

_c: Any = llama_cpp  # its functions are decorated at import and have no static types
_SPECIAL = _c.LLAMA_TOKEN_ATTR_CONTROL | _c.LLAMA_TOKEN_ATTR_UNKNOWN
_KV_TYPES = {name: getattr(_c, f"GGML_TYPE_{name.upper()}") for name in KV_BYTES}
_BATCH = dict(_c.llama_batch._fields_)  # field -> pointer type
NARROW_HEAD = 64
"""Values of an attention head up to which llama.cpp's flash attention on a CPU takes 1.1 to 3.6 times as long as its
products one by one, in passes of 8 to 32 rows (docs/performance.md); at 128 they are alike."""
_ERROR_LEVEL = 4  # ggml.h's GGML_LOG_LEVEL_ERROR; llama_cpp/_logger.py has the order of older versions

Ints = Sequence[int]
Floats = npt.NDArray[np.float32]
_complaints: list[str] = []
"""llama.cpp's error lines: it returns no reason, only logs it. The first is the cause, the others what came of it."""


@_c.llama_log_callback
def _log(level: int, text: bytes | None, _user: object) -> None:
    line = (text or b"").decode("utf-8", "replace")
    if os.environ.get("AURICLE_LLAMA_LOG") == "1":
        sys.stderr.write(line)
    elif level == _ERROR_LEVEL and line.strip():
        _complaints.append(line.strip())


def silence() -> None:
    """llama.cpp prints hundreds of lines to stderr by itself. What it complained of before is forgotten.

    At every opening, not at import: whoever imports llama_cpp later, or before, may set another logger.
    """
    _complaints.clear()
    _c.llama_log_set(_log, ctypes.c_void_p(0))


def reason() -> str:
    """What went wrong since then, in brackets, if llama.cpp said so."""
    return f" ({_complaints[0]})" if _complaints else ""


def can_offload() -> bool:
    """Whether this build of llama.cpp has a GPU backend, and finds a device for it."""
    silence()
    return bool(_c.llama_supports_gpu_offload())


def worth_repacking(quantization: str) -> bool:
    """Whether llama.cpp's own order of a type's blocks is worth its memory on this processor.

    On x86 it takes q4_0 and the k types into memory a second time; measured with AVX-512 on the 7B shape, that makes
    q4_0 1.4 x faster and q4_k_m's prefill 1.6 x slower (docs/performance.md). Elsewhere llama.cpp decides.
    """
    return quantization == "q4_0" or platform.machine().lower() not in ("x86_64", "amd64")


class Model:
    """Weights and vocabulary of one GGUF file, read-only.

    repack: let llama.cpp keep some types in an order of its own, in memory beside the mapped file. vocab_only: a file
    without weights, whose sizes are none. Raises BundleError when the file is missing or llama.cpp cannot read it.
    """

    def __init__(self, path: Path, n_gpu_layers: int = -1, repack: bool = True, vocab_only: bool = False) -> None:
        self._handle: Any = None  # first, so that close() works after any failure
        if not path.is_file():
            raise BundleError(f"{path} is not there: copy the bundle again")
        silence()
        _c.llama_backend_init()
        params = _c.llama_model_default_params()
        params.n_gpu_layers = n_gpu_layers if can_offload() else 0
        self._on_cpu = params.n_gpu_layers == 0
        params.use_extra_bufts = repack
        params.vocab_only = vocab_only
        self.path = path
        self._handle = _c.llama_model_load_from_file(os.fsencode(path), params)
        if not self._handle:
            raise BundleError(f"llama.cpp cannot read {path}{reason()}: copy the bundle again")
        self._vocab_pointer = _c.llama_model_get_vocab(self._handle)
        self.hidden: int = _c.llama_model_n_embd(self._handle)
        self.n_layers: int = _c.llama_model_n_layer(self._handle)
        # llama.cpp aborts where there are no layers to ask
        self.n_heads: int = 0 if vocab_only else _c.llama_model_n_head(self._handle)
        self.n_kv_heads: int = 0 if vocab_only else _c.llama_model_n_head_kv(self._handle)
        self.vocab: int = _c.llama_vocab_n_tokens(self.vocab_handle)
        self.bos: int = _c.llama_vocab_bos(self.vocab_handle)
        attributes = [_c.llama_vocab_get_attr(self.vocab_handle, i) for i in range(self.vocab)]
        self.specials = frozenset(i for i, attribute in enumerate(attributes) if attribute & _SPECIAL)
        texts = (_c.llama_vocab_get_text(self.vocab_handle, i) for i in self.specials)
        self.special_texts = frozenset(text.decode("utf-8", "replace") for text in texts)
        self.eos = frozenset(i for i in self.specials if _c.llama_vocab_is_eog(self.vocab_handle, i))

    def require_sizes(self, spec: LlmSpec) -> None:
        """Raises BundleError for the first size that is not the manifest's."""
        for name in ("hidden", "n_layers", "n_heads", "n_kv_heads", "vocab"):
            found = getattr(self, name)
            expected = getattr(spec, name)
            if found != expected:
                raise BundleError(
                    f"{self.path} has {name} {found}, but the manifest says {expected}: export the bundle again"
                )

    @property
    def vocab_handle(self) -> Any:
        """For llama.cpp's functions. RunError after close(): they would read freed memory."""
        if not self._handle:
            raise RunError("the language model is closed: open the bundle again")
        return self._vocab_pointer

    def tokenize(self, text: str, special: bool = False) -> list[int]:
        """Ids of a text as its tokenizer makes them, SentencePiece's dummy prefix included, no BOS.

        special: special tokens that the text spells become these.
        """
        encoded = text.encode("utf-8")
        ids = (ctypes.c_int32 * (len(encoded) + 8))()
        n_ids = _c.llama_tokenize(self.vocab_handle, encoded, len(encoded), ids, len(ids), False, special)
        if n_ids < 0:
            raise RunError(f"llama.cpp could not tokenize a text of {len(encoded)} bytes (status {n_ids})")
        return list(ids[:n_ids])

    def piece(self, token: int) -> bytes:
        """The bytes of one token, leading space included. A byte piece gives one, a special none."""
        buffer = ctypes.create_string_buffer(256)
        n_bytes = _c.llama_token_to_piece(self.vocab_handle, token, buffer, len(buffer), 0, False)
        if n_bytes < 0:
            buffer = ctypes.create_string_buffer(-n_bytes)
            n_bytes = _c.llama_token_to_piece(self.vocab_handle, token, buffer, len(buffer), 0, False)
        return buffer.raw[:n_bytes]

    def context(self, n_ctx: int, n_sequences: int, n_threads: int, kv_type: str = "f16") -> Context:
        """A fresh context. Raises RunError when it does not fit into memory."""
        narrow = self._on_cpu and self.hidden <= NARROW_HEAD * self.n_heads
        return Context(self._handle, n_ctx, n_sequences, n_threads, kv_type, flash=False if narrow else None)

    def adapter(self, path: Path) -> Adapter:
        """A LoRA of this model, freed with it. Raises BundleError."""
        if not path.is_file():
            raise BundleError(f"{path} is not there: copy the bundle again")
        return Adapter(self._handle, path)

    def close(self) -> None:
        """Free the weights. Twice does no harm."""
        handle, self._handle = self._handle, None
        if handle:
            _c.llama_model_free(handle)


class Adapter:
    """An opened LoRA adapter; the model that it belongs to owns its memory."""

    def __init__(self, model: Any, path: Path) -> None:
        silence()
        self.handle: Any = _c.llama_adapter_lora_init(model, os.fsencode(path))
        if not self.handle:
            raise BundleError(f"llama.cpp cannot read {path}{reason()}: copy the bundle again")

    @property
    def alpha(self) -> float:
        """LoRA's alpha as the file states it; llama.cpp itself multiplies by alpha / rank."""
        text = ctypes.create_string_buffer(64)
        size = _c.llama_adapter_meta_val_str(self.handle, b"adapter.lora.alpha", text, len(text))
        return float(text.value) if size > 0 else 0.0


class _Batch:
    """What one pass computes: memory for n rows that llama_batch points into, filled anew for every pass."""

    def __init__(self, n: int) -> None:
        self._ids = np.zeros(n, np.int32)
        self._positions = np.zeros(n, np.int32)
        self._sequences = np.zeros(n, np.int32)
        self._wanted = np.zeros(n, np.int8)
        self._constant = {
            "n_seq_id": np.ones(n, np.int32),
            "seq_id": self._sequences.ctypes.data + self._sequences.itemsize * np.arange(n, dtype=np.uintp),
        }
        arrays = {"pos": self._positions, "logits": self._wanted, **self._constant}
        rest = {name: _pointer(name, array) for name, array in arrays.items()}
        self._of_ids = _c.llama_batch(token=_pointer("token", self._ids), **rest)
        self._of_embeddings = _c.llama_batch(**rest)

    def ids(self, ids: Ints, positions: Ints, sequences: Ints, outputs: Ints) -> Any:
        """Rows of token ids; outputs: of which rows logits are wanted."""
        self._ids[: len(ids)] = ids
        return self._filled(self._of_ids, len(ids), positions, sequences, outputs)

    def embeddings(self, rows: Floats, positions: Ints, sequences: Ints) -> Any:
        """Rows [n, hidden], which must live until the pass is over."""
        self._of_embeddings.embd = _pointer("embd", rows)
        return self._filled(self._of_embeddings, len(rows), positions, sequences, ())

    def _filled(self, batch: Any, n: int, positions: Ints, sequences: Ints, outputs: Ints) -> Any:
        batch.n_tokens = n
        self._positions[:n] = positions
        self._sequences[:n] = sequences
        self._wanted[:n] = 0
        for row in outputs:
            self._wanted[row] = 1
        return batch


def _pointer(field: str, array: npt.NDArray[Any]) -> Any:
    return ctypes.cast(array.ctypes.data, _BATCH[field])


class Context:
    """A KV cache of n_ctx cells shared by n_sequences sequences, and what computes on it."""

    def __init__(
        self, model: Any, n_ctx: int, n_sequences: int, n_threads: int, kv_type: str, flash: bool | None = None
    ) -> None:
        """flash: one kernel for attention, whose sums are in f16; None: as llama.cpp chooses. The type may choose."""
        self._handle: Any = None
        silence()
        params = _c.llama_context_default_params()
        params.n_ctx = n_ctx
        params.n_seq_max = n_sequences
        params.kv_unified = True
        params.n_threads = params.n_threads_batch = n_threads
        params.type_k = params.type_v = _KV_TYPES[kv_type]
        if kv_type == "f32":  # flash attention rounds to f16 inside, whatever the cache holds
            flash = False
        elif kv_type != "f16":  # values in blocks are read by flash attention alone
            flash = True
        if flash is not None:
            kinds = _c.LLAMA_FLASH_ATTN_TYPE_DISABLED, _c.LLAMA_FLASH_ATTN_TYPE_ENABLED
            params.flash_attn_type = kinds[flash]
        self._handle = _c.llama_init_from_model(model, params)
        if not self._handle:
            raise RunError(f"no memory for a KV cache of {n_ctx} positions{reason()}: lower max_new_tokens or beams")
        self._memory = _c.llama_get_memory(self._handle)
        self._vocab: int = _c.llama_vocab_n_tokens(_c.llama_model_get_vocab(model))
        self.n_ctx: int = _c.llama_n_ctx(self._handle)
        self.n_sequences = n_sequences
        self._n_threads = n_threads
        self.n_batch: int = _c.llama_n_batch(self._handle)
        self._batch = _Batch(self.n_batch)
        self.before_pass: Callable[[], object] = lambda: None
        """Called before anything is computed; what it raises leaves the cache as it was."""

    def use_threads(self, n: int) -> None:
        """Compute with so many from the next pass on; each row's sums are the same with any number."""
        if n != self._n_threads:
            self._n_threads = n
            _c.llama_set_n_threads(self._handle, n, n)

    def set_adapter(self, adapter: Adapter, factor: float) -> None:
        """Add factor * alpha / rank * B A to the weights from now on. What the cache holds stays as it is."""
        handles = (_c.llama_adapter_lora_p_ctypes * 1)(adapter.handle)
        status = _c.llama_set_adapters_lora(self._handle, handles, 1, (ctypes.c_float * 1)(factor))
        if status != 0:
            raise RunError(f"llama.cpp refused the LoRA adapter (status {status}){reason()}")

    def decode_ids(self, ids: Ints, positions: Ints, sequences: Ints, outputs: Ints) -> Floats:
        """Compute at most n_batch token ids: logits [len(outputs), vocab] of the rows named in `outputs`."""
        self.before_pass()
        self._decode(self._batch.ids(ids, positions, sequences, outputs))
        logits = np.empty((len(outputs), self._vocab), np.float32)
        for row, output in zip(logits, outputs, strict=True):
            ctypes.memmove(row.ctypes.data, _c.llama_get_logits_ith(self._handle, output), row.nbytes)
        return logits

    def decode_embeddings(self, embeddings: Floats, positions: Ints, sequences: Ints) -> None:
        """Compute embeddings [n, hidden] in the place of tokens, at most n_batch."""
        self.before_pass()
        rows = np.ascontiguousarray(embeddings, np.float32)
        self._decode(self._batch.embeddings(rows, positions, sequences))

    def _decode(self, batch: Any) -> None:
        _complaints.clear()
        status = self._compute(batch)
        if status != 0:
            raise RunError(_decode_error(status, batch.n_tokens, self.n_ctx))

    def _compute(self, batch: Any) -> int:
        if self._n_threads == 1:
            return _c.llama_decode(self._handle, batch)
        return llm_thread.run(partial(_c.llama_decode, self._handle, batch))

    def copy(self, source: int, target: int) -> None:
        """Let sequence `target` share all that `source` holds. No memory is copied."""
        _c.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def drop(self, sequence: int, start: int = -1) -> None:
        """Forget the positions of a sequence from `start` on; all of them by default."""
        _c.llama_memory_seq_rm(self._memory, sequence, start, -1)

    def clear(self) -> None:
        """Forget everything."""
        _c.llama_memory_clear(self._memory, True)

    def close(self) -> None:
        """Free the cache. Twice does no harm."""
        handle, self._handle = self._handle, None
        if handle:
            _c.llama_free(handle)


def _decode_error(status: int, n_rows: int, n_ctx: int) -> str:
    if status == 1:
        return f"no room for {n_rows} more tokens in a KV cache of {n_ctx}: raise n_ctx, or lower beams"
    if status == 2:
        return "llama.cpp was interrupted while it computed: ask again"
    return f"llama.cpp failed to compute {n_rows} tokens (status {status}){reason()}: try --n-gpu-layers 0"
