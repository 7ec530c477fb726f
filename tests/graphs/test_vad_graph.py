"""Silero VAD's graph for several frames in one run, against its network in torch, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import onnx
import onnxruntime
from auricle.export.vad import main, several_frames
from auricle.models.errors import CheckpointError
from onnx import helper, numpy_helper
from torch.nn import functional as F

CONVOLUTIONS = ((129, 128, 1), (128, 64, 2), (64, 64, 2), (64, 128, 1))
"""Channels in and out, stride; kernels of 3, padded by 1."""


def network() -> tuple[dict[str, Any], Any]:
    torch.manual_seed(0)
    lstm = torch.nn.LSTMCell(128, 128)
    weights = {f"model.decoder.rnn.{name}": value.detach() for name, value in lstm.named_parameters()}
    weights["model.stft.forward_basis_buffer"] = torch.randn(258, 1, 256) / 16
    for number, (d_in, d_out, _) in enumerate(CONVOLUTIONS):
        weights[f"model.encoder.{number}.reparam_conv.weight"] = torch.randn(d_out, d_in, 3) / d_in**0.5
        weights[f"model.encoder.{number}.reparam_conv.bias"] = torch.randn(d_out)
    weights["model.decoder.decoder.2.weight"] = 0.3 * torch.randn(1, 128, 1)
    weights["model.decoder.decoder.2.bias"] = torch.zeros(1)
    return weights, lstm


@torch.no_grad()
def reference(frames: Any) -> list[float]:
    """Frame after frame, as the authors' graph goes."""
    weights, lstm = network()
    h = c = torch.zeros(1, 128)
    found: list[float] = []
    for frame in frames:
        padded = F.pad(frame[None, None], (0, 64), mode="reflect")
        spectrum = F.conv1d(padded, weights["model.stft.forward_basis_buffer"], stride=128)
        x = (spectrum[:, :129].square() + spectrum[:, 129:].square()).sqrt()
        for number, (_, _, stride) in enumerate(CONVOLUTIONS):
            kernel, bias = (weights[f"model.encoder.{number}.reparam_conv.{kind}"] for kind in ("weight", "bias"))
            x = F.conv1d(x, kernel, bias, stride, padding=1).relu()
        h, c = lstm(x[:, :, 0], (h, c))
        weight, bias = (weights[f"model.decoder.decoder.2.{kind}"] for kind in ("weight", "bias"))
        found.append(float(F.conv1d(h.relu()[:, :, None], weight, bias).sigmoid()))
    return found


def graph_of(weights: dict[str, Any]) -> onnx.ModelProto:
    """A graph that holds these weights and nothing else."""
    constants = [numpy_helper.from_array(value.numpy(), name) for name, value in weights.items()]
    return helper.make_model(helper.make_graph([], "weights", [], [], constants))


def test_frames_in_one_run_are_frames_one_after_the_other() -> None:
    frames = torch.randn(7, 576) * torch.logspace(-3, 0, 7)[:, None]
    model = several_frames(graph_of(network()[0]))
    session: Any = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = reference(frames)
    assert np.ptp(expected) > 0.05
    for n in (1, 3, 7):
        h = c = np.zeros((1, 1, 128), np.float32)
        found: list[float] = []
        for at in range(0, len(frames), n):
            probabilities, h, c = session.run(None, {"frames": frames[at : at + n].numpy(), "h": h, "c": c})
            found += probabilities[:, 0].tolist()
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_another_graph_is_refused() -> None:
    weights, _ = network()
    del weights["model.encoder.3.reparam_conv.bias"]
    with pytest.raises(CheckpointError, match=r"not Silero VAD's graph for 16 kHz .*encoder\.3\.reparam_conv\.bias"):
        several_frames(graph_of(weights))


def test_what_is_missing_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.onnx"), str(tmp_path / "out.onnx")]) == 2
    assert "none.onnx is not there: take silero_vad/data" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
