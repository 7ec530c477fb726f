"""The Q-Former: reference, folded form, graph; windows, padding and the checkpoint's keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from auricle.models.encoders.qformer import QFormerSpec
from auricle.models.errors import CheckpointError
from auricle.models.families.salmonn import SALMONN_7B

RELEASED = SALMONN_7B.qformer


@pytest.mark.parametrize(
    ("seconds", "frames"), [(0.32, 16), (0.33, 16), (0.333333, 17), (0.34, 17), (0.5, 25), (1, 50)]
)
def test_window_in_frames(seconds: float, frames: int) -> None:
    spec = replace(RELEASED, second_per_window=seconds, second_stride=seconds)
    assert spec.window == spec.stride == frames


def test_released_windows() -> None:
    assert (RELEASED.n_windows(1500), RELEASED.n_windows(1544)) == (88, 90)


def heard(parts: SimpleNamespace, clip: dict[str, np.ndarray]) -> tuple[Any, Any]:
    """The golden encoder outputs behind their LayerNorms."""
    import torch

    with torch.no_grad():
        speech = parts.qformer.ln_speech(torch.from_numpy(clip["speech_encoder"][None]))
        return speech, parts.qformer.ln_audio(torch.from_numpy(clip["audio_encoder"][None]))


@pytest.mark.parametrize("form", ["reference", "folded"])
def test_audio_tokens_match_the_reference(parts: SimpleNamespace, clip: dict[str, np.ndarray], form: str) -> None:
    torch = pytest.importorskip("torch")
    module = parts.qformer.reference if form == "reference" else parts.qformer.folded().eval()
    with torch.no_grad():
        tokens = module(*heard(parts, clip))[0].numpy()
    assert tokens.shape == (88, 128)
    np.testing.assert_allclose(tokens, clip["audio_tokens"], rtol=0, atol=1e-4)


def test_graphs_together_match_the_reference(graphs: dict[str, Path], clip: dict[str, np.ndarray]) -> None:
    """waveform -> audio tokens by the runtime alone; every clip, 1 s to 30 s, gives 88."""
    from auricle.models.encoders.whisper import WhisperSpec
    from auricle.runtime.encoders.beats import BeatsEncoder
    from auricle.runtime.encoders.qformer import QFormer
    from auricle.runtime.encoders.whisper import WhisperEncoder

    speech = WhisperEncoder(opened(graphs["whisper"]), WhisperSpec(64, 2, 4, 128)).encode(clip["pcm_float32"])
    audio = BeatsEncoder(opened(graphs["beats"])).encode(clip["pcm_float32"])
    qformer = QFormer(opened(graphs["qformer"]))
    tokens = qformer.audio_tokens(speech, audio)
    assert tokens.shape == (88, 128) and tokens.dtype == np.float32
    np.testing.assert_allclose(tokens, clip["audio_tokens"], rtol=0, atol=1e-4)
    np.testing.assert_array_equal(qformer.audio_tokens(speech.numpy(), audio.numpy()), tokens)


def opened(path: Path) -> Any:
    from auricle.export.graphs.onnx_graph import graph_info
    from auricle.runtime.system.ort import OrtOptions, open_session

    info = graph_info(path)
    return open_session(path, info.inputs, info.outputs, OrtOptions("cpu", threads=1))


@pytest.mark.parametrize(("n_tokens", "is_cut"), [(8, False), (1496, False), (1500, False), (1544, True)])
def test_graph_takes_audio_of_any_length(
    parts: SimpleNamespace, graphs: dict[str, Path], n_tokens: int, is_cut: bool
) -> None:
    import torch

    speech, audio = torch.randn(1, 1500, 64), torch.randn(1, n_tokens, 48)
    with torch.no_grad():
        expected = parts.qformer.reference(speech, audio[:, :1500] if is_cut else audio).numpy()
    result = opened(graphs["qformer"]).run(speech=speech.numpy(), audio=audio.numpy()).numpy()
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-4)


def test_padding_is_zero_and_not_the_bias(parts: SimpleNamespace) -> None:
    import torch
    from auricle.export.encoders.qformer import fuse, load_qformer

    state = {**parts.state, "ln_audio.bias": torch.ones(48)}
    loaded = load_qformer(state, parts.whisper_spec, parts.beats_spec, options())
    with torch.no_grad():
        audio = loaded.ln_audio(torch.zeros(1, 48, 48))
        fused = fuse(torch.randn(1, 1500, 64), audio)
    assert torch.all(fused[0, :48, 64:] == 1)
    assert torch.all(fused[0, 48:, 64:] == 0)


def test_speech_comes_first_in_a_frame(parts: SimpleNamespace, clip: dict[str, np.ndarray]) -> None:
    import torch
    from auricle.export.encoders.qformer import fuse

    speech, audio = heard(parts, clip)
    fused = fuse(speech, audio)
    assert torch.equal(fused[..., :64], speech) and torch.equal(fused[:, : audio.shape[1], 64:], audio)
    state = dict(parts.state)
    for layer in (0, 1):
        for name in ("key", "value"):
            key = f"speech_Qformer.bert.encoder.layer.{layer}.crossattention.self.{name}.weight"
            state[key] = state[key].roll(48, dims=1)
    with torch.no_grad():
        swapped = loaded(parts, state).reference(speech, audio)[0].numpy()
    assert np.abs(swapped - clip["audio_tokens"]).max() > 1e-2


def options() -> Any:
    from auricle.export.encoders.qformer import QFormerOptions

    return QFormerOptions(n_heads=4)


def loaded(parts: SimpleNamespace, state: dict[str, Any]) -> Any:
    from auricle.export.encoders.qformer import load_qformer

    return load_qformer(state, parts.whisper_spec, parts.beats_spec, options())


def changed(parts: SimpleNamespace, clip: dict[str, np.ndarray], change: Callable[[Any], Any]) -> list[int]:
    """Which of the folded form's tokens move when the speech frames are changed."""
    import torch

    speech, audio = heard(parts, clip)
    folded = parts.qformer.folded().eval()
    with torch.no_grad():
        audio = torch.zeros_like(audio)
        difference = folded(change(speech.clone()), audio) - folded(speech, audio)
    return (difference.abs().amax(dim=2) > 1e-4)[0].nonzero().flatten().tolist()


def test_each_window_hears_its_17_frames_and_the_last_four_are_dropped(
    parts: SimpleNamespace, clip: dict[str, np.ndarray]
) -> None:
    def louder(frame: int) -> Callable[[Any], Any]:
        def change(speech: Any) -> Any:
            speech[0, frame] += 3 * speech[0, frame - 1]
            return speech

        return change

    expected = {0: [0], 16: [0], 17: [1], 1495: [87], 1496: [], 1497: [], 1499: []}
    assert {frame: changed(parts, clip, louder(frame)) for frame in expected} == expected


def test_order_inside_a_window_does_not_matter(parts: SimpleNamespace, clip: dict[str, np.ndarray]) -> None:
    import torch

    def shuffle(speech: Any) -> Any:
        speech[0, 34:51] = speech[0, 34:51][torch.randperm(17)]
        return speech

    assert changed(parts, clip, shuffle) == []
    assert changed(parts, clip, lambda speech: speech.roll(17, dims=1)) != []


def test_projection_has_a_bias(parts: SimpleNamespace, clip: dict[str, np.ndarray]) -> None:
    import torch

    state = {**parts.state, "speech_llama_proj.weight": torch.zeros(128, 96)}
    with torch.no_grad():
        tokens = loaded(parts, state).folded()(*heard(parts, clip))
    assert torch.equal(tokens[0], state["speech_llama_proj.bias"].expand(88, -1))


def test_layer_norms_use_bert_epsilon(parts: SimpleNamespace) -> None:
    import torch

    norms = [m for m in parts.qformer.folded().modules() if isinstance(m, torch.nn.LayerNorm)]
    assert len(norms) == 6 and {norm.eps for norm in norms} == {1e-12}


def test_overlapping_windows_equal_unfold(parts: SimpleNamespace) -> None:
    import torch
    from auricle.export.encoders.qformer import windows

    spec: QFormerSpec = replace(parts.qformer.spec, second_per_window=0.5, second_stride=0.2)
    fused = torch.randn(1, 1500, 7)
    found = windows(fused, spec)
    assert torch.equal(found, fused[0].unfold(0, 25, 10).transpose(1, 2))
    assert len(found) == spec.n_windows(1500)


def test_folded_form_dropped_what_is_dead(parts: SimpleNamespace) -> None:
    """No self-attention query or key, no query or key left in layer 0."""
    names = set(parts.qformer.folded().state_dict())
    assert not {n for n in names if n.startswith("layers.0.") and ("query" in n or n.endswith(".key"))}
    assert {"layers.1.query.weight", "layers.1.key", "first_query", "first_x"} <= names


def test_every_mandatory_key_is_missed(parts: SimpleNamespace) -> None:
    keys = [k for k in parts.state if not k.startswith("llama_model.")]
    assert len(keys) == 9 + 2 * 26
    for key in keys:
        with pytest.raises(CheckpointError, match="1 tensors are missing"):
            loaded(parts, {name: value for name, value in parts.state.items() if name != key})


def test_extras_are_ignored_and_unknown_keys_reported(parts: SimpleNamespace) -> None:
    import torch

    extras = {
        "speech_Qformer.bert.embeddings.position_ids": torch.arange(512)[None],
        "beats.encoder.layers.1.self_attn.relative_attention_bias.weight": torch.zeros(320, 4),
        "llama_model.base_model.model.model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(16),
        "something.new": torch.zeros(1),
    }
    assert loaded(parts, {**parts.state, **extras}).unknown_keys == ("something.new",)


def test_a_third_layer_is_refused(parts: SimpleNamespace) -> None:
    prefix = "speech_Qformer.bert.encoder.layer."
    third = {k.replace(f"{prefix}1", f"{prefix}2"): v for k, v in parts.state.items() if k.startswith(f"{prefix}1")}
    with pytest.raises(CheckpointError, match="more than 2"):
        loaded(parts, {**parts.state, **third})


def test_other_encoders_are_refused(parts: SimpleNamespace) -> None:
    from auricle.export.encoders.qformer import load_qformer

    with pytest.raises(CheckpointError, match=r"112 features per frame.*32 \+ 48"):
        load_qformer(parts.state, replace(parts.whisper_spec, d_model=32), parts.beats_spec, options())


def test_heads_must_divide_the_width(parts: SimpleNamespace) -> None:
    from auricle.export.encoders.qformer import QFormerOptions, load_qformer

    with pytest.raises(CheckpointError, match="5 Q-Former heads"):
        load_qformer(parts.state, parts.whisper_spec, parts.beats_spec, QFormerOptions(n_heads=5))


def test_a_misshapen_tensor_is_named(parts: SimpleNamespace) -> None:
    key = "speech_Qformer.bert.encoder.layer.1.output_query.dense.bias"
    with pytest.raises(CheckpointError, match=r"layer\.1\.output_query\.dense\.bias is \[95\]"):
        loaded(parts, {**parts.state, key: parts.state[key][1:]})
