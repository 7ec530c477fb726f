"""whisper.cpp's file format: weights, random or trained -> a file, and the two libraries that read it.

Source: ggml-org/whisper.cpp models/convert-pt-to-ggml.py and src/whisper.cpp (whisper_model_load).

    magic, hyperparameters | mel filters | vocabulary | tensors, each: dimensions, name, type, bytes
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ...models.encoders.whisper import N_FFT, WhisperSpec
from ...models.errors import RunError
from .task import Outcome, Work

_MAGIC = 0x67676D6C
_MOSTLY_Q8_0 = 2007  # version 2 of the quantization, file type 7
_F32, _F16, _Q8_0 = 0, 1, 8  # ggml's types
_VOCABULARY = 51_865  # what a multilingual Whisper has
_EOT = 50_257
_TEXT_POSITIONS = 448
_PRINTED = [*range(33, 127), *range(161, 173), *range(174, 256)]
"""Bytes that stand for themselves in GPT-2's pieces; the others are letters from 256 on, in order."""

_IN_LAYER = {
    "self_attn_layer_norm": "attn_ln",
    "self_attn.q_proj": "attn.query",
    "self_attn.k_proj": "attn.key",
    "self_attn.v_proj": "attn.value",
    "self_attn.out_proj": "attn.out",
    "final_layer_norm": "mlp_ln",
    "encoder_attn_layer_norm": "cross_attn_ln",
    "encoder_attn.q_proj": "cross_attn.query",
    "encoder_attn.k_proj": "cross_attn.key",
    "encoder_attn.v_proj": "cross_attn.value",
    "encoder_attn.out_proj": "cross_attn.out",
    "fc1": "mlp.0",
    "fc2": "mlp.2",
}
_TOP = {
    "encoder.conv1": "encoder.conv1",
    "encoder.conv2": "encoder.conv2",
    "encoder.layer_norm": "encoder.ln_post",
    "decoder.layer_norm": "decoder.ln",
    "decoder.embed_tokens": "decoder.token_embedding",
}
Array = NDArray[np.float32]


def write_ggml(path: Path, spec: WhisperSpec, state: Mapping[str, Any]) -> None:
    """The encoder of a transformers state dict in Q8_0, and a decoder of one layer that says nothing."""
    encoder = (_renamed(f"encoder.{name}", tensor.float().numpy()) for name, tensor in state.items())
    pieces = [f"w{n}".encode() for n in range(_EOT)]
    _write(path, spec, 1, _VOCABULARY, pieces, chain(encoder, _decoder_tensors(spec)))


def write_recognizer(path: Path, directory: Path) -> None:
    """A directory of faster-whisper's, its weights in Q8_0. Raises CheckpointError.

    Source: whisper.cpp models/convert-h5-to-ggml.py for what is written in which order.
    """
    from ...export.formats.byte_bpe import read_whisper_vocabulary
    from ...export.formats.ctranslate2 import CTranslate2Whisper

    weights = CTranslate2Whisper(directory)
    sizes = (weights.d_model, weights.n_layers, weights.n_heads, weights.d_ffn, weights.n_mels, weights.n_positions)
    n_rows = len(weights.get("model.decoder.embed_tokens.weight"))
    vocabulary = read_whisper_vocabulary(directory, n_rows)
    n_layers = sum(name.startswith("model.decoder.") and name.endswith(".fc1.weight") for name in weights.names())
    tensors = (_renamed(name.removeprefix("model."), weights.get(name).numpy()) for name in weights.names())
    pieces = [_bytes(piece) for piece in vocabulary.pieces[: vocabulary.eos]]
    _write(path, WhisperSpec(*sizes), n_layers, n_rows, pieces, tensors)


def _write(
    path: Path,
    spec: WhisperSpec,
    n_text_layers: int,
    n_rows: int,
    pieces: Sequence[bytes],
    tensors: Iterable[tuple[str, Array]],
) -> None:
    from ...models.encoders.whisper import mel_filters

    filters = mel_filters(spec.n_mels).T.astype("<f4")
    text = (_TEXT_POSITIONS, spec.d_model, spec.n_heads, n_text_layers)
    sizes = (n_rows, spec.n_positions, spec.d_model, spec.n_heads, spec.n_layers, *text, spec.n_mels)
    with path.open("wb") as file:
        file.write(struct.pack("<12i", _MAGIC, *sizes, _MOSTLY_Q8_0))
        file.write(struct.pack("<2i", *filters.shape) + filters.tobytes())
        file.write(struct.pack("<i", len(pieces)) + b"".join(struct.pack("<i", len(each)) + each for each in pieces))
        for name, values in tensors:
            _write_tensor(file, name, values)
    assert filters.shape[1] == N_FFT // 2 + 1


def _bytes(piece: str) -> bytes:
    """A piece of a byte-level vocabulary, which is written in letters for bytes."""
    return bytes(_LETTERS[letter] for letter in piece)


_LETTERS = {chr(byte): byte for byte in _PRINTED} | {
    chr(256 + n): byte for n, byte in enumerate(byte for byte in range(256) if byte not in _PRINTED)
}


def _renamed(name: str, values: Array) -> tuple[str, Array]:
    """transformers' `encoder.layers.0.fc1.weight` as whisper.cpp calls it; a convolution's bias is a column."""
    stem, kind = name.rsplit(".", 1)
    half, rest = stem.split(".", 1)
    if rest.startswith("layers."):
        _, layer, part = rest.split(".", 2)
        return f"{half}.blocks.{layer}.{_IN_LAYER[part]}.{kind}", values
    if rest == "embed_positions":
        return f"{half}.positional_embedding", values
    conv_bias = rest.startswith("conv") and kind == "bias"
    return f"{_TOP[stem]}.{kind}", values[:, np.newaxis] if conv_bias else values


def _decoder_tensors(spec: WhisperSpec) -> Iterator[tuple[str, Array]]:
    """Its last norm is a constant that the end-of-text token likes best: the answer is empty."""
    d = spec.d_model
    table = np.full((_VOCABULARY, d), -1.0 / d, np.float32)
    table[_EOT] = 20.0 / d
    yield "decoder.positional_embedding", np.zeros((_TEXT_POSITIONS, d), np.float32)
    yield "decoder.token_embedding.weight", table
    yield "decoder.ln.weight", np.zeros(d, np.float32)
    yield "decoder.ln.bias", np.ones(d, np.float32)
    for norm in ("attn_ln", "cross_attn_ln", "mlp_ln"):
        yield f"decoder.blocks.0.{norm}.weight", np.ones(d, np.float32)
        yield f"decoder.blocks.0.{norm}.bias", np.zeros(d, np.float32)
    shapes = {f"{attn}.{part}": (d, d) for attn in ("attn", "cross_attn") for part in ("query", "key", "value", "out")}
    for part, shape in {**shapes, "mlp.0": (4 * d, d), "mlp.2": (d, 4 * d)}.items():
        yield f"decoder.blocks.0.{part}.weight", np.zeros(shape, np.float32)
        if not part.endswith("key"):
            yield f"decoder.blocks.0.{part}.bias", np.zeros(shape[0], np.float32)


def _write_tensor(file: BinaryIO, name: str, values: Array) -> None:
    kind = _type_of(name, values)
    dimensions = values.shape[::-1]
    encoded = name.encode()
    file.write(struct.pack(f"<{3 + len(dimensions)}i", len(dimensions), len(encoded), kind, *dimensions) + encoded)
    file.write({_F32: _float32, _F16: _float16, _Q8_0: q8_0}[kind](values))


def _type_of(name: str, values: Array) -> int:
    if values.ndim == 3:
        return _F16
    return _Q8_0 if values.ndim == 2 and name.endswith(".weight") and "positional" not in name else _F32


def _float32(values: Array) -> bytes:
    return values.astype("<f4").tobytes()


def _float16(values: Array) -> bytes:
    return values.astype("<f2").tobytes()


def q8_0(values: Array) -> bytes:
    """Blocks of 32: a float16 scale and 32 int8, as ggml's quantize_row_q8_0 makes them."""
    blocks = values.reshape(-1, 32)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / 127.0
    inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
    packed = np.empty(len(blocks), np.dtype([("scale", "<f2"), ("values", "i1", 32)]))
    packed["scale"] = scale[:, 0]
    packed["values"] = np.rint(blocks * inverse)
    return packed.tobytes()


def open_pywhispercpp(path: Path, waveform: Array, threads: int) -> Work:
    """whisper.cpp's own whisper_encode; the features are computed once, before."""
    import _pywhispercpp  # pyright: ignore

    library: Any = _pywhispercpp
    context = library.whisper_init_from_file_with_params(str(path), library.whisper_context_default_params())
    if context is None or library.whisper_pcm_to_mel(context, waveform, len(waveform), threads) != 0:
        raise RunError(f"whisper.cpp cannot read {path}: delete it, so that it is written again")

    def run() -> Outcome:
        if library.whisper_encode(context, 0, threads) != 0:
            raise RunError("whisper.cpp failed to encode")
        return Outcome((library.whisper_model_n_audio_ctx(context), library.whisper_model_n_audio_state(context)))

    return Work(run)


def open_transcribe_cpp(path: Path, waveform: Array, threads: int) -> Work:
    """A whole transcription, whose encoder the library times itself; the decoder stops at once."""
    import transcribe_cpp  # pyright: ignore

    library: Any = transcribe_cpp
    model = library.Model(path, backend="cpu")
    session = model.session(n_threads=threads)

    def run() -> Outcome:
        result = session.run(waveform, language="en")
        return Outcome(seconds=result.timings.encode_ms / 1e3)

    return Work(run)
