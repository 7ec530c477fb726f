"""A language model's GGUF file -> what its header says, and its tensors: dequantized, or byte for byte."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

from ...models.errors import CheckpointError
from ...models.llm import LlmSpec
from .checkpoint import Weights
from .gguf_writer import RawTensor, halved_rows
from .tensor_names import gguf_name, layer_part, rotary_heads, shapes

_MAGIC = b"GGUF"
_KIND_OF = {"ALL_F32": "f32", "MOSTLY_F16": "f16"}


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of the file. shape: rows first, as torch writes it."""

    shape: tuple[int, ...]
    kind: gguf.GGMLQuantizationType
    offset: int
    n_bytes: int


@dataclass(frozen=True)
class GgufFile:
    """An opened file: its header is in memory, its tensors are not."""

    path: Path
    header: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]

    @property
    def file_type(self) -> int | None:
        """llama.cpp's llama_ftype, where the header has one that it is sure of."""
        found = self.header.get("general.file_type")
        return found if isinstance(found, int) and found < gguf.LlamaFileType.GUESSED else None

    @cached_property
    def type_name(self) -> str:
        """As LLM_TYPES writes it: q4_k_m; of a file that does not say, the type of most of its weights."""
        try:
            named = None if self.file_type is None else gguf.LlamaFileType(self.file_type).name
        except ValueError:
            named = None
        if named is not None:
            return _KIND_OF.get(named, named.removeprefix("MOSTLY_").lower())
        weights: Counter[str] = Counter()
        for tensor in self.tensors.values():
            weights[tensor.kind.name] += int(np.prod(tensor.shape))
        return weights.most_common(1)[0][0].lower()

    @property
    def n_bytes(self) -> int:
        """Of all tensors."""
        return sum(tensor.n_bytes for tensor in self.tensors.values())

    def raw(self, name: str) -> RawTensor:
        """A tensor by GGUF's name, to be written as it is."""
        tensor = self.tensors[name]
        return RawTensor(name, tensor.shape, tensor.kind, lambda: [self._bytes(tensor)])

    def dequantized(self, name: str) -> torch.Tensor:
        """A tensor by GGUF's name in float32: the exact values that its blocks stand for. Raises CheckpointError."""
        tensor = self.tensors[name]
        try:
            values = gguf.dequantize(self._bytes(tensor), tensor.kind)
        except NotImplementedError:
            raise CheckpointError(
                f"{self.path}: {name} is {tensor.kind.name}, which can be kept and not dequantized: "
                "give --llm keep --lora adapter, or a base of another type"
            ) from None
        return torch.from_numpy(np.array(values, np.float32).reshape(tensor.shape))

    def _bytes(self, tensor: StoredTensor) -> np.ndarray:
        """uint8 [rows, bytes of a row], or [bytes] of a vector; mapped, not read."""
        rows = tensor.shape[:-1]
        return np.memmap(
            self.path, np.uint8, "r", tensor.offset, (*rows, tensor.n_bytes // int(np.prod(rows, dtype=np.int64)))
        )


def is_gguf(path: Path) -> bool:
    """Whether this is a file that begins as GGUF files do, or is named like one."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return path.suffix == ".gguf" or file.read(len(_MAGIC)) == _MAGIC


def open_gguf(path: Path) -> GgufFile:
    """Reads the header. Raises CheckpointError for a damaged or cut file, or one part of several."""
    try:
        reader: Any = gguf.GGUFReader(path)
        header = {name: field.contents() for name, field in reader.fields.items()}
        tensors = {
            tensor.name: StoredTensor(
                tuple(int(n) for n in reversed(tensor.shape)),
                tensor.tensor_type,
                int(tensor.data_offset),
                int(tensor.n_bytes),
            )
            for tensor in reader.tensors
        }
    except Exception as error:  # a damaged header fails in a dozen ways
        raise CheckpointError(
            f"{path} cannot be read as a GGUF file ({_reason(error)}): it is cut or damaged, download it again"
        ) from error
    if (n := header.get("split.count", 0)) not in (0, 1):
        raise CheckpointError(
            f"{path} is one of {n} parts: join them with llama-gguf-split --merge, and give that file"
        )
    size = path.stat().st_size
    if any(tensor.offset + tensor.n_bytes > size for tensor in tensors.values()):
        raise CheckpointError(f"{path} is cut: its header names more tensors than its {size:,} bytes hold")
    return GgufFile(path, header, tensors)


class GgufWeights(Weights):
    """The tensors of a GGUF file by Hugging Face's names and in their order of rows, dequantized to float32.

    Raises CheckpointError for tensors that are missing, and for those that no LLaMA of this spec has.
    """

    def __init__(self, file: GgufFile, spec: LlmSpec, beside: tuple[str, ...] = ()) -> None:
        self.source = file.path
        self.files = [file.path]
        self._file = file
        self._spec = spec
        self._opened = None
        names = {name: gguf_name(name) for name in shapes(spec)}
        strange = [name for name in file.tensors if name not in {*names.values(), *beside}]
        if strange:
            raise CheckpointError(f"{file.path} holds {', '.join(strange[:3])}, which no LLaMA of its sizes has")
        self._stored = {name: (file.path, stored) for name, stored in names.items() if stored in file.tensors}
        self._shapes = {name: file.tensors[stored].shape for name, (_, stored) in self._stored.items()}

    def get(self, name: str) -> torch.Tensor:
        """One tensor in float32."""
        weight = self._file.dequantized(self._stored[name][1])
        place = layer_part(name)
        heads = rotary_heads(self._spec, place[1].split(".")[-1]) if place else 0
        return torch.from_numpy(halved_rows(weight.numpy(), heads)) if heads else weight


def _reason(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
