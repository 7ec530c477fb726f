"""transcribe.cpp's file format for canary-qwen: random weights -> a file, and the library that reads it.

The language model's layers add nothing to what they read (their last matrices are zeros), so the token alone says which
comes next: the one whose embedding is likest to its own. Those of an answer's tokens and of the end token are made such
that each likes the next one best, so an answer has the length that was asked for, with all the work of saying it.
Source: handy-computer/transcribe.cpp scripts/convert-canary-qwen.py, src/arch/canary_qwen/weights.cpp.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models.audio import SAMPLE_RATE
from ...models.encoders.fastconformer import HOP_LENGTH, N_FFT, PRE_EMPHASIS, SUBSAMPLING, WIN_LENGTH, FastConformerSpec
from ...models.families.salm import AUDIO_TAG, SalmSpec
from ...models.llm import LlmSpec
from .task import SEED, Outcome, Work

_FAMILY = "canary_qwen"
MOST_TOKENS = 12  # of an answer: each embedding is longer than the one before, and float16 scales must hold the last
_BEGINS = 8.0  # of the answer's first embedding's first value; every ordinary one has 1 there
_LENGTH, _GROWTH = 40.0, 2.5
_FIRST_WORD = 100  # an ordinary token, and those behind it
_PLAIN = 0.01  # spread of all other values
Shapes = Iterator[tuple[str, tuple[int, ...]]]
Floats = NDArray[np.float32]


def write_canary(path: Path, spec: SalmSpec, quantization: str, n_tokens: int = 0) -> None:
    """Matrices of the encoder in Q8_0, of the language model as llama.cpp mixes `quantization`, convolutions in F16.

    n_tokens: of every answer, at most MOST_TOKENS.
    """
    import gguf

    from ...export.formats.gguf_writer import RawTensor, write_tensors
    from ...export.progress import no_report
    from ...export.synthetic.byte_vocabulary import synthetic_bytes
    from ...export.synthetic.families import hann, mel_bank
    from ...export.synthetic.random_weights import weight_pool

    vocabulary = synthetic_bytes(spec.llm.vocab)
    locator = vocabulary.pieces.index(f"[PAD{vocabulary.eos + 1}]")
    pieces = (*vocabulary.pieces[:locator], AUDIO_TAG, *vocabulary.pieces[locator + 1 :])
    writer = gguf.GGUFWriter(None, _FAMILY)
    replace(vocabulary, pieces=pieces).add_to(writer)
    _add_sizes(writer, spec, locator)
    rng = np.random.default_rng(SEED)
    pools: Any = cache(partial(weight_pool, rng=rng))
    own = {
        "frontend.mel_filterbank": mel_bank(spec.fastconformer.n_mels),
        "frontend.window": hann(),
    }
    tensors = [_given(RawTensor, gguf, name, values) for name, values in own.items()]
    for name, shape in (*_encoder(spec.fastconformer), *_decoder(spec.llm)):
        kind = _kind(gguf, name, shape, spec.llm, quantization)
        if name == "dec.token_embd.weight":
            answer_ids = (*range(_FIRST_WORD, _FIRST_WORD + n_tokens), vocabulary.eos)
            tensors.append(_embedding(RawTensor, gguf, shape, kind, answer_ids, rng))
        elif len(shape) == 1 or kind == gguf.GGMLQuantizationType.F32:
            ones = name.endswith((".running_var", "bn.weight")) or ("norm" in name and name.endswith("weight"))
            tensors.append(_given(RawTensor, gguf, name, np.full(shape, float(ones), np.float32)))
        elif name.endswith((".attn.o.weight", ".ffn.down.weight")):
            tensors.append(_zeros(RawTensor, gguf, name, shape, kind))
        else:
            n_blocks = int(np.prod(shape)) // gguf.GGML_QUANT_SIZES[kind][0]
            tensors.append(RawTensor(name, shape, kind, lambda k=kind, n=n_blocks: pools(k).take(n)))
    write_tensors(writer, path, tensors, "write", no_report)


def open_canary(path: Path, waveform: Floats, threads: int, encoder_alone: bool) -> Work:
    """A whole transcription, whose encoder the library times itself."""
    import transcribe_cpp  # pyright: ignore

    library: Any = transcribe_cpp
    session = library.Model(path, backend="cpu").session(n_threads=threads)

    def run() -> Outcome:
        result = session.run(waveform)
        if encoder_alone:
            return Outcome(seconds=result.timings.encode_ms / 1e3)
        return Outcome(shape=(len(result.text),))  # a letter for each token: without times it tells no tokens

    return Work(run)


def _add_sizes(writer: Any, spec: SalmSpec, locator: int) -> None:
    e, d = spec.fastconformer, spec.llm
    writer.add_string("stt.variant", "canary-qwen-2.5b")
    for name in ("lang_detect", "translate", "timestamps", "streaming"):
        writer.add_bool(f"stt.capability.{name}", False)
    numbers = {
        "stt.canary_qwen.encoder.n_layers": e.n_layers,
        "stt.canary_qwen.encoder.d_model": e.d_model,
        "stt.canary_qwen.encoder.n_heads": e.n_heads,
        "stt.canary_qwen.encoder.d_ff": e.d_ffn,
        "stt.canary_qwen.encoder.conv_kernel": e.conv_kernel,
        "stt.canary_qwen.encoder.subsampling_factor": SUBSAMPLING,
        "stt.canary_qwen.encoder.subsampling_channels": e.subsampling_channels,
        "stt.canary_qwen.encoder.pos_emb_max_len": 5000,
        "stt.canary_qwen.perception.output_dim": e.d_llm,
        "stt.canary_qwen.perception.audio_locator_id": locator,
        "stt.canary_qwen.decoder.n_layers": d.n_layers,
        "stt.canary_qwen.decoder.hidden_size": d.hidden,
        "stt.canary_qwen.decoder.intermediate_size": d.d_ffn,
        "stt.canary_qwen.decoder.n_heads": d.n_heads,
        "stt.canary_qwen.decoder.n_kv_heads": d.n_kv_heads,
        "stt.canary_qwen.decoder.head_dim": d.d_head,
        "stt.canary_qwen.decoder.max_position_embeddings": d.max_positions,
        "stt.canary_qwen.decoder.vocab_size": d.vocab,
        "stt.frontend.num_mels": e.n_mels,
        "stt.frontend.sample_rate": SAMPLE_RATE,
        "stt.frontend.n_fft": N_FFT,
        "stt.frontend.win_length": WIN_LENGTH,
        "stt.frontend.hop_length": HOP_LENGTH,
    }
    for name, number in numbers.items():
        writer.add_uint32(name, number)
    floats = {"pre_emphasis": PRE_EMPHASIS, "f_min": 0.0, "f_max": SAMPLE_RATE / 2, "dither": 0.0}
    for name, value in floats.items():
        writer.add_float32(f"stt.frontend.{name}", value)
    words = {"type": "mel", "window": "hann", "normalize": "per_feature", "pad_mode": "reflect", "mel_norm": "slaney"}
    for name, word in words.items():
        writer.add_string(f"stt.frontend.{name}", word)
    for name in ("center", "log"):
        writer.add_bool(f"stt.frontend.{name}", True)
    writer.add_float32("stt.canary_qwen.decoder.rms_norm_eps", d.rms_norm_eps)
    writer.add_float32("stt.canary_qwen.decoder.rope_theta", d.rope_theta)
    writer.add_bool("stt.canary_qwen.decoder.tie_word_embeddings", True)


def _encoder(spec: FastConformerSpec) -> Shapes:
    c, d, f, k = spec.subsampling_channels, spec.d_model, spec.d_ffn, spec.conv_kernel
    for at, shape in ((0, (c, 1, 3, 3)), (2, (c, 1, 3, 3)), (3, (c, c, 1, 1)), (5, (c, 1, 3, 3)), (6, (c, c, 1, 1))):
        yield f"enc.pre_encode.conv.{at}.weight", shape
        yield f"enc.pre_encode.conv.{at}.bias", (c,)
    yield "enc.pre_encode.out.weight", (d, c * (spec.n_mels // SUBSAMPLING))
    yield "enc.pre_encode.out.bias", (d,)
    with_bias = {
        **{f"ff{n}.linear1": (f, d) for n in (1, 2)},
        **{f"ff{n}.linear2": (d, f) for n in (1, 2)},
        **{f"attn.linear_{name}": (d, d) for name in ("q", "k", "v", "out")},
        "conv.pointwise1": (2 * d, d, 1),
        "conv.depthwise": (d, 1, k),
        "conv.pointwise2": (d, d, 1),
        **{f"norm_{name}": (d,) for name in ("ff1", "attn", "conv", "ff2", "out")},
        "conv.bn": (d,),
    }
    for layer in range(spec.n_layers):
        for name, shape in with_bias.items():
            yield f"enc.blocks.{layer}.{name}.weight", shape
            yield f"enc.blocks.{layer}.{name}.bias", shape[:1]
        yield f"enc.blocks.{layer}.attn.linear_pos.weight", (d, d)
        for name in ("u", "v"):
            yield f"enc.blocks.{layer}.attn.pos_bias_{name}", (spec.n_heads, d // spec.n_heads)
        for name in ("running_mean", "running_var"):
            yield f"enc.blocks.{layer}.conv.bn.{name}", (d,)
    yield "enc.proj.weight", (spec.d_llm, d)
    yield "enc.proj.bias", (spec.d_llm,)


def _decoder(spec: LlmSpec) -> Shapes:
    h, f = spec.hidden, spec.d_ffn
    yield "dec.token_embd.weight", (spec.vocab, h)
    yield "dec.output_norm.weight", (h,)
    shapes = {
        "norm_attn": (h,),
        "norm_ffn": (h,),
        "attn.q": (spec.d_q, h),
        "attn.k": (spec.d_kv, h),
        "attn.v": (spec.d_kv, h),
        "attn.o": (h, spec.d_q),
        "attn.q_norm": (spec.d_head,),
        "attn.k_norm": (spec.d_head,),
        "ffn.gate": (f, h),
        "ffn.up": (f, h),
        "ffn.down": (h, f),
    }
    for layer in range(spec.n_layers):
        for name, shape in shapes.items():
            yield f"dec.blocks.{layer}.{name}.weight", shape


_AS_LLAMA = {
    **{f"attn.{name}": f"attn_{name}" for name in ("q", "k", "v")},
    "attn.o": "attn_output",
    **{f"ffn.{name}": f"ffn_{name}" for name in ("gate", "up", "down")},
}


def _kind(gguf: Any, name: str, shape: tuple[int, ...], spec: LlmSpec, quantization: str) -> Any:
    """The type of a tensor: the one llama.cpp gives it where it has the same matrix."""
    from ...export.llm.tensor_types import tensor_type

    kinds = gguf.GGMLQuantizationType
    if name == "dec.token_embd.weight":
        return kinds.Q8_0 if quantization == "q8_0" else kinds.Q6_K
    if len(shape) == 1 or "pos_bias" in name:
        return kinds.F32
    if name.startswith("dec."):
        _, _, layer, *part = name.removesuffix(".weight").split(".")
        return tensor_type(f"blk.{layer}.{_AS_LLAMA['.'.join(part)]}.weight", spec.n_layers, quantization, spec.tied)
    return kinds.F16 if ".conv." in name else kinds.Q8_0


def _given(raw: Any, gguf: Any, name: str, values: Floats) -> Any:
    return raw(name, values.shape, gguf.GGMLQuantizationType.F32, lambda: [np.ascontiguousarray(values)])


def _zeros(raw: Any, gguf: Any, name: str, shape: tuple[int, ...], kind: Any) -> Any:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    n_bytes = int(np.prod(shape)) // block * size
    return raw(name, shape, kind, lambda: [np.zeros(n_bytes, np.uint8)])


def _embedding(
    raw: Any, gguf: Any, shape: tuple[int, ...], kind: Any, answer_ids: tuple[int, ...], rng: np.random.Generator
) -> Any:
    """A thousand rows, repeated; among them those of what is said, in its order, the end token last."""

    def rows(n: int) -> Floats:
        values = (rng.standard_normal((n, shape[1]), np.float32) * _PLAIN).astype(np.float32)
        values[:, 0] = 1.0
        values[:, 1 : 3 + MOST_TOKENS] = 0.0  # where the answer's lie
        return values

    def pieces() -> Iterator[NDArray[Any]]:
        size = 1024
        common = _quantized(gguf, rows(size), kind)
        own = _quantized(gguf, answer_rows(len(answer_ids), shape[1]), kind)
        for start in range(0, shape[0], size):
            piece = common[: shape[0] - start].copy()
            for token, row in zip(answer_ids, own, strict=True):
                if start <= token < start + len(piece):
                    piece[token - start] = row
            yield piece

    return raw("dec.token_embd.weight", shape, kind, pieces)


def answer_rows(n: int, width: int) -> Floats:
    """Embeddings [n, width] of which each is likest to the next: neighbours share an axis, and the next is longer."""
    values = np.zeros((n, width), np.float32)
    for at in range(n):
        values[at, 1 + at : 3 + at] = _LENGTH * _GROWTH**at
    values[0, 0] = _BEGINS
    return values


def _quantized(gguf: Any, values: Floats, kind: Any) -> NDArray[np.uint8]:
    """Rows as a file holds them, in Q8_0 or Q6_K: uint8 [n, bytes per row]."""
    if kind == gguf.GGMLQuantizationType.Q8_0:
        return gguf.quants.quantize(values, kind)
    return _q6_k(values)


def _q6_k(values: Floats) -> NDArray[np.uint8]:
    """w = d s (q - 32): s of 16 weights in 8 bits, q in 6 (ggml-common.h, block_q6_K)."""
    n, width = values.shape
    x = values.reshape(n, width // 256, 16, 16)
    steps = np.abs(x).max(axis=3) / 31
    d = np.maximum(steps.max(axis=2, keepdims=True) / 127, 1e-12)
    scales = np.clip(np.ceil(steps / d), 1, 127)
    levels = (np.clip(np.rint(x / (d * scales)[..., None]), -32, 31) + 32).astype(np.uint8)
    halves = levels.reshape(n, width // 256, 2, 4, 32)
    low = halves & 15
    high = halves >> 4
    ql = np.concatenate([low[..., 0, :] | low[..., 2, :] << 4, low[..., 1, :] | low[..., 3, :] << 4], axis=-1)
    qh = high[..., 0, :] | high[..., 1, :] << 2 | high[..., 2, :] << 4 | high[..., 3, :] << 6
    parts = [
        ql.reshape(n, -1, 128),
        qh.reshape(n, -1, 64),
        scales.astype(np.int8).view(np.uint8),
        d.astype("<f2").view(np.uint8).reshape(n, -1, 2),
    ]
    return np.concatenate(parts, axis=2).reshape(n, -1)
