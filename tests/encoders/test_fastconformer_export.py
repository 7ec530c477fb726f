"""FastConformer's checkpoint: what is read of it, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from auricle.models.encoders.fastconformer import CANARY_QWEN, INPUT, AdapterSpec
from auricle.models.errors import CheckpointError
from fastconformer_golden import CHECKPOINT, TINY, load


@pytest.fixture(scope="module")
def loaded() -> Any:
    """The golden checkpoint's perception part."""
    pytest.importorskip("torch")
    return load(CHECKPOINT)


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
    from auricle.export.encoders.fastconformer_modules import FastConformer

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
    from auricle.export.encoders.fastconformer import export_fastconformer
    from auricle.export.graphs.onnx_graph import run_graph
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
