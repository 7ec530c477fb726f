"""BEATs: the Kaldi filter bank without torch; the encoder, its checkpoint and its graph with it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from auricle.models.audio import Waveform
from auricle.models.encoders.beats import BEATS_ITER3_PLUS, fbank, filter_bank, n_frames
from auricle.models.errors import CheckpointError
from auricle.runtime.encoders.beats import BeatsEncoder
from hypothesis import example, given, settings
from hypothesis import strategies as st

FLOOR = np.float32(-2.3916928)
RELEASED = {
    **{"encoder_layers": 12, "encoder_embed_dim": 768, "encoder_ffn_embed_dim": 3072, "encoder_attention_heads": 12},
    **{"activation_fn": "gelu", "dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0},
    **{"encoder_layerdrop": 0.05, "dropout_input": 0.0, "layer_norm_first": False, "conv_bias": False},
    **{"conv_pos": 128, "conv_pos_groups": 16, "relative_position_embedding": True, "num_buckets": 320},
    **{"max_distance": 800, "gru_rel_pos": True, "deep_norm": True, "input_patch_size": 16},
    **{"layer_wise_gradient_decay_ratio": 0.6, "embed_dim": 512, "finetuned_model": True},
    **{"predictor_dropout": 0.0, "predictor_class": 527},
}


def noise(n: int, seed: int = 0) -> Waveform:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, n).astype(np.float32)


def test_fbank_matches_the_reference(clip: dict[str, np.ndarray]) -> None:
    result = fbank(clip["pcm_float32"])
    assert result.dtype == np.float32
    np.testing.assert_allclose(result[0], clip["fbank"], rtol=0, atol=5e-5)


def test_silence_is_the_float32_floor() -> None:
    np.testing.assert_allclose(fbank(np.zeros(16_000, np.float32)), FLOOR, rtol=0, atol=1e-6)


def test_values_are_divided_by_twice_the_deviation() -> None:
    loud, soft = fbank(noise(16_000)), fbank(noise(16_000) * np.float32(0.5))
    heard = np.delete(loud - soft, 3, axis=2)
    np.testing.assert_allclose(heard, math.log(4) / 13.11164, rtol=0, atol=1e-4)


def test_the_fourth_filter_is_empty_and_gives_the_floor() -> None:
    result = fbank(noise(16_000))
    np.testing.assert_allclose(result[..., 3], FLOOR, rtol=0, atol=1e-6)
    assert [i for i in range(128) if filter_bank()[:, i].max() == 0] == [3]
    assert np.delete(result, 3, axis=2).min() > FLOOR + 0.1


def test_a_constant_offset_is_not_heard() -> None:
    np.testing.assert_allclose(fbank(noise(8000) + np.float32(0.25)), fbank(noise(8000)), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("n", "frames"), [(16_000, 98), (80_000, 498), (160_000, 998), (480_000, 2998), (496_000, 3098)]
)
def test_frames_are_snipped_at_the_edges(n: int, frames: int) -> None:
    assert fbank(np.zeros(n, np.float32)).shape == (1, frames, 128)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(0, 40_000))
@example(n=399)
@example(n=400)
@example(n=559)
@example(n=560)
def test_any_length_has_the_frames_the_contract_says(n: int) -> None:
    result = fbank(noise(n))
    assert result.shape == (1, n_frames(n), 128)
    assert np.isfinite(result).all()


@settings(max_examples=30, deadline=None)
@given(n=st.integers(400, 4000), more=st.integers(0, 500))
def test_frames_do_not_hear_what_comes_after_them(n: int, more: int) -> None:
    clip = noise(n + more)
    np.testing.assert_array_equal(fbank(clip[:n]), fbank(clip)[:, : n_frames(n)])


@pytest.mark.parametrize(
    ("seconds", "tokens"),
    [(0.2, 8), (0.5, 24), (1, 48), (5, 248), (9.97, 496), (10, 496), (29.99, 1496), (30, 1496), (31, 1544)],
)
def test_tokens_per_clip(seconds: float, tokens: int) -> None:
    assert BEATS_ITER3_PLUS.n_tokens(n_frames(round(seconds * 16_000))) == tokens


def test_encoder_matches_the_reference(parts: SimpleNamespace, clip: dict[str, np.ndarray]) -> None:
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        audio = parts.beats(torch.from_numpy(clip["fbank"][None]).float())[0].numpy()
    np.testing.assert_allclose(audio, clip["audio_encoder"], rtol=0, atol=1e-4)


def test_graph_matches_the_reference(
    parts: SimpleNamespace, graphs: dict[str, Path], clip: dict[str, np.ndarray]
) -> None:
    encoder = BeatsEncoder(opened(graphs["beats"]))
    audio = encoder.encode(clip["pcm_float32"]).numpy()
    np.testing.assert_allclose(audio[0], normed(parts, clip), rtol=0, atol=1e-4)


@pytest.mark.parametrize("frames", [16, 31, 98, 113, 1544])
def test_graph_hears_any_length(parts: SimpleNamespace, graphs: dict[str, Path], frames: int) -> None:
    import torch
    from auricle.export.encoders.beats import AudioEncoder

    x = np.random.default_rng(frames).standard_normal((1, frames, 128)).astype(np.float32)
    with torch.no_grad():
        expected = AudioEncoder(parts.beats, parts.qformer.ln_audio)(torch.from_numpy(x)).numpy()
    result = opened(graphs["beats"]).run(fbank=x).numpy()
    assert result.shape == (1, parts.beats_spec.n_tokens(frames), 48)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-4)


def test_a_short_clip_is_padded_to_one_second(graphs: dict[str, Path]) -> None:
    encoder = BeatsEncoder(opened(graphs["beats"]))
    short = noise(3000)
    whole = np.pad(short, (0, 13_000))
    np.testing.assert_array_equal(encoder.encode(short).numpy(), encoder.encode(whole).numpy())
    assert encoder.encode(short).numpy().shape[1] == 48


def opened(path: Path) -> Any:
    from auricle.export.graphs.onnx_graph import graph_info
    from auricle.runtime.system.ort import OrtOptions, open_session

    info = graph_info(path)
    return open_session(path, info.inputs, info.outputs, OrtOptions("cpu", threads=1))


def normed(parts: SimpleNamespace, clip: dict[str, np.ndarray]) -> np.ndarray:
    """The golden encoder output behind ln_audio, in numpy float64."""
    x = clip["audio_encoder"].astype(np.float64)
    x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    return x * parts.state["ln_audio.weight"].numpy() + parts.state["ln_audio.bias"].numpy()


def test_a_clip_in_a_batch_is_heard_as_alone(parts: SimpleNamespace) -> None:
    import torch

    x = torch.randn(3, 130, 128)
    with torch.no_grad():
        together, alone = parts.beats(x), torch.cat([parts.beats(row[None]) for row in x])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_tokens_run_through_the_bands_first(parts: SimpleNamespace) -> None:
    """A 7 kHz tone moves the eighth band's tokens most; one that starts late, only late tokens."""
    import torch

    t = np.arange(32_000) / 16_000
    tone = np.where(t >= 1.0, 0.5 * np.sin(2 * np.pi * 7000 * t), 0.0).astype(np.float32)
    both = np.concatenate([fbank(tone), fbank(np.zeros_like(tone))])
    with torch.no_grad():
        patches = parts.beats.patch_embedding(torch.from_numpy(both)[:, None]).flatten(2).transpose(1, 2)
    moved = (patches[0] - patches[1]).norm(dim=1).numpy().reshape(-1, 8)
    assert np.all(moved[-3:].argmax(axis=1) == 7)
    assert np.all(moved[:5] == 0) and moved[-1, 7] > 1


def test_buckets_reach_to_800() -> None:
    pytest.importorskip("torch")
    from auricle.export.encoders.beats import bucket_of, bucket_table

    spec = BEATS_ITER3_PLUS
    distances = (0, -1, 1, 79, -79, 80, 800, 1000, -1000)
    assert [bucket_of(d, spec) for d in distances] == [0, 1, 161, 239, 79, 240, 319, 319, 159]
    assert bucket_of(700, spec) == 160 + 80 + int(math.log(700 / 80) / math.log(10) * 80)
    assert bucket_of(700, replace(spec, max_distance=1280)) != bucket_of(700, spec)
    assert bucket_table(spec).tolist()[800 - 1000 + 200] == 159
    assert len(bucket_table(spec)) == 1601


def test_position_bias_depends_on_key_minus_query(parts: SimpleNamespace) -> None:
    import torch

    encoder = parts.beats.encoder
    with torch.no_grad():
        bias, table = encoder.position_bias(1000), encoder.relative_attention_bias
    assert torch.equal(bias[:, 5, 9], table[160 + 4])
    assert torch.equal(bias[:, 9, 5], table[4])
    assert torch.equal(bias[:, 0, 999], table[160 + 159])


def test_gate_without_weights_is_one_and_three_quarters(parts: SimpleNamespace) -> None:
    import torch
    from auricle.export.encoders.beats import Beats

    layer: Any = Beats(parts.beats_spec).encoder.layers[0]
    attention = layer.self_attn
    for parameter in attention.grep_linear.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        assert torch.equal(attention.gate(torch.randn(1, 4, 5, 12)), torch.full((1, 4, 5, 1), 1.75))


def test_layers_add_to_a_multiple_of_their_input(parts: SimpleNamespace) -> None:
    from auricle.export.encoders.beats import Beats

    full_size = replace(parts.beats_spec, n_layers=12)
    assert Beats(full_size).encoder.layers[0].alpha == pytest.approx(2.2133638394)


def test_positional_convolution_drops_its_last_output(parts: SimpleNamespace) -> None:
    """With one tap, the last of 128, a token is moved by the one 63 places later, and no token by itself."""
    import torch
    from auricle.export.encoders.beats import Beats

    model = Beats(parts.beats_spec)
    conv: Any = model.encoder.pos_conv[0]
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[:, :, 127] = 1.0
        x = torch.zeros(1, 48, 100)
        x[:, :, 80] = 1.0
        moved = conv(x)[:, :, :100].abs().sum(1)[0]
    assert conv(x).shape[2] == 101
    assert moved.nonzero().flatten().tolist() == [80 - 63]


@pytest.fixture
def official(golden: Path) -> dict[str, Any]:
    """The golden BEATs checkpoint, loaded as anyone would, to be spoilt."""
    torch = pytest.importorskip("torch")
    return torch.load(golden / "salmonn-tiny" / "checkpoint" / "beats.pt", weights_only=True)


def saved(checkpoint: dict[str, Any], folder: Path) -> Path:
    import torch

    torch.save(checkpoint, folder / "beats.pt")
    return folder / "beats.pt"


def test_weight_norm_is_per_tap(official: dict[str, Any], parts: SimpleNamespace) -> None:
    import torch

    g, v = official["model"]["encoder.pos_conv.0.weight_g"], official["model"]["encoder.pos_conv.0.weight_v"]
    weight = parts.beats.encoder.pos_conv[0].weight
    for k in (0, 64, 127):
        expected = g[0, 0, k] * v[:, :, k] / v[:, :, k].norm()
        torch.testing.assert_close(weight[:, :, k], expected, rtol=1e-5, atol=1e-7)


def test_modern_names_and_a_single_table_are_read(
    official: dict[str, Any], parts: SimpleNamespace, tmp_path: Path
) -> None:
    from auricle.export.encoders.beats import load_beats

    state, conv = official["model"], "encoder.pos_conv.0"
    state[f"{conv}.parametrizations.weight.original0"] = state.pop(f"{conv}.weight_g")
    state[f"{conv}.parametrizations.weight.original1"] = state.pop(f"{conv}.weight_v")
    del state["encoder.layers.1.self_attn.relative_attention_bias.weight"]
    del state["predictor.weight"], state["predictor.bias"]
    _, model = load_beats(saved(official, tmp_path))
    for mine, theirs in zip(model.state_dict().values(), parts.beats.state_dict().values(), strict=True):
        assert mine.equal(theirs)


def test_a_second_table_is_refused(official: dict[str, Any], tmp_path: Path) -> None:
    from auricle.export.encoders.beats import load_beats

    key = "encoder.layers.1.self_attn.relative_attention_bias.weight"
    official["model"][key] = official["model"][key] + 1
    with pytest.raises(CheckpointError, match="layer 1 has a relative position table of its own"):
        load_beats(saved(official, tmp_path))


def test_every_mandatory_tensor_is_missed(official: dict[str, Any], tmp_path: Path) -> None:
    from auricle.export.encoders.beats import load_beats

    optional = ("predictor.", "encoder.layers.1.self_attn.relative_attention_bias")
    for key in [key for key in official["model"] if not key.startswith(optional)]:
        spoilt = {name: value for name, value in official["model"].items() if name != key}
        with pytest.raises(CheckpointError, match="missing"):
            load_beats(saved({"cfg": official["cfg"], "model": spoilt}, tmp_path))


def test_a_misshapen_tensor_is_named(official: dict[str, Any], tmp_path: Path) -> None:
    from auricle.export.encoders.beats import load_beats

    official["model"]["encoder.layers.0.fc1.bias"] = official["model"]["encoder.layers.0.fc1.bias"][:-1]
    with pytest.raises(CheckpointError, match=r"encoder\.layers\.0\.fc1\.bias is \[95\]"):
        load_beats(saved(official, tmp_path))


def test_official_state_is_read_back(parts: SimpleNamespace, tmp_path: Path) -> None:
    import torch
    from auricle.export.encoders.beats import Beats, cfg_from_spec, load_beats, official_state

    model = Beats(parts.beats_spec).eval()
    spec, again = load_beats(saved({"cfg": cfg_from_spec(model.spec), "model": official_state(model)}, tmp_path))
    assert spec == model.spec
    x = torch.randn(1, 98, 128)
    with torch.no_grad():
        torch.testing.assert_close(again(x), model(x), rtol=0, atol=1e-5)


def test_released_cfg_gives_the_released_spec() -> None:
    pytest.importorskip("torch")
    from auricle.export.encoders.beats import spec_from_cfg

    assert spec_from_cfg(RELEASED) == BEATS_ITER3_PLUS


@pytest.mark.parametrize(
    "change",
    [
        *({key: value} for key, value in (("layer_norm_first", True), ("activation_fn", "relu"), ("deep_norm", False))),
        *({key: value} for key, value in (("gru_rel_pos", False), ("conv_bias", True), ("finetuned_model", False))),
        *({key: value} for key, value in (("relative_position_embedding", False), ("encoder_layers", 0))),
        *({key: value} for key, value in (("encoder_layers", "12"), ("max_distance", 40), ("new_structure", 1))),
        *({key: value} for key, value in (("encoder_attention_heads", 7), ("num_buckets", 322))),
    ],
    ids=str,
)
def test_unknown_structure_is_refused(change: dict[str, Any]) -> None:
    pytest.importorskip("torch")
    from auricle.export.encoders.beats import spec_from_cfg

    with pytest.raises(CheckpointError):
        spec_from_cfg({**RELEASED, **change})


@pytest.mark.parametrize("key", ["deep_norm", "encoder_layers", "max_distance", "embed_dim", "activation_fn"])
def test_cfg_without_a_structural_key_is_refused(key: str) -> None:
    pytest.importorskip("torch")
    from auricle.export.encoders.beats import spec_from_cfg

    with pytest.raises(CheckpointError, match=key):
        spec_from_cfg({name: value for name, value in RELEASED.items() if name != key})


@pytest.mark.parametrize("other", ["salmonn.pth", "whisper/pytorch_model.bin", "vicuna/tokenizer.model", "nothing.pt"])
def test_another_file_is_refused(golden: Path, other: str) -> None:
    pytest.importorskip("torch")
    from auricle.export.encoders.beats import load_beats

    with pytest.raises(CheckpointError) as refused:
        load_beats(golden / "salmonn-tiny" / "checkpoint" / other)
    assert "\n" not in str(refused.value)
