"""FastConformer's front end: NeMo's log-mel without torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from auricle.models.audio import synthetic_clip
from auricle.models.encoders.fastconformer import LEAST_SAMPLES, Featurizer, features, n_frames, read_featurizer
from auricle.models.errors import BundleError
from fastconformer_golden import CHECKPOINT, CLIPS, TABLES, golden_clip, load
from hypothesis import example, given, settings
from hypothesis import strategies as st


@pytest.fixture(params=CLIPS)
def clip(request: pytest.FixtureRequest, golden: Path) -> dict[str, np.ndarray]:
    return golden_clip(golden, request.param)


@pytest.fixture(scope="module")
def loaded() -> Any:
    """The golden checkpoint's perception part."""
    pytest.importorskip("torch")
    return load(CHECKPOINT)


@pytest.fixture(scope="module")
def tables() -> Featurizer:
    """The golden checkpoint's filter bank and window, read without torch."""
    prefix = "perception.preprocessor.featurizer"
    return Featurizer(bfloat16(f"{prefix}.fb")[0], bfloat16(f"{prefix}.window"))


def bfloat16(name: str) -> np.ndarray:
    """A tensor of the golden checkpoint: the upper halves of float32 numbers."""
    raw = (CHECKPOINT / "model.safetensors").read_bytes()
    data = 8 + int.from_bytes(raw[:8], "little")
    entry = json.loads(raw[8:data])[name]
    begin, end = (data + offset for offset in entry["data_offsets"])
    upper = np.frombuffer(raw[begin:end], "<u2").astype(np.uint32) << 16
    return upper.view(np.float32).reshape(entry["shape"])


def test_features_match_the_reference(tables: Featurizer, clip: dict[str, np.ndarray]) -> None:
    """To what NeMo's float32 transform is worth: 1e-4, but for bands that hardly hear anything."""
    result = features(clip["pcm_float32"], tables)
    assert result.dtype == np.float32 and result.shape == (1, *clip["features"].shape)
    off = np.abs(result[0] - clip["features"])
    assert off.max() < 1.2e-3 and np.mean(off > 1e-4) < (0.06 if len(clip["pcm_float32"]) == 640_000 else 2e-4)


def test_what_remains_is_the_rounding_of_the_reference(loaded: Any, clip: dict[str, np.ndarray]) -> None:
    """NeMo's recipe in torch: in float32 it gives the golden features, in float64 it gives ours.

    In which order float32 is transformed is the processor's: 1.2e-4 apart on the golden data's, 1.4e-3 on another.
    """
    import torch

    result = features(clip["pcm_float32"], Featurizer(loaded.fb, loaded.window))[0]
    off = recipe(clip, loaded, torch.float32) - clip["features"]
    assert np.abs(off).max() < 2e-3 and np.sqrt(np.mean(off**2)) < 1e-4
    np.testing.assert_allclose(recipe(clip, loaded, torch.float64), result, rtol=0, atol=3e-4)


@pytest.mark.parametrize("change", [{"pad_mode": "reflect"}, {"periodic": True}, {"correction": 0}, {"emphasis": 0.95}])
def test_trap_30_each_wrong_step_is_noticed(loaded: Any, golden: Path, change: dict[str, Any]) -> None:
    import torch

    with np.load(golden / "salm-tiny" / "noise_1s.npz") as arrays:
        found = {"pcm_float32": arrays["pcm_float32"], "features": arrays["features"][:, :100]}
    assert np.abs(recipe(found, loaded, torch.float64) - found["features"]).max() < 1e-4
    assert np.abs(recipe(found, loaded, torch.float64, **change) - found["features"]).max() > 1e-3


def recipe(
    clip: dict[str, np.ndarray],
    loaded: Any,
    dtype: Any,
    pad_mode: str = "constant",
    periodic: bool = False,
    correction: int = 1,
    emphasis: float = 0.97,
) -> np.ndarray:
    """FilterbankFeatures.forward; pre-emphasis in float32 as there."""
    import torch

    x = torch.from_numpy(clip["pcm_float32"])
    x = torch.cat([x[:1], x[1:] - emphasis * x[:-1]])
    window = torch.hann_window(400, dtype=dtype) if periodic else torch.from_numpy(loaded.window).to(dtype)
    spectrum = torch.stft(x.to(dtype), 512, 160, 400, window, center=True, pad_mode=pad_mode, return_complex=True)
    power = torch.view_as_real(spectrum).pow(2).sum(-1)[:, : len(x) // 160]
    logs = torch.log(torch.from_numpy(loaded.fb).to(dtype) @ power + 2**-24)
    std = logs.std(dim=1, correction=correction, keepdim=True)
    return ((logs - logs.mean(dim=1, keepdim=True)) / (std + 1e-5)).numpy()


def test_trap_27_the_checkpoints_own_tables_are_used(loaded: Any, tables: Featurizer, tmp_path: Path) -> None:
    from auricle.export.encoders.fastconformer import write_featurizer

    write_featurizer(tmp_path / "featurizer.npz", loaded.fb, loaded.window)
    read = read_featurizer(tmp_path / "featurizer.npz", 128)
    assert read.fb[0, 1] == 0.0283203125 and read.window[100] == 0.50390625
    np.testing.assert_array_equal(read.fb, tables.fb)
    np.testing.assert_array_equal(read.window, tables.window)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(0, 20_000), seed=st.integers(0, 9))
@example(n=0, seed=0)
@example(n=319, seed=0)
@example(n=320, seed=0)
@example(n=479, seed=0)
def test_frames_of_any_length_are_valid_and_normal(n: int, seed: int) -> None:
    clip = np.random.default_rng(seed).uniform(-1, 1, n).astype(np.float32)
    result = features(clip, TABLES)[0]
    assert result.shape == (128, n_frames(max(n, LEAST_SAMPLES))) and np.isfinite(result).all()
    assert np.abs(result.mean(axis=1)).max() < 1e-5
    if n >= LEAST_SAMPLES:
        np.testing.assert_allclose(result.std(axis=1, ddof=1), 1.0, rtol=0, atol=1e-2)


def test_a_clip_of_less_than_two_frames_is_padded_with_silence() -> None:
    clip = synthetic_clip(0, 0.01)
    np.testing.assert_array_equal(features(clip, TABLES), features(np.pad(clip, (0, 160)), TABLES))


def test_silence_is_zero_everywhere() -> None:
    assert np.abs(features(np.zeros(16_000, np.float32), TABLES)).max() < 1e-6


def spoil(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Writes the tables with one thing changed."""

    def write(path: Path) -> None:
        tables: dict[str, Any] = {"fb": TABLES.fb, "window": TABLES.window}
        change(tables)
        np.savez(path, **tables)

    return write


def write_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, TABLES.fb)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: None, "is missing"),
        (lambda path: path.write_bytes(b""), "does not hold a filter bank"),
        (lambda path: path.write_bytes(b"PK\x03\x04 and no more"), "does not hold a filter bank"),
        (write_array, "does not hold a filter bank"),
        (spoil(lambda t: t.pop("window")), "does not hold a filter bank"),
        (spoil(lambda t: t.update(fb=np.array([None]))), "does not hold a filter bank"),
        (spoil(lambda t: t.update(fb=t["fb"][:80])), r"fb of float32 \[80, 257\] where float32 \[128, 257\]"),
        (spoil(lambda t: t.update(window=t["window"].astype(np.float64))), r"window of float64 \[400\]"),
        (spoil(lambda t: t.update(fb=t["fb"] * np.nan)), "all finite"),
    ],
)
def test_a_wrong_or_damaged_featurizer_is_refused(tmp_path: Path, write: Callable[[Path], None], words: str) -> None:
    path = tmp_path / "featurizer.npz"
    write(path)
    with pytest.raises(BundleError, match=words):
        read_featurizer(path, 128)
