"""TensorRT: what its ONNX parser supports, checked on every exported graph; the builder against a stand-in package.

Nothing here runs TensorRT.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from auricle.models.bundle import axis_profiles, file_entry, named_files, read_manifest, shipped_bundle, write_manifest
from auricle.models.errors import InputError, RunError
from auricle.models.graph_io import TensorInfo

pytest.importorskip("torch")
import onnx
from auricle.export.__main__ import main
from auricle.export.graphs.float16 import to_fp16
from auricle.export.graphs.int8 import to_int8
from auricle.export.graphs.tensorrt import (
    TensorRtOptions,
    build_engine,
    profile_shapes,
    supported_operators,
    unsupported,
)
from onnx import TensorProto, helper

NAMES = ("whisper", "beats", "qformer")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_every_graph_can_be_parsed(graphs: dict[str, Path], tmp_path: Path, name: str, precision: str) -> None:
    path = graphs[name]
    if precision == "fp16":
        path = tmp_path / "half.onnx"
        to_fp16(graphs[name], path)
    assert unsupported(path) == []


def test_dynamic_int8_is_not_for_tensorrt(graphs: dict[str, Path], features: dict[str, Any], tmp_path: Path) -> None:
    to_int8(graphs["qformer"], tmp_path / "int8.onnx", [features["qformer"]], 1.0)
    assert {
        "com.microsoft::MatMulIntegerToFloat is not an ONNX operator",
        "opset 21 is newer than 20",
    } <= set(unsupported(tmp_path / "int8.onnx"))


def model(node: onnx.NodeProto, kind: int = TensorProto.FLOAT, rank: int = 1, opset: int = 20) -> onnx.ModelProto:
    shape = [1] * rank
    x, y = (helper.make_tensor_value_info(name, kind, shape) for name in "xy")
    return helper.make_model(
        helper.make_graph([node], "g", [x], [y]),
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)],
        ir_version=9,
    )


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (model(helper.make_node("Bernoulli", ["x"], ["y"])), "Bernoulli is not supported"),
        (model(helper.make_node("SequenceAt", ["x"], ["y"])), "SequenceAt is control flow"),
        (model(helper.make_node("FusedMatMul", ["x"], ["y"], domain="com.microsoft")), "is not an ONNX operator"),
        (model(helper.make_node("Clip", ["x"], ["y"]), TensorProto.INT64), "Clip does not give INT64"),
        (model(helper.make_node("Relu", ["x"], ["y"]), rank=9), "has 9 axes"),
        (model(helper.make_node("Relu", ["x"], ["y"]), opset=21), "opset 21 is newer"),
    ],
)
def test_what_the_parser_cannot_read_is_said(made: onnx.ModelProto, reason: str, tmp_path: Path) -> None:
    onnx.save_model(made, str(tmp_path / "x.onnx"))
    assert any(reason in line for line in unsupported(tmp_path / "x.onnx"))


def test_the_list_says_where_it_is_from() -> None:
    known = supported_operators()
    assert "onnx-tensorrt" in known["source"] and known["tensorrt"].startswith("10.")
    assert "MatMul" in known["operators"] and "MatMulInteger" not in known["operators"]


def test_profiles_hold_every_clip_from_one_second_to_thirty() -> None:
    profiles = axis_profiles()
    assert profiles["n_frames"] == (98, 998, 2998) and profiles["n_tokens"] == (48, 496, 1496)
    assert profiles["mel_frames"] == (100, 3000, 3000) and profiles["n_positions"] == (50, 1500, 1500)
    assert axis_profiles(longest_s=10)["n_frames"][2] == 998 and axis_profiles(longest_s=10)["mel_frames"][2] == 1000
    assert profile_shapes(TensorInfo("fbank", (1, "n_frames", 128))) == ((1, 98, 128), (1, 998, 128), (1, 2998, 128))
    assert profile_shapes(TensorInfo("x", (1, 80))) == ((1, 80),) * 3


def test_the_missing_package_is_named(graphs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(InputError, match="the package tensorrt is missing"):
        build_engine(graphs["beats"], tmp_path / "beats.engine", TensorRtOptions())


def stand_in(parses: bool = True, engine: bytes | None = b"engine") -> MagicMock:
    trt = MagicMock()
    parser = trt.OnnxParser.return_value
    parser.parse_from_file.return_value, parser.num_errors = parses, 1
    parser.get_error.return_value = "no such operator"
    trt.Builder.return_value.build_serialized_network.return_value = engine
    config = trt.Builder.return_value.create_builder_config.return_value
    config.create_timing_cache.return_value = SimpleNamespace(serialize=lambda: b"times")
    return trt


def test_an_engine_is_built_with_profile_and_timing_cache(
    graphs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt = stand_in()
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    (tmp_path / "times").write_bytes(b"known")
    build_engine(graphs["qformer"], tmp_path / "q.engine", TensorRtOptions(timing_cache=tmp_path / "times"))
    assert (tmp_path / "q.engine").read_bytes() == b"engine"
    assert (tmp_path / "times").read_bytes() == b"times"
    builder = trt.Builder.return_value
    config = builder.create_builder_config.return_value
    config.create_timing_cache.assert_called_once_with(b"known")
    config.set_flag.assert_called_once_with(trt.BuilderFlag.FP16)
    shapes = builder.create_optimization_profile.return_value.set_shape.call_args_list
    assert [call.args for call in shapes] == [
        ("speech", (1, 50, 64), (1, 1500, 64), (1, 1500, 64)),
        ("audio", (1, 48, 48), (1, 496, 48), (1, 1496, 48)),
    ]


@pytest.mark.parametrize(("parses", "engine", "words"), [(False, b"", "no such operator"), (True, None, "build")])
def test_a_failed_build_leaves_no_engine(
    graphs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    parses: bool,
    engine: bytes | None,
    words: str,
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", stand_in(parses, engine))
    with pytest.raises(RunError, match=words):
        build_engine(graphs["beats"], tmp_path / "beats.engine", TensorRtOptions())
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def bundle(graphs: dict[str, Path], tmp_path: Path) -> Path:
    """The demo's manifest around fp32 graphs."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    manifest = read_manifest(shipped_bundle())
    manifest = replace(manifest, quantization=replace(manifest.quantization, encoders="fp32"))
    for name in set(named_files(manifest)) - {manifest.graphs[name].file for name in NAMES}:
        (folder / name).write_bytes(b"not read")
    for name in NAMES:
        shutil.copyfile(graphs[name], folder / manifest.graphs[name].file)
    entries = tuple(file_entry(folder, path.name) for path in sorted(folder.iterdir()))
    write_manifest(folder, replace(manifest, files=entries))
    return folder


def test_the_command_says_what_to_install(
    bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert main(["tensorrt", str(bundle)]) == 2
    err = capsys.readouterr().err
    assert (
        err.startswith("auricle-export: the package tensorrt is missing: install tensorrt>=10") and err.count("\n") == 1
    )
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


def test_the_command_builds_an_engine_for_every_graph(
    bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trt = stand_in()
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    assert main(["tensorrt", str(bundle), "--workspace", "2"]) == 0
    engines = bundle.with_name("bundle.engines")
    assert {path.name for path in engines.iterdir()} == {*(f"{name}.engine" for name in NAMES), "timing.cache"}
    assert capsys.readouterr().out.count(".engine: 0.0 MB") == len(NAMES)
    builder = trt.Builder.return_value
    limit = builder.create_builder_config.return_value.set_memory_pool_limit
    assert limit.call_args.args == (trt.MemoryPoolType.WORKSPACE, 2 << 30)
    shapes = [call.args for call in builder.create_optimization_profile.return_value.set_shape.call_args_list]
    assert ("fbank", (1, 98, 128), (1, 998, 128), (1, 998, 128)) in shapes, "the demo's window is 10 s"


def test_integer_graphs_are_refused_with_the_remedy(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", stand_in())
    assert main(["tensorrt", str(shipped_bundle())]) == 2
    err = capsys.readouterr().err
    assert "whose precision is int8" in err and "export the bundle with --encoders fp16" in err
    assert not shipped_bundle().with_name("demo.engines").exists()


def test_what_is_no_bundle_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", stand_in())
    assert main(["tensorrt", str(tmp_path / "gone")]) == 2
    assert "gone" in capsys.readouterr().err
