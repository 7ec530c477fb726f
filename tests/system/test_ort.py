"""Sessions: the provider that starts, the interface that is checked, errors in one sentence. No torch, no bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from auricle.models.audio import SAMPLE_RATE
from auricle.models.errors import BundleError, InputError, RunError
from auricle.models.graph_io import TensorInfo
from auricle.runtime.engine import load
from auricle.runtime.system import ort
from auricle.runtime.system.ort import OrtOptions, choose_provider, open_session, probe, tensorrt_options

X, Y = TensorInfo("x", (1,)), TensorInfo("y", (1,))


@pytest.fixture
def relu(tmp_path: Path) -> Path:
    path = tmp_path / "relu.onnx"
    path.write_bytes(ort._PROBE)
    return path


def test_values_stay_in_the_session_until_asked_for(relu: Path) -> None:
    session = open_session(relu, [X], [Y], OrtOptions("cpu", threads=1))
    y = session.run(x=np.array([3.0], np.float32))
    assert session.run(x=y).numpy() == [3.0]
    assert session.run(x=np.array([-1.0])).numpy() == [0.0]


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ([TensorInfo("z", (1,))], [Y]),
        ([TensorInfo("x", (2,))], [Y]),
        ([TensorInfo("x", ("n",))], [Y]),
        ([X, X], [Y]),
        ([X], [TensorInfo("y", (1, 1))]),
        ([X], []),
    ],
)
def test_another_interface_is_refused(relu: Path, inputs: list[TensorInfo], outputs: list[TensorInfo]) -> None:
    with pytest.raises(BundleError, match="where the manifest says"):
        open_session(relu, inputs, outputs, OrtOptions("cpu"))


def test_a_wrong_feed_is_one_sentence(relu: Path) -> None:
    session = open_session(relu, [X], [Y], OrtOptions("cpu"))
    for feed in ({"x": np.zeros((2, 2), np.float32)}, {"other": np.zeros(1, np.float32)}):
        with pytest.raises(RunError, match=r"relu\.onnx failed on cpu") as failed:
            session.run(**feed)
        assert "\n" not in str(failed.value)


def test_a_closed_session_says_so(relu: Path) -> None:
    session = open_session(relu, [X], [Y], OrtOptions())
    session.close()
    session.close()
    with pytest.raises(RunError, match="was closed"):
        session.run(x=np.zeros(1, np.float32))


@pytest.mark.parametrize("content", [b"", b"not a graph", ort._PROBE[:30]])
def test_a_spoilt_graph_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=r"x\.onnx") as refused:
        open_session(tmp_path / "x.onnx", [X], [Y], OrtOptions("cpu"))
    assert "\n" not in str(refused.value)


def test_a_missing_graph_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="missing"):
        open_session(tmp_path / "x.onnx", [X], [Y], OrtOptions("cpu"))


def test_auto_takes_the_best_that_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert probe("cpu") is None
    monkeypatch.setattr(ort, "_PROBED", {"tensorrt": "no", "cuda": None, "coreml": "no", "cpu": None})
    assert choose_provider("auto") == "cuda"
    monkeypatch.setattr(ort, "_PROBED", dict.fromkeys(("tensorrt", "cuda", "coreml"), "no"))
    assert choose_provider("auto") == "cpu"
    with pytest.raises(InputError, match=r"cuda does not start here \(no\): pip install"):
        choose_provider("cuda")


def test_an_unknown_provider_is_refused() -> None:
    with pytest.raises(InputError, match="'npu' is not known: choose auto, tensorrt, cuda, coreml, cpu"):
        choose_provider("npu")


def test_a_provider_that_is_listed_but_does_not_start_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime-gpu without CUDA's libraries lists CUDA, and opens sessions on the CPU without an error."""
    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(ort, "_PROBED", {})
    monkeypatch.setattr(ort.ort, "get_available_providers", lambda: listed)
    assert probe("cuda") is not None


def test_tensorrt_is_told_the_lengths_and_where_engines_are_kept(tmp_path: Path) -> None:
    fbank = TensorInfo("fbank", (1, "n_frames", 128))
    chosen = tensorrt_options([fbank], OrtOptions(engine_cache=tmp_path / "engines"))
    assert chosen["trt_profile_min_shapes"] == "fbank:1x98x128"
    assert chosen["trt_profile_max_shapes"] == "fbank:1x2998x128"
    assert chosen["trt_engine_cache_path"] == str(tmp_path / "engines") and (tmp_path / "engines").is_dir()
    both = tensorrt_options([TensorInfo("speech", (1, 1500, 8)), TensorInfo("audio", (1, "n_tokens", 4))], OrtOptions())
    assert both["trt_profile_opt_shapes"] == "speech:1x1500x8,audio:1x496x4"
    assert "trt_engine_cache_path" not in both
    assert tensorrt_options([TensorInfo("x", (1, 80, 3000))], OrtOptions(tensorrt_fp16=False)) == {
        "trt_fp16_enable": False
    }


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="this system does not tell what a process holds")
def test_a_closed_bundle_gives_its_memory_back() -> None:
    """The arena that its graphs shared is a third of the demo's memory, and glibc would keep the rest."""
    with load():
        pass  # what is opened once and stays
    before = anonymous_bytes()
    with load() as engine:
        engine.encode(np.zeros(10 * SAMPLE_RATE, np.float32))
        held = anonymous_bytes() - before
    assert anonymous_bytes() - before < held / 3


def anonymous_bytes() -> int:
    """Of this process' resident memory, what is no file's."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("RssAnon"))
