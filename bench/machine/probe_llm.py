"""Language-model probe: a few layers of a model's shape and types -> seconds of prefill and decoding in llama.cpp.

The layers are a GGUF file of zeros, which takes no space on a disk that keeps holes: what the weights are does not
change how long they take to read and to multiply.
"""

from __future__ import annotations

import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from ...models.errors import RunError
from ...models.llm import LLM_TYPES, LlmSpec
from ...runtime.llm.llama import Context, Model, worth_repacking
from .. import flops
from .timing import repeat

PROBE_BYTES = 300_000_000  # of layers: many times the caches
N_TOKENS = 12  # that are decoded

_F32 = (0, 1, 4)
_Q5_K = (13, 256, 176)
_Q6_K = (14, 256, 210)
_KINDS = {
    0: _F32,
    1: (1, 1, 2),
    2: (2, 32, 18),
    3: (3, 32, 20),
    7: (8, 32, 34),
    12: (11, 256, 110),
    15: (12, 256, 144),
    17: _Q5_K,
    18: _Q6_K,
    30: (23, 256, 136),
}
"""llama_ftype -> ggml's type of most matrices, its weights per block, bytes per block."""
_FINER = {12: _Q5_K, 15: _Q6_K, 17: _Q6_K}
"""Every second layer's attn_v and ffn_down, which is about their share in real files."""
_ALIGNMENT = 32
_U32, _I32, _F32_VALUE, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9  # types of GGUF's metadata


@dataclass(frozen=True)
class LlmRates:
    """What one quantization reaches on one device."""

    decode_gb_s: float
    prefill_gflops: float
    draft_gflops: float
    """Of a prefill with a draft behind it."""


def rates(
    spec: LlmSpec,
    quantization: str,
    threads: int,
    n_gpu_layers: int,
    question: tuple[int, int, int],
    n_draft: int,
    tick: Callable[[], None],
) -> LlmRates:
    """Probe one quantization. question: positions of the prefix, audio tokens, the prompt's end. Raises RunError."""
    small = replace(spec, n_layers=n_layers_for(spec, quantization))
    with tempfile.TemporaryDirectory(prefix="auricle-probe-") as folder:
        path = Path(folder) / "probe.gguf"
        write_zeros(path, small, quantization)
        model = Model(path, n_gpu_layers, repack=worth_repacking(quantization))
        try:
            n_ctx = max(256, sum(question) + n_draft + N_TOKENS + 8)
            context = model.context(n_ctx, 1, threads)
            try:
                found = _timed(context, small, quantization, question, n_draft)
            finally:
                context.close()
        finally:
            model.close()
    tick()
    return found


def n_layers_for(spec: LlmSpec, quantization: str) -> int:
    """As many layers as fit into PROBE_BYTES, two at least if they are mixed."""
    layer = replace(spec, n_layers=1, vocab=0).weight_bytes(quantization)
    return max(1, min(spec.n_layers, PROBE_BYTES // layer // 2 * 2))


def _timed(
    context: Context, spec: LlmSpec, quantization: str, question: tuple[int, int, int], n_draft: int
) -> LlmRates:
    n_prefix, n_audio, n_suffix = question
    audio = np.zeros((n_audio, spec.hidden), np.float32)
    context.decode_ids([3] * n_prefix, range(n_prefix), [0] * n_prefix, [n_prefix - 1])

    def ask(n_more: int) -> None:
        context.drop(0, n_prefix)
        start = n_prefix + n_audio
        context.decode_embeddings(audio, range(n_prefix, start), [0] * n_audio)
        n = n_suffix + n_more
        outputs = range(n_suffix - 1, n)
        logits = context.decode_ids([3] * n, range(start, start + n), [0] * n, outputs)
        if logits.shape != (n_more + 1, spec.vocab) or not np.isfinite(logits).all():
            raise RunError("llama.cpp computed nothing that could be timed: the probe's result is not whole")

    drafted = median(repeat(lambda: ask(n_draft), 3).wall_s)
    asked = median(repeat(lambda: ask(0), 3).wall_s)
    tokens: list[float] = []
    for n_past in range(sum(question), sum(question) + N_TOKENS):
        start = time.perf_counter()
        context.decode_ids([3], [n_past], [0], [0])
        tokens.append(time.perf_counter() - start)
    with_draft = flops.prefill(spec, quantization, *question, n_draft)
    return LlmRates(
        flops.decode(spec, quantization, sum(question)).bytes / median(tokens) / 1e9,
        flops.prefill(spec, quantization, *question).flop / asked / 1e9,
        with_draft.flop / drafted / 1e9,
    )


def write_zeros(path: Path, spec: LlmSpec, quantization: str) -> None:
    """A GGUF file of these sizes whose weights are a hole."""
    ftype = LLM_TYPES[quantization].ftype
    infos = bytearray()
    offset = 0
    tensors = list(_tensors(spec, ftype))
    for name, shape, (kind, per_block, n_bytes) in tensors:
        infos += _text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        infos += struct.pack("<IQ", kind, offset)
        size = int(np.prod(shape)) // per_block * n_bytes
        offset += -(-size // _ALIGNMENT) * _ALIGNMENT
    values = list(_metadata(spec, ftype))
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values)) + b"".join(values) + infos
    start = -(-len(head) // _ALIGNMENT) * _ALIGNMENT
    try:
        with path.open("wb") as file:
            file.write(head)
            file.truncate(start + offset)
    except OSError as error:
        raise RunError(f"the probe cannot be written to {path.parent} ({error.strerror}): set TMPDIR") from None


Kind = tuple[int, int, int]


def _tensors(spec: LlmSpec, ftype: int) -> Iterator[tuple[str, tuple[int, ...], Kind]]:
    """Names, shapes (innermost first) and types."""
    h = spec.hidden
    q = spec.d_q
    kv = spec.d_kv
    ffn = spec.d_ffn
    base = _KINDS[ftype]
    head = base if ftype in (0, 1, 7) else _Q6_K
    yield "token_embd.weight", (h, spec.vocab), head if spec.tied else base
    for layer in range(spec.n_layers):
        fine = _FINER.get(ftype, base) if layer % 2 == 0 else base
        matrices = {
            "attn_q": ((h, q), base),
            "attn_k": ((h, kv), base),
            "attn_v": ((h, kv), fine),
            "attn_output": ((q, h), base),
            "ffn_gate": ((h, ffn), base),
            "ffn_up": ((h, ffn), base),
            "ffn_down": ((ffn, h), fine),
        }
        for name, (shape, kind) in matrices.items():
            yield f"blk.{layer}.{name}.weight", shape, kind
        yield f"blk.{layer}.attn_norm.weight", (h,), _F32
        yield f"blk.{layer}.ffn_norm.weight", (h,), _F32
        if spec.architecture == "qwen3":
            yield f"blk.{layer}.attn_q_norm.weight", (spec.d_head,), _F32
            yield f"blk.{layer}.attn_k_norm.weight", (spec.d_head,), _F32
    yield "output_norm.weight", (h,), _F32
    if not spec.tied:
        yield "output.weight", (h, spec.vocab), head


def _metadata(spec: LlmSpec, ftype: int) -> Iterator[bytes]:
    def integer(name: str, value: int) -> bytes:
        return _text(name) + struct.pack("<II", _U32, value)

    name = spec.architecture
    yield _text("general.architecture") + struct.pack("<I", _STRING) + _text(name)
    yield integer("general.file_type", ftype)
    yield integer(f"{name}.vocab_size", spec.vocab)
    yield integer(f"{name}.context_length", spec.max_positions)
    yield integer(f"{name}.embedding_length", spec.hidden)
    yield integer(f"{name}.block_count", spec.n_layers)
    yield integer(f"{name}.feed_forward_length", spec.d_ffn)
    yield integer(f"{name}.attention.head_count", spec.n_heads)
    yield integer(f"{name}.attention.head_count_kv", spec.n_kv_heads)
    yield integer(f"{name}.attention.key_length", spec.d_head)
    yield integer(f"{name}.attention.value_length", spec.d_head)
    yield integer(f"{name}.rope.dimension_count", spec.d_head)
    epsilon = struct.pack("<If", _F32_VALUE, spec.rms_norm_eps)
    yield _text(f"{name}.attention.layer_norm_rms_epsilon") + epsilon
    yield _text("tokenizer.ggml.model") + struct.pack("<I", _STRING) + _text("llama")
    pieces = b"".join(_text(piece) for piece in ("<unk>", "<s>", "</s>", *(f"t{n}" for n in range(3, spec.vocab))))
    yield _text("tokenizer.ggml.tokens") + struct.pack("<IIQ", _ARRAY, _STRING, spec.vocab) + pieces
    scores = np.zeros(spec.vocab, np.float32).tobytes()
    yield _text("tokenizer.ggml.scores") + struct.pack("<IIQ", _ARRAY, _F32_VALUE, spec.vocab) + scores
    types = np.array([2, 3, 3, *[1] * (spec.vocab - 3)], np.int32).tobytes()
    yield _text("tokenizer.ggml.token_type") + struct.pack("<IIQ", _ARRAY, _I32, spec.vocab) + types


def _text(value: str) -> bytes:
    encoded = value.encode("utf-8")
    return struct.pack("<Q", len(encoded)) + encoded
