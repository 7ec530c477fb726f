"""Checkpoints read safely: torch or safetensors files -> tensors; no pickle is executed, what lacks is named."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from copy import copy
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open

from ...models.errors import CheckpointError
from ...models.git_lfs import refuse_pointer

TORCH_SUFFIXES = (".bin", ".pt", ".pth")
_INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_SINGLE_FILES = ("model.safetensors", "pytorch_model.bin")
# AutoGPTQ's
_GPTQ_INDEX = "gptq_model-*.index.json"
_GPTQ_FILES = ("gptq_model-*.safetensors", "gptq_model-*.bin")
_LISTED = 12  # missing keys named in one message; a wholly different file would list thousands


def load_torch(path: Path) -> dict[str, Any]:
    """The dict inside a .pt, .pth or .bin, its tensors mapped from disk. weights_only: no pickle is executed.

    Raises CheckpointError when the file is missing, truncated, no torch file, holds code, or is not a dict.
    """
    _require_file(path)
    try:
        loaded: object = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except Exception as error:  # a damaged or foreign file fails in a dozen ways
        raise _refusal(path, str(error)) from error
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path} holds a {type(loaded).__name__}, not a checkpoint's dict of tensors")
    return cast(dict[str, Any], loaded)


def load_section(path: Path, section: str, what: str) -> dict[str, torch.Tensor]:
    """The tensors under one top-level key of a torch file, such as `model`; the optimizer's are not read.

    Raises CheckpointError when the key is not there or holds no tensors: this is not `what`.
    """
    found = load_torch(path).get(section)
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} is not {what}: it has no {section!r} with tensors in it")
    return tensors_of(cast(Mapping[str, object], found))


def tensors_of(state: Mapping[str, object]) -> dict[str, torch.Tensor]:
    """The tensors of a state dict; anything else in it is dropped."""
    return {str(name): value for name, value in state.items() if isinstance(value, torch.Tensor)}


def require(names: Collection[str], needed: Iterable[str], what: str, where: Path | str) -> None:
    """Raises CheckpointError with the list of `needed` names that are not among `names`."""
    missing = [name for name in needed if name not in names]
    if not missing:
        return
    listed = ", ".join(missing[:_LISTED])
    more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
    raise CheckpointError(f"{where} is not a complete {what}: {len(missing)} tensors are missing: {listed}{more}")


def require_shape(tensor: torch.Tensor, shape: tuple[int, ...], name: str, where: Path | str) -> torch.Tensor:
    """The tensor itself, in float32; raises CheckpointError when its shape is not `shape`, or its values no numbers."""
    if tuple(tensor.shape) != shape:
        raise CheckpointError(f"{where}: {name} is {list(tensor.shape)} where {list(shape)} was expected")
    if not tensor.isfinite().all():
        raise CheckpointError(f"{where}: {name} holds values that are no finite numbers: download it again")
    return tensor.to(torch.float32)


class Weights:
    """Tensors of a model directory or file, read one at a time: safetensors or torch shards, indexed or not.

    Nothing but the headers is read until `get`; the shard last used stays open. Raises CheckpointError when
    there are no weights, a shard is missing or unreadable.
    """

    def __init__(self, source: Path) -> None:
        self.source = source
        self.files: list[Path] = _weight_files(source)
        self._opened: tuple[Path, Any] | None = None
        self._stored: dict[str, tuple[Path, str]] = {}  # the file of each tensor, and its name there
        self._shapes: dict[str, tuple[int, ...]] = {}
        for path in self.files:
            for name, shape in self._headers(path):
                self._stored[name] = (path, name)
                self._shapes[name] = shape

    def names(self) -> list[str]:
        """Names of all tensors, in file order."""
        return list(self._stored)

    def __contains__(self, name: object) -> bool:
        return name in self._stored

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor, without reading it."""
        return self._shapes[name]

    def get(self, name: str) -> torch.Tensor:
        """One tensor in the type it is stored in."""
        return self._read(*self._stored[name])

    def _read(self, path: Path, stored: str) -> torch.Tensor:
        shard = self._open(path)
        try:
            return shard[stored] if isinstance(shard, dict) else shard.get_tensor(stored)
        except (SafetensorError, OSError, RuntimeError) as error:
            raise _unreadable(path) from error

    def require(self, names: Iterable[str], what: str) -> None:
        """Raises CheckpointError with the list of those that are missing."""
        require(self._stored.keys(), names, what, self.source)

    def renamed(self, names: Mapping[str, str]) -> Weights:
        """A view of some of the tensors under other names: new name -> name here. It opens shards of its own."""
        view = copy(self)
        view._opened = None
        view._stored = {new: self._stored[name] for new, name in names.items()}
        view._shapes = {new: self._shapes[name] for new, name in names.items()}
        return view

    def close(self) -> None:
        """Let go of the open shard; `get` opens it again."""
        self._opened = None

    def _headers(self, path: Path) -> list[tuple[str, tuple[int, ...]]]:
        shard = self._open(path)
        if isinstance(shard, dict):
            tensors = cast(dict[str, torch.Tensor], shard)
            return [(name, tuple(tensor.shape)) for name, tensor in tensors.items()]
        return [(name, tuple(shard.get_slice(name).get_shape())) for name in shard.keys()]  # noqa: SIM118

    def _open(self, path: Path) -> Any:
        if self._opened is None or self._opened[0] != path:
            self._opened = None  # the old shard goes before the next one comes
            self._opened = (path, _open_shard(path))
        return self._opened[1]


def open_weights(source: Path) -> Weights:
    """Open a model directory, or one weight file, for reading tensor by tensor."""
    return Weights(source)


def weight_files(source: Path) -> list[Path]:
    """The files `Weights` reads: the index, where there is one, and the shards. Raises CheckpointError."""
    index = _index_file(source)
    return [*([] if index is None else [index]), *_weight_files(source)]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; raises CheckpointError when it is missing or is not one."""
    _require_file(path)
    try:
        loaded: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path} should hold a JSON object")
    return cast(dict[str, Any], loaded)


def _weight_files(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise CheckpointError(f"{source} does not exist: give a model directory or a weight file")
    index = _index_file(source)
    if index:
        return _indexed_files(index)
    for single in (*_SINGLE_FILES, *_GPTQ_FILES):
        found = _only_file(source, single)
        if found:
            return [found]
    expected = ", ".join((*_SINGLE_FILES, *_INDEX_FILES, *_GPTQ_FILES))
    raise CheckpointError(f"{source} holds no weights: expected one of {expected}")


def _index_file(source: Path) -> Path | None:
    found = [source / name for name in _INDEX_FILES if (source / name).is_file()]
    return found[0] if found else _only_file(source, _GPTQ_INDEX)


def _only_file(source: Path, pattern: str) -> Path | None:
    found = sorted(path for path in source.glob(pattern) if path.is_file())
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise CheckpointError(f"{source} holds several models ({names}): leave only the one that is meant")
    return found[0] if found else None


def _indexed_files(index: Path) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map: it is not an index of shards")
    names = sorted({str(name) for name in cast(dict[str, str], weight_map).values()})
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise CheckpointError(f"{index} names the shard {outside[0]!r}, which is not a file beside it")
    absent = [name for name in names if not (index.parent / name).is_file()]
    if absent:
        raise CheckpointError(f"{index.parent} lacks {', '.join(absent)}, which {index.name} names: download them")
    return [index.parent / name for name in names]


def _open_shard(path: Path) -> Any:
    if path.suffix in TORCH_SUFFIXES:
        return tensors_of(load_torch(path))
    _require_file(path)
    try:
        return safe_open(str(path), framework="pt", device="cpu")
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path) from error


def _unreadable(path: Path) -> CheckpointError:
    return CheckpointError(f"{path} is truncated or damaged ({path.stat().st_size:,} bytes): download it again")


def _refusal(path: Path, reason: str) -> CheckpointError:
    found = re.search(r"GLOBAL (\S+)", reason)
    if found:
        return CheckpointError(
            f"{path} holds more than tensors ({found[1]}), and nothing inside a checkpoint is executed: "
            "save its tensors alone and give that file"
        )
    return CheckpointError(f"{path} cannot be read as a torch checkpoint: it is damaged, or something else")


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _require_file(path: Path) -> None:
    try:
        if path.is_file():
            path.open("rb").close()
            return refuse_pointer(path, CheckpointError)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}): check its permissions") from None
    raise CheckpointError(f"{path} is not a file: check the path")
