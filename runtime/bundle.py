"""Opening a bundle: nothing in it is trusted before it is checked."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..models.bundle import (
    SHIPPED,
    Manifest,
    check_files,
    check_hashes,
    inside,
    read_manifest,
    readable,
    shipped_bundle,
)
from ..models.errors import BundleError
from ..models.locations import MADE, made_bundle


@dataclass(frozen=True)
class Bundle:
    """A checked directory and its manifest."""

    directory: Path
    manifest: Manifest

    def path(self, name: str) -> Path:
        """Where a listed file lies."""
        return self.directory / name


def open_bundle(directory: Path | str | None = None) -> Bundle:
    """Checks schema, interface, presence and size of every file, and that no name leads out of the directory.

    None opens the demo bundle; so does `demo`, and `demo-salm` the other one, `small` the one that
    `auricle-export small` makes, where no such directory lies here. Raises BundleError with one sentence.
    """
    path = Path(directory) if directory is not None else shipped_bundle()
    name = str(directory)
    with readable(path):
        found = path.is_dir()
        if not found and name in (*SHIPPED, *MADE):
            path = shipped_bundle(name) if name in SHIPPED else made_bundle(name)
            found = path.is_dir()
    if not found and name in MADE:
        raise BundleError(f"{name} is not made yet: run `auricle-export {name} --download`")
    if not found:
        raise BundleError(f"{path} is no directory: give the bundle's directory, the one that holds manifest.json")
    manifest = read_manifest(path)
    check_files(path, manifest)
    _check_external_data(path, manifest)
    return Bundle(path, manifest)


def verify_hashes(bundle: Bundle, progress: Callable[[int], None] | None = None) -> None:
    """Every file byte for byte. progress is told bytes read. Raises BundleError."""
    check_hashes(bundle.directory, bundle.manifest, progress)


def _check_external_data(directory: Path, manifest: Manifest) -> None:
    """ONNX tensors stored outside their file must lie in files the manifest lists."""
    listed = {entry.path for entry in manifest.files}
    aligner = manifest.aligner.graphs if manifest.aligner else {}
    for graph in (*manifest.graphs.values(), *aligner.values()):
        for location in set(external_locations(directory / graph.file)):
            inside(directory, location)
            if location not in listed:
                raise BundleError(
                    f"{graph.file} keeps weights in {location!r}, which the manifest does not list: "
                    "do not use this bundle"
                )


def external_locations(path: Path) -> Iterator[str]:
    """The `location` of every external tensor in an ONNX file, read from the protobuf itself.

    Field numbers from onnx.proto: ModelProto.graph 7; GraphProto.node 1, initializer 5; NodeProto.attribute 5;
    AttributeProto.t 5, g 6, tensors 10, graphs 11; TensorProto.external_data 13; StringStringEntryProto.key 1, value 2.
    Raises BundleError when the file is no protobuf.
    """
    with readable(path), path.open("rb") as file:
        try:
            view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            for graph in _children(view, 7):
                yield from _graph_locations(graph)
        except (ValueError, IndexError, UnicodeDecodeError):
            raise BundleError(f"{path.name} is not an ONNX file: copy the bundle again") from None


def _graph_locations(graph: memoryview) -> Iterator[str]:
    for number, child in _fields(graph):
        if number == 5:
            yield from _tensor_locations(child)
        elif number == 1:
            for attribute in _children(child, 5):
                yield from _attribute_locations(attribute)


def _attribute_locations(attribute: memoryview) -> Iterator[str]:
    for number, child in _fields(attribute):
        if number in (5, 10):
            yield from _tensor_locations(child)
        elif number in (6, 11):
            yield from _graph_locations(child)


def _tensor_locations(tensor: memoryview) -> Iterator[str]:
    for entry in _children(tensor, 13):
        pair = dict(_fields(entry))
        if bytes(pair.get(1, b"")) == b"location":
            yield str(bytes(pair.get(2, b"")), "utf-8")


def _children(message: memoryview, number: int) -> Iterator[memoryview]:
    return (value for found, value in _fields(message) if found == number)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and bytes of each length-delimited field; the others are stepped over."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            _, at = _varint(message, at)
        elif kind == 2:
            size, at = _varint(message, at)
            if at + size > len(message):
                raise ValueError("a field is longer than its message")
            yield key >> 3, message[at : at + size]
            at += size
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError("not a protobuf wire type")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at = at + 1
        shift = shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("not a varint")
