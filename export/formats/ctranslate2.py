"""CTranslate2's Whisper (`model.bin`, as faster-whisper keeps it): one file in, tensors under Hugging Face names out.

    u32 version | str spec | u32 revision | u32 n_variables
    per variable: str name | u8 rank | u32 dims[rank] | u8 dtype | u32 n_bytes | bytes
    u32 n_aliases | per alias: str alias | str name            str: u16 length with its final zero, bytes

All little endian. A weight in int8 or int16 has its scale beside it, `NAME_scale`: one for each row, or one for all;
the number meant is the stored one divided by it. Source: CTranslate2 src/models/model.cc, version 6.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...models.errors import CheckpointError
from ...models.git_lfs import refuse_pointer
from .checkpoint import require

FILE = "model.bin"
VERSION, SPEC = 6, "WhisperSpec"
_DTYPES = {
    0: torch.float32,
    1: torch.int8,
    2: torch.int16,
    3: torch.int32,
    4: torch.float16,
    5: torch.bfloat16,
}
_INTEGERS = (torch.int8, torch.int16)
_MAX_RANK = 8
_SCALE = "_scale"
_REMEDY = "copy it again, or give the Hugging Face directory"


@dataclass(frozen=True)
class _Variable:
    """Where one tensor lies in the file."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    offset: int
    n_bytes: int


class CTranslate2Whisper:
    """A faster-whisper directory as a Hugging Face checkpoint: `model.encoder.…` and `model.decoder.…`, float tensors.

    Exact to the stored numbers. Raises CheckpointError for a file that is cut short, of another version or model.
    """

    def __init__(self, directory: Path) -> None:
        self.source = directory / FILE
        self.files = [self.source]
        refuse_pointer(self.source, CheckpointError)
        try:
            self._bytes = np.memmap(self.source, np.uint8, "r")
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self.source} cannot be read ({error}): {_REMEDY}") from None
        self._variables = _Header(self._bytes, self.source).variables()
        require(self._variables, ("encoder/conv1/weight", "encoder/num_heads"), "CTranslate2 Whisper", self.source)
        self.d_model, self.n_mels = self._variables["encoder/conv1/weight"].shape[:2]
        self.n_heads = int(self._tensor("encoder/num_heads"))
        self._names = _hugging_face_names(self._variables)

    @property
    def n_layers(self) -> int:
        """Encoder layers."""
        return sum(name.startswith("model.encoder.") and name.endswith(".fc1.weight") for name in self._names)

    @property
    def d_ffn(self) -> int:
        """Width of the encoder's feed-forward layers."""
        return self._variables["encoder/layer_0/ffn/linear_0/weight"].shape[0]

    @property
    def n_positions(self) -> int:
        """Encoder frames of its window."""
        return self._variables["encoder/position_encodings/encodings"].shape[0]

    @property
    def quantized(self) -> str | None:
        """'int8' or 'int16' where weights are stored so, else None."""
        kinds = {variable.dtype for variable in self._variables.values() if len(variable.shape) > 1}
        return next((str(kind).removeprefix("torch.") for kind in _INTEGERS if kind in kinds), None)

    def names(self) -> list[str]:
        """Hugging Face names of all tensors, the decoder's included."""
        return list(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def require(self, names: Iterable[str], what: str) -> None:
        """Raises CheckpointError with the list of those that are missing."""
        require(self._names, names, what, self.source)

    def get(self, name: str) -> Tensor:
        """One tensor in float32, dequantized where it is stored in integers."""
        stored, part = self._names[name]
        tensor = self._float(stored)
        if part is None:
            return tensor
        parts = tensor.split(self.d_model)  # query, key and value, or key and value, one below the other
        if name.endswith("v_proj.bias") and bool(parts[part - 1].any()):
            raise CheckpointError(f"{self.source} has a key bias in {stored}, which no Whisper has: {_REMEDY}")
        return parts[part]

    def close(self) -> None:
        """Nothing stays open but the map of the file."""

    def _float(self, stored: str) -> Tensor:
        tensor = self._tensor(stored)
        if tensor.dtype not in _INTEGERS:
            return tensor.to(torch.float32)
        scale = self._tensor(stored + _SCALE).to(torch.float32)
        return tensor.to(torch.float32) / scale.reshape(-1, *[1] * (tensor.ndim - 1))

    def _tensor(self, stored: str) -> Tensor:
        require(self._variables, (stored,), "CTranslate2 Whisper", self.source)
        variable = self._variables[stored]
        data = bytearray(self._bytes[variable.offset : variable.offset + variable.n_bytes].tobytes())
        return torch.frombuffer(data, dtype=variable.dtype).reshape(variable.shape)


class _Header:
    """A cursor over the file's header; every length is checked before it is believed."""

    def __init__(self, data: np.memmap, path: Path) -> None:
        self._data = data
        self._path = path
        self._at = 0

    def variables(self) -> dict[str, _Variable]:
        version = self._number("I")
        spec = self._text() if version == VERSION else ""
        if version != VERSION or spec != SPEC:
            found = f"version {version}" if version != VERSION else repr(spec)
            raise CheckpointError(
                f"{self._path} is no Whisper of CTranslate2's version {VERSION} (found {found}): convert it again with "
                "CTranslate2 4, or give the Hugging Face directory"
            )
        self._number("I")  # the revision of the spec
        found = dict(self._variable() for _ in range(self._number("I")))
        for _ in range(self._number("I")):
            alias, name = self._text(), self._text()
            if name in found:
                found[alias] = found[name]
        return found

    def _variable(self) -> tuple[str, _Variable]:
        name, rank = self._text(), self._number("B")
        if rank > _MAX_RANK:
            raise self._damaged(f"{name!r} has {rank} dimensions")
        shape = tuple(self._number("I") for _ in range(rank))
        kind, n_bytes = self._number("B"), self._number("I")
        dtype = _DTYPES.get(kind)
        if dtype is None:
            raise self._damaged(f"{name!r} has the unknown type {kind}")
        if n_bytes != math.prod(shape) * dtype.itemsize:
            raise self._damaged(f"{name!r} says {n_bytes} bytes where {list(shape)} of {dtype} needs another number")
        return name, _Variable(shape, dtype, self._skip(n_bytes), n_bytes)

    def _number(self, kind: str) -> int:
        size = struct.calcsize(kind)
        start = self._skip(size)
        return int(struct.unpack(f"<{kind}", self._data[start : start + size].tobytes())[0])

    def _text(self) -> str:
        length = self._number("H")
        start = self._skip(length)
        return self._data[start : start + max(length - 1, 0)].tobytes().decode(errors="replace")

    def _skip(self, n_bytes: int) -> int:
        start = self._at
        if start + n_bytes > len(self._data):
            raise self._damaged(f"it is cut short after {len(self._data)} bytes")
        self._at = start + n_bytes
        return start

    def _damaged(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self._path} is damaged: {what}; {_REMEDY}")


def is_ctranslate2(directory: Path) -> bool:
    """Whether a directory holds CTranslate2's file and no Hugging Face checkpoint."""
    others = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json", "pytorch_model.bin.index.json")
    return (directory / FILE).is_file() and not any((directory / name).exists() for name in others)


def _hugging_face_names(variables: Iterable[str]) -> dict[str, tuple[str, int | None]]:
    """Hugging Face name -> (name in the file, which of the stacked query, key and value)."""
    found: dict[str, tuple[str, int | None]] = {
        "model.decoder.embed_tokens.weight": ("decoder/embeddings/weight", None)
    }
    for conv in ("conv1", "conv2"):
        found |= _linear(f"model.encoder.{conv}", f"encoder/{conv}")
    stacks = {tuple(name.split("/")[:2]) for name in variables if "/layer_" in name}
    for half in ("encoder", "decoder"):
        found[f"model.{half}.embed_positions.weight"] = (f"{half}/position_encodings/encodings", None)
        found |= _norm(f"model.{half}.layer_norm", f"{half}/layer_norm")
        n_layers = len({layer for side, layer in stacks if side == half and layer != "layer_norm"})
        for layer in range(n_layers):
            found |= _layer(f"model.{half}.layers.{layer}", f"{half}/layer_{layer}", with_cross=half == "decoder")
    return found


def _layer(ours: str, theirs: str, *, with_cross: bool) -> dict[str, tuple[str, int | None]]:
    found: dict[str, tuple[str, int | None]] = {}
    for part, projection in enumerate(("q_proj", "k_proj", "v_proj")):
        found |= _linear(f"{ours}.self_attn.{projection}", f"{theirs}/self_attention/linear_0", part)
    found |= _linear(f"{ours}.self_attn.out_proj", f"{theirs}/self_attention/linear_1")
    found |= _norm(f"{ours}.self_attn_layer_norm", f"{theirs}/self_attention/layer_norm")
    if with_cross:
        found |= _linear(f"{ours}.encoder_attn.q_proj", f"{theirs}/attention/linear_0")
        for part, projection in enumerate(("k_proj", "v_proj")):
            found |= _linear(f"{ours}.encoder_attn.{projection}", f"{theirs}/attention/linear_1", part)
        found |= _linear(f"{ours}.encoder_attn.out_proj", f"{theirs}/attention/linear_2")
        found |= _norm(f"{ours}.encoder_attn_layer_norm", f"{theirs}/attention/layer_norm")
    found |= _linear(f"{ours}.fc1", f"{theirs}/ffn/linear_0")
    found |= _linear(f"{ours}.fc2", f"{theirs}/ffn/linear_1")
    found |= _norm(f"{ours}.final_layer_norm", f"{theirs}/ffn/layer_norm")
    return {name: place for name, place in found.items() if not name.endswith("k_proj.bias")}


def _linear(ours: str, theirs: str, part: int | None = None) -> dict[str, tuple[str, int | None]]:
    return {f"{ours}.{kind}": (f"{theirs}/{kind}", part) for kind in ("weight", "bias")}


def _norm(ours: str, theirs: str) -> dict[str, tuple[str, int | None]]:
    return {f"{ours}.weight": (f"{theirs}/gamma", None), f"{ours}.bias": (f"{theirs}/beta", None)}
