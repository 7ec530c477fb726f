"""FastConformer: NeMo's front end without torch; encoder, adapter, projection and their graph with it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from earshot.models.audio import synthetic_clip
from earshot.models.errors import AudioError, BundleError, CheckpointError
from earshot.models.fastconformer import (
    CANARY_QWEN,
    INPUT,
    LEAST_SAMPLES,
    AdapterSpec,
    FastConformerSpec,
    n_frames,
    n_tokens,
)
from earshot.runtime.fastconformer import FastConformerEncoder, Featurizer, features, read_featurizer
from hypothesis import example, given, settings
from hypothesis import strategies as st

CHECKPOINT = Path(__file__).parent / "golden" / "salm-tiny" / "checkpoint"
CLIPS = ("jfk_11s", "noise_1s", "tone_40s")
TINY = FastConformerSpec(64, 2, 4, 256, 9, 16, d_llm=64)
TABLES = Featurizer(
    np.random.default_rng(0).uniform(0, 0.1, (128, 257)).astype(np.float32),
    np.hanning(400).astype(np.float32),
)


@pytest.fixture(params=CLIPS)
def clip(request: pytest.FixtureRequest, golden: Path) -> dict[str, np.ndarray]:
    """One golden clip: name -> array; `features` without the frame that NeMo masks."""
    with np.load(golden / "salm-tiny" / f"{request.param}.npz") as arrays:
        found = {name: arrays[name] for name in arrays.files}
    return {**found, "features": found["features"][:, : int(found["n_features"])]}


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


def load(directory: Path) -> Any:
    from earshot.export.checkpoint import Weights, read_json
    from earshot.export.fastconformer import load_fastconformer

    return load_fastconformer(read_json(directory / "config.json"), Weights(directory), directory)


@pytest.fixture(scope="module")
def graph(loaded: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its graph in float32. Read-only."""
    from earshot.export.fastconformer import export_fastconformer

    path = tmp_path_factory.mktemp("salm") / "fastconformer.onnx"
    export_fastconformer(loaded.module, loaded.spec, path)
    return path


@pytest.fixture
def encoder(loaded: Any, graph: Path) -> FastConformerEncoder:
    return encoder_of(graph, loaded)


def encoder_of(graph: Path, loaded: Any) -> FastConformerEncoder:
    from earshot.export.graph import graph_info
    from earshot.runtime.ort import OrtOptions, open_session

    info = graph_info(graph)
    session = open_session(graph, info.inputs, info.outputs, OrtOptions("cpu", threads=1))
    return FastConformerEncoder(session, loaded.spec, Featurizer(loaded.fb, loaded.window))


# The front end


def test_features_match_the_reference(tables: Featurizer, clip: dict[str, np.ndarray]) -> None:
    """To what NeMo's float32 transform is worth: 1e-4, but for bands that hardly hear anything."""
    result = features(clip["pcm_float32"], tables)
    assert result.dtype == np.float32 and result.shape == (1, *clip["features"].shape)
    off = np.abs(result[0] - clip["features"])
    assert off.max() < 1.2e-3 and np.mean(off > 1e-4) < (0.06 if len(clip["pcm_float32"]) == 640_000 else 2e-4)


def test_what_remains_is_the_rounding_of_the_reference(loaded: Any, clip: dict[str, np.ndarray]) -> None:
    """NeMo's recipe in torch: in float32 it gives the golden features, in float64 it gives ours."""
    import torch

    result = features(clip["pcm_float32"], Featurizer(loaded.fb, loaded.window))[0]
    np.testing.assert_allclose(recipe(clip, loaded, torch.float32), clip["features"], rtol=0, atol=1.2e-4)
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
    from earshot.export.fastconformer import write_featurizer

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


# How many tokens


def test_tokens_are_three_halvings_each_rounded_up() -> None:
    for n in range(1, 4001):
        left = n
        for _ in range(3):
            left = (left - 1) // 2 + 1
        assert n_tokens(n) == left == -(-n // 8)


def test_trap_28_the_frame_too_much_is_dropped(loaded: Any, encoder: FastConformerEncoder) -> None:
    for seconds, frames, tokens in ((11, 1100, 138), (40, 4000, 500), (1, 100, 13)):
        waveform = synthetic_clip(seconds, seconds)
        assert features(waveform, encoder.featurizer).shape[2] == frames
        assert len(encoder.audio_tokens(waveform)) == tokens


@pytest.mark.parametrize("n", [0, 1, 319, 320, 1280, 1439, 1440, 12_345, 640_000, 640_319])
def test_a_clip_of_any_length_is_encoded(encoder: FastConformerEncoder, n: int) -> None:
    tokens = encoder.audio_tokens(np.random.default_rng(n).uniform(-1, 1, n).astype(np.float32))
    assert tokens.shape == (n_tokens(n_frames(max(n, LEAST_SAMPLES))), 64) and tokens.dtype == np.float32
    assert np.isfinite(tokens).all()


def test_a_clip_that_is_too_long_is_refused() -> None:
    encoder = FastConformerEncoder(SimpleNamespace(), TINY, TABLES)  # pyright: ignore
    with pytest.raises(AudioError, match=r"40\.0 s where one pass hears 40 s"):
        encoder.audio_tokens(np.zeros(640_320, np.float32))


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 9, 15, 16, 17, 33, 63, 101, 1100, 1101, 4001])
def test_graph_equals_the_reference_at_any_length(loaded: Any, graph: Path, n: int) -> None:
    """And both equal the reference on a padded clip with a mask, which is how NeMo sees it."""
    import torch
    from earshot.export.graph import run_graph

    frames = np.random.default_rng(n).standard_normal((1, 128, n)).astype(np.float32)
    found = run_graph(graph, {INPUT: frames})[0]
    padded = torch.from_numpy(np.pad(frames, ((0, 0), (0, 0), (0, 5))))
    with torch.no_grad():
        plain = loaded.module(torch.from_numpy(frames)).numpy()
        mask = torch.arange(n + 5)[None] < n
        masked = loaded.module.encoder(padded.transpose(1, 2), attention_mask=mask).last_hidden_state[:, : n_tokens(n)]
        masked = loaded.module.proj(masked).numpy()
    assert found.shape == (1, n_tokens(n), 64)
    np.testing.assert_allclose(found, plain, rtol=0, atol=2e-5)
    np.testing.assert_allclose(found, masked, rtol=0, atol=2e-5)


# The encoder


def test_encoder_matches_the_reference(loaded: Any, clip: dict[str, np.ndarray]) -> None:
    import torch

    frames = torch.from_numpy(clip["features"][None])
    with torch.no_grad():
        speech, tokens = loaded.module.speech(frames)[0].numpy(), loaded.module(frames)[0].numpy()
    np.testing.assert_allclose(speech, clip["speech_encoder"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(tokens, clip["audio_tokens"], rtol=0, atol=1e-4)


def test_graph_matches_the_reference(graph: Path, clip: dict[str, np.ndarray]) -> None:
    from earshot.export.graph import run_graph

    tokens = run_graph(graph, {INPUT: clip["features"][None]})[0]
    np.testing.assert_allclose(tokens[0], clip["audio_tokens"], rtol=0, atol=1e-4)


def test_audio_tokens_match_the_reference(encoder: FastConformerEncoder, clip: dict[str, np.ndarray]) -> None:
    """From the samples: what is left of NeMo's rounding in silent bands is 2e-4 on the tone."""
    tokens = encoder.audio_tokens(clip["pcm_float32"])
    tolerance = 3e-4 if len(clip["pcm_float32"]) == 640_000 else 1e-4
    np.testing.assert_allclose(tokens, clip["audio_tokens"], rtol=0, atol=tolerance)


def test_positions_are_rounded_as_the_models_are() -> None:
    torch = pytest.importorskip("torch")
    from earshot.export.conformer import sinusoids

    table = sinusoids(torch.arange(3, -4, -1), 8)
    assert torch.equal(table, table.bfloat16().float()) and table.shape == (7, 8)
    exact = np.stack([np.sin(2.0 / 10.0 ** np.arange(4)), np.cos(2.0 / 10.0 ** np.arange(4))], axis=1).ravel()
    np.testing.assert_allclose(table[1].numpy(), exact, rtol=2**-8, atol=0)


# The checkpoint


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A copy of the golden checkpoint, to be spoilt."""
    pytest.importorskip("torch")
    shutil.copytree(CHECKPOINT, tmp_path / "salm", ignore=shutil.ignore_patterns("qwen3"))
    return tmp_path / "salm"


def configure(directory: Path, part: str, **changed: object) -> None:
    """Change a part of config.json's perception; a value of ... takes the key away."""
    config = json.loads((directory / "config.json").read_text())
    section = config["perception"][part] if part else config["perception"]
    section.update(changed)
    for key in [key for key, value in changed.items() if value is ...]:
        del section[key]
    (directory / "config.json").write_text(json.dumps(config))


def change_tensors(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(directory / "model.safetensors")
    change(state)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, directory / "model.safetensors")


def test_specs(loaded: Any) -> None:
    assert loaded.spec == TINY
    assert CANARY_QWEN.n_samples == 640_000


def test_trap_29_the_input_is_scaled_only_where_the_configuration_says_so(
    loaded: Any, directory: Path, golden: Path
) -> None:
    import torch
    from earshot.export.conformer import FastConformer

    configure(directory, "encoder", xscaling=...)  # NeMo's default is true
    scaled = load(directory)
    assert scaled.module.encoder.input_scale == 8.0 and loaded.module.encoder.input_scale == 1.0
    with np.load(golden / "salm-tiny" / "noise_1s.npz") as arrays, torch.no_grad():
        frames, tokens = torch.from_numpy(arrays["features"][None, :, :100]), arrays["audio_tokens"]
        found = FastConformer(scaled.module, scaled.spec)(frames).numpy()
        np.testing.assert_allclose(found, scaled.module(frames).numpy(), rtol=0, atol=1e-4)
    assert np.abs(found[0] - tokens).max() > 0.1


ADAPTER: dict[str, object] = {
    "_target_": "nemo.collections.asr.modules.ConformerEncoder",
    "target": ...,
    **{"feat_in": 64, "feat_out": -1, "n_layers": 2, "d_model": 32, "n_heads": 2, "conv_kernel_size": 5},
    **{"subsampling": "dw_striding", "subsampling_factor": 1, "subsampling_conv_channels": 256},
    **{"att_context_size": [-1, -1], "conv_norm_type": "batch_norm", "xscaling": True, "untie_biases": True},
}


@pytest.fixture
def adapted(directory: Path) -> Path:
    """The golden checkpoint with a Conformer of two layers, half as wide, between encoder and projection."""
    configure(directory, "modality_adapter", **{**ADAPTER, "target": ...})
    change_tensors(directory, add_adapter)
    return directory


def add_adapter(state: dict[str, Any]) -> None:
    import torch

    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Any:
        return torch.randn(shape, generator=generator) * 0.2

    for name, tensor in list(state.items()):
        if name.startswith("perception.encoder.layers."):
            shape = [{64: 32, 256: 128, 128: 64, 4: 2, 9: 5}.get(int(n), int(n)) for n in tensor.shape]
            new = random(*shape) if tensor.is_floating_point() else tensor.clone()
            new = new.abs() + 0.5 if name.endswith("running_var") else new
            state[name.replace(".encoder.", ".modality_adapter.")] = new
    state["perception.modality_adapter.pre_encode.weight"] = random(32, 64)
    state["perception.modality_adapter.pre_encode.bias"] = random(32)
    state["perception.proj.weight"] = random(64, 32)


def test_the_conformer_adapter_is_read_and_exported(adapted: Path, tmp_path: Path, golden: Path) -> None:
    import torch
    from earshot.export.fastconformer import export_fastconformer
    from earshot.export.graph import run_graph
    from transformers import ParakeetEncoder

    loaded = load(adapted)
    assert loaded.spec.adapter == AdapterSpec(32, 2, 2, 128, 5, scale_input=True)
    with np.load(golden / "salm-tiny" / "noise_1s.npz") as arrays:
        frames, speech = arrays["features"][None, :, :100], torch.from_numpy(arrays["speech_encoder"][None])
    twin = ParakeetEncoder(loaded.module.adapter.layers[0].self_attn.config)  # its layers, by transformers' own forward
    twin.layers, twin.encode_positions = loaded.module.adapter.layers, loaded.module.encoder.encode_positions
    twin.subsampling = Bridge(loaded.module.adapter.pre_encode)
    with torch.no_grad():
        expected = loaded.module.proj(twin.eval()(speech).last_hidden_state).numpy()
        np.testing.assert_allclose(loaded.module(torch.from_numpy(frames)).numpy(), expected, rtol=0, atol=1e-3)
        reference = loaded.module(torch.from_numpy(frames)).numpy()
    export_fastconformer(loaded.module, loaded.spec, tmp_path / "adapted.onnx")
    np.testing.assert_allclose(run_graph(tmp_path / "adapted.onnx", {INPUT: frames})[0], reference, rtol=0, atol=1e-4)


def Bridge(linear: Any) -> Any:
    """Stands where the subsampling is: NeMo's pre_encode of an encoder that does not subsample."""
    import torch

    class Module(torch.nn.Module):
        def forward(self, x: Any, mask: Any = None) -> Any:
            return linear(x)

    return Module()


def test_missing_tensors_are_listed(directory: Path) -> None:
    change_tensors(directory, lambda state: state.pop("perception.encoder.layers.1.self_attn.pos_bias_u"))
    with pytest.raises(CheckpointError, match=r"missing: .*layers\.1\.self_attn\.pos_bias_u"):
        load(directory)


def test_unknown_tensors_are_listed(directory: Path) -> None:
    import torch

    change_tensors(directory, lambda state: state.update({"perception.encoder.out_proj.weight": torch.zeros(2)}))
    with pytest.raises(CheckpointError, match=r"does not explain: perception\.encoder\.out_proj\.weight"):
        load(directory)


def test_counters_of_training_may_be_absent(directory: Path) -> None:
    def drop(state: dict[str, Any]) -> None:
        for name in [name for name in state if name.endswith("num_batches_tracked")]:
            del state[name]

    change_tensors(directory, drop)
    assert load(directory).spec == TINY


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("", {"encoder": None}, r"no perception\.encoder"),
        ("", {"target": "x.AudioTranscriptionPerceptionModule"}, "AudioTranscriptionPerceptionModule"),
        ("", {"rote": {"dim": 8}}, r"perception\.rote"),
        ("", {"output_dim": None}, r"perception\.output_dim=None"),
        ("", {"output_dim": 96}, r"proj.weight is \[64, 64\] where \[96, 64\]"),
        ("preprocessor", {"normalize": "all_features"}, r"normalize='all_features': only 'per_feature'"),
        ("preprocessor", {"sample_rate": 8000}, "sample_rate=8000"),
        ("preprocessor", {"window_size": ...}, r"window_size=0\.02"),
        ("preprocessor", {"window_stride": 0.0125}, r"window_stride=0\.0125"),
        ("preprocessor", {"n_fft": 1024}, "n_fft=1024"),
        ("preprocessor", {"log": False}, "log=False"),
        ("preprocessor", {"frame_splicing": 3}, "frame_splicing=3"),
        ("preprocessor", {"preemph": None}, "preemph=None"),
        ("preprocessor", {"features": 80}, "feat_in=128: only 80"),
        ("encoder", {"subsampling": "striding"}, "subsampling='striding': only 'dw_striding'"),
        ("encoder", {"subsampling_factor": 4}, "subsampling_factor=4: only 8"),
        ("encoder", {"causal_downsampling": True}, "causal_downsampling=True"),
        ("encoder", {"self_attention_model": "rope"}, "self_attention_model='rope'"),
        ("encoder", {"att_context_size": [70, 13]}, r"att_context_size=\[70, 13\]"),
        ("encoder", {"untie_biases": False}, "untie_biases=False"),
        ("encoder", {"conv_norm_type": "layer_norm"}, "conv_norm_type='layer_norm'"),
        ("encoder", {"conv_context_size": "causal"}, "conv_context_size='causal'"),
        ("encoder", {"use_bias": False}, "use_bias=False"),
        ("encoder", {"reduction": "pooling"}, "reduction='pooling'"),
        ("encoder", {"feat_out": 128}, "feat_out=128"),
        ("encoder", {"n_heads": 3}, "n_heads=3"),
        ("encoder", {"conv_kernel_size": 8}, "conv_kernel_size=8"),
        ("encoder", {"_target_": "nemo.collections.asr.modules.SqueezeformerEncoder"}, "SqueezeformerEncoder"),
        ("encoder", {"ff_expansion_factor": 2}, r"linear1.weight is \[256, 64\] where \[128, 64\]"),
        ("encoder", {"n_layers": 3}, r"missing: perception.encoder.layers.2"),
        ("modality_adapter", {"target": "x.QformerConnector"}, "modality adapter QformerConnector: IdentityConnector"),
        ("modality_adapter", {"target": "x.MultiLayerProjectionConnector"}, "MultiLayerProjectionConnector"),
        ("modality_adapter", {"d_model": 32}, "d_model=32: only 64"),
        ("modality_adapter", {"output_dim": 64}, "output_dim=64"),
        ("modality_adapter", {**ADAPTER, "subsampling_factor": 8}, "subsampling_factor=8: only 1"),
        ("modality_adapter", {**ADAPTER, "feat_in": 512}, "feat_in=512: only 64"),
    ],
)
def test_another_model_is_refused(directory: Path, part: str, change: dict[str, object], words: str) -> None:
    configure(directory, part, **change)
    with pytest.raises(CheckpointError, match=words):
        load(directory)


# Precisions


def test_float16_graph_is_close(loaded: Any, graph: Path, clip: dict[str, np.ndarray], tmp_path: Path) -> None:
    from earshot.export.graph import compare, run_graph, to_fp16

    to_fp16(graph, tmp_path / "half.onnx")
    found = run_graph(tmp_path / "half.onnx", {INPUT: clip["features"][None]})[0][0]
    assert compare(found, clip["audio_tokens"])[1] < 2e-3


def frames_of(golden: Path, name: str) -> dict[str, np.ndarray]:
    """What the graph is fed for a golden clip."""
    with np.load(golden / "salm-tiny" / f"{name}.npz") as arrays:
        return {INPUT: arrays["features"][None, :, : int(arrays["n_features"])]}


def test_int8_graph_is_close(graph: Path, golden: Path, tmp_path: Path) -> None:
    from earshot.export.graph import operators
    from earshot.export.int8 import to_int8

    report = to_int8(graph, tmp_path / "int8.onnx", [frames_of(golden, name) for name in CLIPS[:2]], budget=0.03)
    print(f"int8: relative error {report.error:.4f}, {len(report.float_layers)} of {report.n_layers} layers in float")
    assert report.error < 0.03 and len(report.float_layers) <= 2 and report.n_layers == 4 + 2 * 11
    assert "Gather" not in operators(tmp_path / "int8.onnx"), "the tables of positions should be 8 bits too"


@pytest.mark.parametrize("n", [1, 8, 9, 17, 1101, 4001])
def test_int8_graph_hears_any_length(graph: Path, tmp_path: Path, n: int) -> None:
    from earshot.export.graph import compare, run_graph
    from earshot.export.int8 import write_int8

    write_int8(graph, tmp_path / "int8.onnx")
    frames = {INPUT: np.random.default_rng(n).standard_normal((1, 128, n)).astype(np.float32)}
    assert compare(run_graph(tmp_path / "int8.onnx", frames)[0], run_graph(graph, frames)[0])[1] < 0.06


def test_the_ranking_s_relative_attention_is_the_graph_s(graph: Path, golden: Path, tmp_path: Path) -> None:
    import onnx
    from earshot.export.attention import find_attention, float_attention, integer_attention, rewrite_attention
    from earshot.export.graph import read_model, run_graph

    model = read_model(graph)
    found = find_attention(model)
    assert list(found) == ["layers.0.self_attn", "layers.1.self_attn"]
    first = found["layers.0.self_attn"]
    assert first.far is not None and (first.n_heads, first.d_head) == (4, 16)
    output = first.nodes[-1].output[0]
    wanted = [*first.inputs, output]
    feeds = frames_of(golden, "jfk_11s")

    def tapped(name: str) -> list[np.ndarray]:
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
        onnx.save_model(model, tmp_path / name)
        del model.graph.output[1:]
        return [value[0] for value in run_graph(tmp_path / name, feeds, wanted)]

    q, k, v, plain = tapped("float.onnx")
    rewrite_attention(model, (), (first,))
    *_, integer = tapped("int8.onnx")
    numbers = first.far.read(tmp_path)
    scale = np.abs(plain).max()
    rows = slice(None, None, 7)
    np.testing.assert_allclose(float_attention(q, k, v, 4, rows, numbers), plain[rows], atol=1e-5)
    np.testing.assert_allclose(integer_attention(q, k, v, 4, rows, numbers), integer[rows], atol=2e-3 * scale)
    assert 0 < np.abs(integer - plain).max() < 0.1 * scale


def test_relative_attention_left_in_float_stays_as_it_is(graph: Path, golden: Path, tmp_path: Path) -> None:
    from earshot.export.attention import find_attention
    from earshot.export.graph import compare, operators, read_model, run_graph
    from earshot.export.int8 import write_int8

    write_int8(graph, tmp_path / "int8.onnx", list(find_attention(read_model(graph))))
    assert operators(tmp_path / "int8.onnx")["Softmax"] == operators(tmp_path / "int8.onnx")["Gather"] == 2
    feeds = frames_of(golden, "noise_1s")
    assert compare(run_graph(tmp_path / "int8.onnx", feeds)[0], run_graph(graph, feeds)[0])[1] < 0.03


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tensorrt_can_parse_the_graph(graph: Path, tmp_path: Path, precision: str) -> None:
    from earshot.export.graph import to_fp16
    from earshot.export.tensorrt import unsupported

    if precision == "fp16":
        to_fp16(graph, tmp_path / "half.onnx")
    assert unsupported(graph if precision == "fp32" else tmp_path / "half.onnx") == []


def test_a_hollow_module_has_the_same_graph(graph: Path, tmp_path: Path) -> None:
    from earshot.export.fastconformer import export_fastconformer, hollow_fastconformer
    from earshot.export.graph import graph_info, operators, run_graph
    from earshot.export.skeleton import RandomWeights

    path = tmp_path / "fastconformer.onnx"
    export_fastconformer(hollow_fastconformer(TINY), TINY, path, RandomWeights(0))
    assert operators(path) == operators(graph) and graph_info(path) == graph_info(graph)
    tokens = run_graph(path, {INPUT: np.random.default_rng(0).standard_normal((1, 128, 300)).astype(np.float32)})[0]
    assert tokens.shape == (1, 38, 64) and np.isfinite(tokens).all() and tokens.std() > 0
