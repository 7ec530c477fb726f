"""TensorRT: a bundle's ONNX graphs in, engines for this machine's GPU out; and which graphs its parser can read.

Not run on hardware with TensorRT yet: tests know the parser's list of operators and a stand-in for the package.
The engines are for TensorRT users outside Auricle; the runtime lets ONNX Runtime's TensorRT provider build
and cache them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, cast

import onnx

from ...models.bundle import axis_profiles, check_files, read_manifest
from ...models.errors import InputError, RunError
from ...models.graph_io import GraphInfo, TensorInfo
from ..bundle import disk_errors
from ..progress import Report
from .onnx_graph import graph_info, read_model

_CONTROL_FLOW = ("If", "Loop", "Scan", "Sequence", "Optional")
_TYPE_NAMES: dict[int, str] = {
    int(onnx.TensorProto.FLOAT): "FP32",
    int(onnx.TensorProto.FLOAT16): "FP16",
    int(onnx.TensorProto.INT64): "INT64",
    int(onnx.TensorProto.INT32): "INT32",
    int(onnx.TensorProto.INT8): "INT8",
    int(onnx.TensorProto.UINT8): "UINT8",
    int(onnx.TensorProto.BOOL): "BOOL",
}


@dataclass(frozen=True)
class TensorRtOptions:
    """How an engine is built."""

    fp16: bool = True
    workspace_bytes: int = 4 << 30  # scratch memory the builder may try kernels with
    longest_s: float = 30.0  # the model's window: the engine takes clips up to it
    timing_cache: Path | None = None  # measured kernel times, reused by the next build on the same GPU


def build_engines(bundle: Path, out: Path, options: TensorRtOptions, report: Report) -> list[Path]:
    """Build one engine for each graph of a bundle, as NAME.engine in `out`; returns their paths.

    The engines take clips up to the model's window. Raises InputError when the tensorrt package is missing or a graph
    is not one that its parser reads (int8, int4), BundleError for what is no bundle, RunError when a build fails.
    """
    _tensorrt()
    manifest = read_manifest(bundle)
    check_files(bundle, manifest)
    for info in manifest.graphs.values():
        if reasons := unsupported(bundle / info.file):
            raise InputError(
                f"TensorRT cannot read {bundle / info.file}, whose precision is {manifest.quantization.encoders} "
                f"({reasons[0]}): export the bundle with --encoders fp16"
            )
    options = replace(options, longest_s=manifest.spec.seconds)
    written: list[Path] = []
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        for done, (name, info) in enumerate(manifest.graphs.items()):
            report(f"build {name}", done, len(manifest.graphs))
            written.append(out / f"{name}.engine")
            build_engine(bundle / info.file, written[-1], options)
    return written


def build_engine(graph: Path, engine: Path, options: TensorRtOptions) -> None:
    """Build and write a TensorRT engine for this machine's GPU; the file appears when it is complete.

    Raises InputError when the tensorrt package is missing, RunError when the graph cannot be parsed or built.
    """
    trt = _tensorrt()
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = _parse(trt, builder, logger, graph)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if options.fp16:
        config.set_flag(trt.BuilderFlag.FP16)
    _add_profile(builder, config, graph_info(graph), options.longest_s)
    cache = _timing_cache(config, options.timing_cache)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise RunError(f"TensorRT could not build an engine from {graph.name}: its log above says why")
    _write(engine, bytes(serialized))
    if options.timing_cache is not None:
        _write(options.timing_cache, bytes(cache.serialize()))


def profile_shapes(tensor: TensorInfo, longest_s: float = 30.0) -> tuple[tuple[int, ...], ...]:
    """Least, usual and largest shape of an input; all equal where no axis is dynamic."""
    profiles = axis_profiles(longest_s)
    return tuple(
        tuple(profiles[size][which] if isinstance(size, str) else size for size in tensor.shape) for which in range(3)
    )


def supported_operators() -> Mapping[str, Any]:
    """The checked-in list: `tensorrt` version, `source`, `max_opset`, `max_rank`, `operators` and types."""
    text = (resources.files("auricle.export.graphs") / "tensorrt_ops.json").read_text(encoding="utf-8")
    return cast(Mapping[str, Any], json.loads(text))


def unsupported(graph: Path) -> list[str]:
    """Why TensorRT's ONNX parser would refuse a graph, one sentence per reason; empty when it would not.

    Checks operators and the types they give against the list, ranks, opset and control flow. int8 graphs
    with onnxruntime's dynamic quantization are refused: TensorRT gets the fp32 or fp16 graph.
    """
    model = onnx.shape_inference.infer_shapes(read_model(graph, weights=False))
    known = supported_operators()
    types = _types(model.graph)
    reasons = [reason for node in model.graph.node for reason in _node_reasons(node, types, known["operators"])]
    reasons += [
        f"{name} has {rank} axes, over {known['max_rank']}"
        for name, rank in _ranks(model.graph).items()
        if rank > known["max_rank"]
    ]
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    if opset > known["max_opset"]:
        reasons.append(f"opset {opset} is newer than {known['max_opset']}")
    return sorted(set(reasons))


def _node_reasons(node: onnx.NodeProto, types: Mapping[str, int], operators: Mapping[str, list[str]]) -> list[str]:
    if node.domain not in ("", "ai.onnx"):
        return [f"{node.domain}::{node.op_type} is not an ONNX operator"]
    if node.op_type.startswith(_CONTROL_FLOW):
        return [f"{node.op_type} is control flow"]
    if node.op_type not in operators:
        return [f"{node.op_type} is not supported"]
    produced = (_TYPE_NAMES.get(types[name], "another type") for name in node.output if name in types)
    allowed = {*operators[node.op_type], *(["INT64", "BOOL"] if node.op_type in _ANY_OUTPUT else [])}
    return [f"{node.op_type} does not give {kind}" for kind in produced if kind not in allowed]


_ANY_OUTPUT = ("Shape", "Size", "Greater", "Less", "Equal", "And", "Or", "Not", "ArgMax", "ArgMin")
"""Their listed types are those of the inputs; the output is always INT64 or BOOL."""


def _types(graph: onnx.GraphProto) -> dict[str, int]:
    values = (*graph.input, *graph.value_info, *graph.output)
    return {v.name: v.type.tensor_type.elem_type for v in values}


def _ranks(graph: onnx.GraphProto) -> dict[str, int]:
    values = (*graph.input, *graph.value_info, *graph.output)
    ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in values}
    return {**ranks, **{t.name: len(t.dims) for t in graph.initializer}}


def _tensorrt() -> Any:
    try:
        import tensorrt
    except ImportError as error:
        raise InputError(
            "the package tensorrt is missing: install tensorrt>=10 (and an NVIDIA driver), "
            "or run the ONNX graphs with --provider cuda"
        ) from error
    return tensorrt


def _parse(trt: Any, builder: Any, logger: Any, graph: Path) -> Any:
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        reasons = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise RunError(f"TensorRT cannot parse {graph.name}: {reasons}")
    return network


def _add_profile(builder: Any, config: Any, info: GraphInfo, longest_s: float) -> None:
    profile = builder.create_optimization_profile()
    for tensor in info.inputs:
        profile.set_shape(tensor.name, *profile_shapes(tensor, longest_s))
    config.add_optimization_profile(profile)


def _timing_cache(config: Any, path: Path | None) -> Any:
    known = path.read_bytes() if path is not None and path.is_file() else b""
    cache = config.create_timing_cache(known)
    config.set_timing_cache(cache, False)
    return cache


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    partial.replace(path)
