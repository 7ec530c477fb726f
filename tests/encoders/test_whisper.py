"""Whisper: the log-mel front end without torch; the encoder and its graph with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from auricle.models.audio import synthetic_clip
from auricle.models.encoders.whisper import WHISPER_LARGE_V2, WhisperSpec, log_mel, mel_filters
from auricle.models.errors import CheckpointError
from auricle.runtime.encoders.whisper import WhisperEncoder
from hypothesis import example, given, settings
from hypothesis import strategies as st

TEN_SECONDS = WhisperSpec(d_model=8, n_layers=1, n_heads=1, d_ffn=8, n_positions=500)
ONE_SECOND = WhisperSpec(d_model=8, n_layers=1, n_heads=1, d_ffn=8, n_positions=50)


def test_log_mel_matches_the_reference(clip: dict[str, np.ndarray]) -> None:
    result = log_mel(clip["pcm_float32"], WHISPER_LARGE_V2)
    assert result.dtype == np.float32 and result.shape == (1, 80, 3000)
    np.testing.assert_allclose(result[0], clip["log_mel"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("n", [0, 1, 16_000, 480_000])
def test_silence_is_minus_one_and_a_half_everywhere(n: int) -> None:
    assert np.all(log_mel(np.zeros(n, np.float32), WHISPER_LARGE_V2) == np.float32(-1.5))


def test_nothing_is_more_than_eight_decades_below_the_loudest_bin() -> None:
    result = log_mel(synthetic_clip(1, 1.0), TEN_SECONDS)
    assert result.min() == pytest.approx(result.max() - 2.0, abs=1e-6)


def test_what_lies_beyond_the_window_is_not_heard() -> None:
    clip = synthetic_clip(2, 12.0)
    np.testing.assert_array_equal(log_mel(clip, TEN_SECONDS), log_mel(clip[:160_000], TEN_SECONDS))


@settings(max_examples=40, deadline=None)
@given(n=st.integers(0, 17_000), seed=st.integers(0, 9))
@example(n=15_999, seed=0)
@example(n=15_600, seed=0)
@example(n=15_599, seed=0)
@example(n=16_000, seed=0)
def test_any_length_equals_the_transform_of_the_whole_padded_clip(n: int, seed: int) -> None:
    clip = np.random.default_rng(seed).uniform(-1, 1, n).astype(np.float32)
    np.testing.assert_allclose(log_mel(clip, ONE_SECOND)[0], plain_log_mel(clip, 16_000), rtol=0, atol=1e-6)


def plain_log_mel(clip: np.ndarray, n_samples: int) -> np.ndarray:
    """The definition, frame by frame: reflect, window, DFT, filters, clamp; the last frame dropped."""
    padded = np.pad(np.pad(clip, (0, max(0, n_samples - len(clip))))[:n_samples].astype(np.float64), 200, "reflect")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    powers = [np.abs(np.fft.rfft(padded[i : i + 400] * hann)) ** 2 for i in range(0, n_samples, 160)]
    logs = np.log10(np.maximum(np.stack(powers) @ mel_filters(80), 1e-10))
    return ((np.maximum(logs, logs.max() - 8) + 4) / 4).T


def test_mel_filters_have_slaney_area_and_end_at_nyquist() -> None:
    filters = mel_filters(80)
    assert filters.shape == (201, 80)
    assert np.all(filters.max(axis=0) > 0), "no filter may be empty"
    assert filters[0].max() == 0 and filters[200].max() == pytest.approx(0.0, abs=1e-12)
    step = 45.2456404719 / 81 * 200 / 3  # Hz between the linear filters' edges
    assert filters[1, 0] == pytest.approx(2 / (2 * step) * (1 - (40 - step) / step), rel=1e-6)


def test_mel_filters_equal_transformers() -> None:
    pytest.importorskip("torch")
    from transformers.audio_utils import mel_filter_bank

    theirs = mel_filter_bank(201, 80, 0.0, 8000.0, 16000, norm="slaney", mel_scale="slaney")
    np.testing.assert_allclose(mel_filters(80), theirs, rtol=0, atol=1e-9)


def test_encoder_matches_the_reference(parts: SimpleNamespace, clip: dict[str, np.ndarray]) -> None:
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        speech = parts.whisper(torch.from_numpy(clip["log_mel"][None])).last_hidden_state[0].numpy()
    np.testing.assert_allclose(speech, clip["speech_encoder"], rtol=0, atol=1e-4)


def test_graph_matches_the_reference(
    parts: SimpleNamespace, graphs: dict[str, Path], clip: dict[str, np.ndarray]
) -> None:
    from auricle.export.graphs.onnx_graph import graph_info
    from auricle.runtime.system.ort import OrtOptions, open_session

    info = graph_info(graphs["whisper"])
    session = open_session(graphs["whisper"], info.inputs, info.outputs, OrtOptions("cpu", threads=1))
    speech = WhisperEncoder(session, parts.whisper_spec).encode(clip["pcm_float32"]).numpy()
    np.testing.assert_allclose(speech[0], normed(parts, clip), rtol=0, atol=1e-4)


def normed(parts: SimpleNamespace, clip: dict[str, np.ndarray]) -> np.ndarray:
    """The golden encoder output behind ln_speech, in numpy float64."""
    x = clip["speech_encoder"].astype(np.float64)
    x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    return x * parts.state["ln_speech.weight"].numpy() + parts.state["ln_speech.bias"].numpy()


@pytest.fixture
def directory(golden: Path, tmp_path: Path) -> Path:
    """A copy of the golden Whisper directory, to be spoilt."""
    pytest.importorskip("torch")
    return Path(shutil.copytree(golden / "salmonn-tiny" / "checkpoint" / "whisper", tmp_path / "whisper"))


def state_of(directory: Path) -> dict[str, Any]:
    import torch

    return torch.load(directory / "pytorch_model.bin", weights_only=True)


@pytest.mark.parametrize("form", ["model.", "half", "safetensors", "sharded", "encoder only"])
def test_every_form_of_the_weights_is_read(directory: Path, parts: SimpleNamespace, form: str) -> None:
    import torch
    from auricle.export.encoders.whisper import load_whisper
    from safetensors.torch import save_file

    state = {k: v.clone() for k, v in state_of(directory).items()}
    (directory / "pytorch_model.bin").unlink()
    if form == "model.":
        torch.save({f"model.{k}": v for k, v in state.items()}, directory / "pytorch_model.bin")
    elif form == "half":
        torch.save({k: v.half() for k, v in state.items()}, directory / "pytorch_model.bin")
    elif form == "encoder only":
        torch.save({k: v for k, v in state.items() if k.startswith("encoder.")}, directory / "pytorch_model.bin")
    elif form == "safetensors":
        save_file({f"model.{k}": v for k, v in state.items()}, directory / "model.safetensors")
    else:
        names = sorted(state)
        shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
        for file, inside in shards.items():
            save_file({k: state[k] for k in inside}, directory / file)
        index = {"weight_map": {k: file for file, inside in shards.items() for k in inside}}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    spec, encoder = load_whisper(directory)
    assert spec == parts.whisper_spec == WhisperSpec(64, 2, 4, 128)
    tolerance = 1e-3 if form == "half" else 0.0
    for mine, theirs in zip(encoder.state_dict().values(), parts.whisper.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=tolerance)


def test_missing_tensors_are_listed(directory: Path) -> None:
    import torch
    from auricle.export.encoders.whisper import load_whisper

    state = state_of(directory)
    del state["encoder.layers.1.fc2.bias"], state["encoder.conv1.weight"]
    torch.save({f"model.{k}" if k.startswith("encoder") else k: v for k, v in state.items()}, directory / "x.bin")
    (directory / "x.bin").rename(directory / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"missing: .*layers\.1\.fc2\.bias"):
        load_whisper(directory)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_mel_bins": 128}, "128 mel bands.*whisper-large-v2"),
        ({"model_type": "llama"}, "'llama'.*whisper-large-v2"),
        ({"activation_function": "relu"}, "activation_function='relu'"),
        ({"scale_embedding": True}, "scale_embedding"),
        ({"d_model": None}, "d_model=None"),
        ({"encoder_ffn_dim": 96}, r"fc1.weight is \[128, 64\] where \[96, 64\]"),
    ],
)
def test_another_model_is_refused(directory: Path, change: dict[str, object], words: str) -> None:
    from auricle.export.encoders.whisper import load_whisper

    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(CheckpointError, match=words):
        load_whisper(directory)
