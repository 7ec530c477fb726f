"""llama.cpp's importance matrix: a file <-> how strongly each input of each linear is driven.

    general.type = imatrix, imatrix.datasets, imatrix.chunk_count, imatrix.chunk_size
    NAME.in_sum2  float32 [1, n_in]     sum over all positions of the squares of what the linear NAME reads
    NAME.counts   float32 [1, 1]        how many positions

The binary file of older tools is read too. Source: llama.cpp tools/imatrix/imatrix.cpp.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import gguf
import numpy as np
from numpy.typing import NDArray

from ...models.errors import InputError
from ...models.git_lfs import refuse_pointer
from ...models.llm import LlmSpec
from ..progress import no_report
from .gguf_writer import Tensor, write_tensors
from .tensor_names import EMBEDDING, HEAD, gguf_name, shapes

SUMS, COUNTS = ".in_sum2", ".counts"
_REMEDY = "give one that was made of this model, or --imatrix auto"
_MAX_NAME = 1 << 10  # bytes; more means that the older binary file is something else


@dataclass(frozen=True)
class Importance:
    """By GGUF name of the linear's weight."""

    sums: Mapping[str, NDArray[np.float32]]
    """[n_in]: squares of its inputs, over all positions."""
    counts: Mapping[str, int]
    """Positions; in the older binary file chunks, and sums to go with them."""
    datasets: tuple[str, ...]
    """What was heard or read meanwhile."""
    n_chunks: int
    chunk_size: int
    """Positions of one chunk; 0 where the file does not say."""

    def means(self) -> dict[str, NDArray[np.float32]]:
        """What the quantizer weighs each column's error by."""
        return {name: (sums / np.float32(self.counts[name])).astype(np.float32) for name, sums in self.sums.items()}


class _Writer(gguf.GGUFWriter):
    """A GGUF file of no architecture."""

    def add_architecture(self) -> None:
        """An importance matrix has none."""


def write_imatrix(path: Path, importance: Importance) -> None:
    """Write the file that llama-quantize --imatrix reads. Raises InputError when the disk is full."""
    writer = _Writer(None, "")
    writer.add_type(gguf.GGUFType.IMATRIX)
    writer.add_array(gguf.Keys.IMatrix.DATASETS, list(importance.datasets))
    writer.add_uint32(gguf.Keys.IMatrix.CHUNK_COUNT, importance.n_chunks)
    writer.add_uint32(gguf.Keys.IMatrix.CHUNK_SIZE, importance.chunk_size)
    tensors: list[Tensor] = []
    for name in sorted(importance.sums):
        kept = {SUMS: importance.sums[name], COUNTS: np.array([importance.counts[name]], np.float32)}
        for suffix, values in kept.items():
            row = values.reshape(1, -1)
            tensors.append(Tensor(name + suffix, row.shape, np.float32, lambda row=row: row))
    write_tensors(writer, path, tensors, "write imatrix", no_report)


def read_imatrix(path: Path) -> Importance:
    """A file of this module, of llama-imatrix, or of an older one. Raises InputError."""
    refuse_pointer(path, InputError)
    try:
        with path.open("rb") as file:
            is_gguf = file.read(4) == b"GGUF"
            file.seek(0)
            found = None if is_gguf else _read_binary(file)
        found = found or _read_gguf(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}): give an imatrix file") from None
    except (ValueError, KeyError, IndexError, struct.error):
        raise InputError(f"{path} is not an importance matrix, or is damaged: {_REMEDY}") from None
    if not found.sums:
        raise InputError(f"{path} holds no importance: {_REMEDY}")
    for name, sums in found.sums.items():
        if found.counts[name] <= 0 or not np.isfinite(sums).all() or (sums < 0).any():
            raise InputError(f"{path} holds what cannot be sums of squares for {name}: make it again")
    return found


def require_match(importance: Importance, spec: LlmSpec, path: Path) -> None:
    """Raises InputError unless it has every linear of this language model's layers, of its size, and nothing else."""
    sizes = {name: shape[1] for name, shape in shapes(spec).items() if len(shape) == 2}
    optional = {gguf_name(name) for name in (EMBEDDING, HEAD)}
    wanted = {gguf_name(name): size for name, size in sizes.items()}
    for name, sums in importance.sums.items():
        if name not in wanted:
            raise InputError(f"{path} weighs {name}, which this language model has not: {_REMEDY}")
        if len(sums) != wanted[name]:
            raise InputError(f"{path} has {len(sums)} inputs for {name}, which has {wanted[name]}: {_REMEDY}")
    if missing := [name for name in wanted if name not in importance.sums and name not in optional]:
        raise InputError(f"{path} lacks {missing[0]}, and {len(missing)} names in all: {_REMEDY}")


def _read_gguf(path: Path) -> Importance:
    reader = gguf.GGUFReader(path)
    keys = gguf.Keys
    if _value(reader, keys.General.TYPE) != gguf.GGUFType.IMATRIX:
        raise ValueError
    tensors = {tensor.name: np.array(tensor.data, np.float32).reshape(-1) for tensor in reader.tensors}
    names = [name.removesuffix(SUMS) for name in tensors if name.endswith(SUMS)]
    counts = {name: tensors[name + COUNTS] for name in names}
    if any(len(each) != 1 for each in counts.values()):
        raise ValueError
    return Importance(
        {name: tensors[name + SUMS] for name in names},
        {name: int(each[0]) for name, each in counts.items()},
        tuple(_value(reader, keys.IMatrix.DATASETS) or ()),
        int(_value(reader, keys.IMatrix.CHUNK_COUNT) or 0),
        int(_value(reader, keys.IMatrix.CHUNK_SIZE) or 0),
    )


def _value(reader: gguf.GGUFReader, key: str) -> Any:
    field = reader.get_field(key)
    return None if field is None else field.contents()


def _read_binary(file: BinaryIO) -> Importance:
    """int32 n, then n times: name, int32 chunks, float32 values; then int32 chunks and the data set's name."""
    sums: dict[str, NDArray[np.float32]] = {}
    counts: dict[str, int] = {}
    for _ in range(_int32(file)):
        name = _text(file)
        counts[name] = _int32(file)
        n = _int32(file)
        values = np.frombuffer(file.read(4 * n), "<f4") if n > 0 else np.empty(0, "<f4")
        if len(values) != n or n < 1:
            raise ValueError
        sums[name] = values.astype(np.float32)
    rest = file.read()
    n_chunks = struct.unpack("<i", rest[:4])[0] if len(rest) >= 4 else 0
    return Importance(sums, counts, (rest[8:].decode("utf-8"),) if len(rest) > 8 else (), n_chunks, 0)


def _int32(file: BinaryIO) -> int:
    return struct.unpack("<i", file.read(4))[0]


def _text(file: BinaryIO) -> str:
    n = _int32(file)
    if not 0 <= n < _MAX_NAME:
        raise ValueError
    return file.read(n).decode("utf-8")
