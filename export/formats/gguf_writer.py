"""GGUF: tensors, one by one -> a file, under a temporary name until it is complete."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import gguf
import numpy as np

from ...models.errors import CheckpointError, InputError
from ..progress import Report

LORA_SCALE = "auricle.lora_scale"  # what is merged into the weights; 0 for the base alone


@dataclass(frozen=True)
class Tensor:
    """One tensor to come: its name and shape are known before `read` is called, once and in order."""

    name: str
    shape: tuple[int, ...]
    dtype: type[np.float16] | type[np.float32]
    read: Callable[[], np.ndarray]

    @property
    def n_bytes(self) -> int:
        """Size in the file, padding aside."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class RawTensor:
    """One tensor to come, of any type, in pieces that are bytes as the file holds them."""

    name: str
    shape: tuple[int, ...]
    kind: gguf.GGMLQuantizationType
    pieces: Callable[[], Iterable[np.ndarray]]

    @property
    def n_blocks(self) -> int:
        """Blocks in the tensor; a float is a block of one weight."""
        return int(np.prod(self.shape)) // gguf.GGML_QUANT_SIZES[self.kind][0]

    @property
    def n_bytes(self) -> int:
        """Size in the file, padding aside."""
        return self.n_blocks * gguf.GGML_QUANT_SIZES[self.kind][1]


def write_tensors(
    writer: gguf.GGUFWriter, path: Path, tensors: Iterable[Tensor | RawTensor], stage: str, tell: Report
) -> None:
    """Header, then tensor after tensor, never two in memory. Raises InputError when the disk is full."""
    listed = list(tensors)
    for tensor in listed:
        kind = tensor.kind if isinstance(tensor, RawTensor) else None
        dtype = np.float32 if isinstance(tensor, RawTensor) else tensor.dtype
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(dtype), tensor.n_bytes, kind)
    with complete_or_absent(path) as temporary:
        try:
            writer.write_header_to_file(temporary)
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for done, tensor in enumerate(listed, 1):
                writer.write_tensor_data(_stored(tensor))
                tell(stage, done, len(listed))
        finally:
            writer.close()


@contextmanager
def complete_or_absent(path: Path) -> Generator[Path]:
    """A temporary name beside `path`, renamed to it at the end; removed when anything goes wrong."""
    temporary = path.with_name(path.name + ".part")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{path} could not be written ({error}); {_free_space(path.parent)}") from error
    finally:
        temporary.unlink(missing_ok=True)


def require_free_space(directory: Path, n_bytes: int, what: str) -> None:
    """Raises InputError when `directory` has not that much space left."""
    if shutil.disk_usage(directory).free < n_bytes:
        raise InputError(f"{what} needs {_size(n_bytes)} of disk: {_free_space(directory)}")


def rotary_rows(rows: np.ndarray, n_heads: int) -> np.ndarray:
    """A q or k weight [n_heads * d_head, n], each head's two halves interleaved: llama.cpp's rotary order."""
    paired = rows.reshape(n_heads, 2, rows.shape[0] // n_heads // 2, *rows.shape[1:])
    return paired.swapaxes(1, 2).reshape(rows.shape)


def halved_rows(rows: np.ndarray, n_heads: int) -> np.ndarray:
    """The way back: each head's interleaved rows as two halves, Hugging Face's rotary order."""
    paired = rows.reshape(n_heads, rows.shape[0] // n_heads // 2, 2, *rows.shape[1:])
    return paired.swapaxes(1, 2).reshape(rows.shape)


class _Pieces:
    """As much of an array as GGUFWriter.write_tensor_data asks for, for one too large to have whole."""

    def __init__(self, tensor: RawTensor) -> None:
        self.nbytes = tensor.n_bytes
        self._pieces = tensor.pieces

    def tofile(self, file: IO[bytes]) -> None:
        for piece in self._pieces():
            piece.tofile(file)


def _stored(tensor: Tensor | RawTensor) -> np.ndarray:
    if isinstance(tensor, RawTensor):
        return cast(Any, _Pieces(tensor))
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(tensor.read(), dtype=tensor.dtype)
    if not np.isfinite(values).all():
        raise CheckpointError(
            f"{tensor.name} has values that {values.dtype} cannot hold: the checkpoint is damaged, "
            "or needs another type"
        )
    return values


def _free_space(directory: Path) -> str:
    free = shutil.disk_usage(directory).free
    return f"{_size(free)} are free on the disk of {directory}; free some, or choose another --out"


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 100_000_000 else f"{n_bytes / 1e6:.1f} MB"
