"""ONNX graphs of a contest: written once below the working directory, opened our way and everyone's way."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models.bundle import Manifest, read_manifest
from ...models.errors import InputError
from ...models.families.salmonn import SALMONN_7B, SalmonnSpec
from ...models.graph_io import GraphInfo
from ...models.precision import PRECISIONS
from .task import SEED, Outcome, Task, Work, whole_or_absent

Feeds = Mapping[str, NDArray[np.float32]]


def spec_of(task: Task) -> SalmonnSpec:
    """The bundle's, or the released one, whose Whisper has task.layers layers, or is the trained one that was given."""
    if task.bundle is not None:
        return salmonn_of(read_manifest(task.bundle))
    if task.whisper is not None:
        from ...export.encoders.whisper import read_whisper_spec

        return replace(SALMONN_7B, whisper=read_whisper_spec(task.whisper))
    return replace(SALMONN_7B, whisper=replace(SALMONN_7B.whisper, n_layers=task.layers))


def salmonn_of(manifest: Manifest) -> SalmonnSpec:
    """The sizes of a SALMONN. Raises InputError for another family, which takes part in other contests."""
    if not isinstance(manifest.spec, SalmonnSpec):
        raise InputError(f"{manifest.name} is no SALMONN: take --part fastconformer, transcribe, prefill or decode")
    return manifest.spec


def our_graph(task: Task, part: str, written: Path) -> Path:
    """What --graph or --bundle names, else the one that we write."""
    if task.graph is not None:
        return task.graph
    return written if task.bundle is None else task.bundle / interface(task, part).file


def interface(task: Task, part: str) -> GraphInfo:
    """Inputs and outputs as the runtime expects them."""
    return spec_of(task).graphs[part]


@cache
def exporter() -> str:
    """Eight letters that change with the exporter's code: a graph that an older one wrote is not measured."""
    digest = hashlib.sha256()
    for source in sorted(Path(str(resources.files("auricle.export"))).rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:8]


def graph_file(directory: Path, name: str) -> Path:
    """Where a graph lies: a directory of its own, external weights beside it, for this exporter."""
    return directory / f"{name}.{exporter()}" / "graph.onnx"


def write_once(path: Path, write: Callable[[Path], object]) -> None:
    """A graph_file, unless it is there; what another exporter wrote in its place goes."""
    if path.exists():
        return
    for old in path.parent.parent.glob(f"{path.parent.stem}.*"):
        shutil.rmtree(old)
    with whole_or_absent(path.parent) as temporary:
        temporary.mkdir()
        write(temporary / path.name)


def write_int8(source: Path, target: Path, feeds: Sequence[Feeds]) -> None:
    """By the exporter's own rule, calibrated on the feeds."""
    from ...export.graphs.int8 import to_int8

    def write(path: Path) -> None:
        to_int8(source, path, feeds, PRECISIONS["int8"].budget)

    write_once(target, write)


def write_int4(source: Path, target: Path) -> None:
    """By the exporter's own rule, every layer in 4 bits."""
    from ...export.graphs.int4 import write_int4

    write_once(target, lambda path: write_int4(source, path))


def write_plain_int8(source: Path, target: Path) -> None:
    """Once, by onnxruntime's quantize_dynamic."""
    write_once(target, lambda path: quantize_dynamic(source, path))


def write_static_int8(source: Path, target: Path, feeds: Sequence[Feeds]) -> None:
    """Once, by onnxruntime's quantize_static."""
    write_once(target, lambda path: quantize_static(source, path, feeds))


def quantize_dynamic(source: Path, target: Path) -> None:
    """onnxruntime's: int8 weights, a scale per output, of every linear layer; inputs as they come."""
    from onnxruntime import quantization

    library: Any = quantization
    library.quantize_dynamic(source, target, **_linear_only(source))


def quantize_static(source: Path, target: Path, feeds: Sequence[Feeds]) -> None:
    """onnxruntime's: the same weights; inputs and outputs by the smallest and largest they were in the feeds."""
    from onnxruntime import quantization

    library: Any = quantization
    left = iter(feeds)

    class Reader(library.CalibrationDataReader):
        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return dict(feed) if (feed := next(left, None)) is not None else None

    options = _linear_only(source) | {
        "quant_format": library.QuantFormat.QDQ,
        "calibrate_method": library.CalibrationMethod.MinMax,
    }
    library.quantize_static(source, target, Reader(), **options)


def _linear_only(source: Path) -> dict[str, Any]:
    """Both quantizers' options for int8 weights, a scale per output."""
    from onnxruntime import quantization

    from ...export.graphs.linear_layers import linear_layers
    from ...export.graphs.onnx_graph import read_model

    library: Any = quantization
    return {
        "per_channel": True,
        "weight_type": library.QuantType.QInt8,
        "op_types_to_quantize": ["MatMul"],
        "nodes_to_quantize": list(linear_layers(read_model(source, weights=False))),
        "use_external_data_format": source.with_name(source.name + ".data").exists(),
    }


def open_ours(path: Path, info: GraphInfo, feeds: Feeds, threads: int) -> Work:
    """Through the runtime's own session, on the CPU."""
    from ...runtime.system.ort import OrtOptions, open_session

    session = open_session(path, info.inputs, info.outputs, OrtOptions("cpu", threads))
    return Work(lambda: outcome(session.run(**feeds).numpy()))


def open_default(path: Path, feeds: Feeds, threads: int) -> Work:
    """onnxruntime as everyone uses it: its default options, and the number of threads."""
    import onnxruntime

    ort: Any = onnxruntime
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Work(lambda: outcome(session.run(None, dict(feeds))[0]))


def open_torch(module: Any, feeds: Feeds, threads: int) -> Work:
    """A torch module whose arguments are the feeds in their order; its output in float32."""
    torch = torch_with(threads)
    kind = next(module.parameters()).dtype
    tensors = [torch.from_numpy(values).to(kind) for values in feeds.values()]

    def run() -> Outcome:
        with torch.inference_mode():
            found = module(*tensors)
            return outcome(getattr(found, "last_hidden_state", found).float().numpy())

    return Work(run)


def torch_with(threads: int) -> Any:
    """The torch module, with so many threads and the weights that everybody draws."""
    import torch

    library: Any = torch
    library.set_num_threads(threads)
    library.manual_seed(SEED)
    return library


def outcome(values: NDArray[np.float32]) -> Outcome:
    """An output and its shape."""
    return Outcome(values.shape, values=values)
