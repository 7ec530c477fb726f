"""CTranslate2 files: exact to the stored number, refused when damaged, real weights as transformers has them."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from auricle.export.encoders.whisper import load_whisper
from auricle.export.formats.ctranslate2 import CTranslate2Whisper, is_ctranslate2
from auricle.models.encoders.whisper import WhisperSpec
from auricle.models.errors import CheckpointError
from real_weights import TINY_EN
from torch import Tensor

D, N_LAYERS, N_HEADS = 8, 2, 2
_CODES = {torch.float32: 0, torch.int8: 1, torch.int16: 2, torch.float16: 4, torch.bfloat16: 5}


def text(word: str) -> bytes:
    return struct.pack("<H", len(word) + 1) + word.encode() + b"\0"


def variable(name: str, tensor: Tensor) -> bytes:
    raw = tensor.contiguous().view(torch.uint8).numpy().tobytes() if tensor.ndim else tensor.numpy().tobytes()
    shape = struct.pack(f"<B{tensor.ndim}I", tensor.ndim, *tensor.shape)
    return text(name) + shape + struct.pack("<BI", _CODES.get(tensor.dtype, 2), len(raw)) + raw


def linear(name: str, n_out: int, n_in: int) -> dict[str, Tensor]:
    return {f"{name}/weight": torch.randn(n_out, n_in), f"{name}/bias": torch.randn(n_out)}


def norm(name: str) -> dict[str, Tensor]:
    return {f"{name}/gamma": torch.randn(D), f"{name}/beta": torch.randn(D)}


def encoder() -> dict[str, Tensor]:
    """A Whisper's encoder of two small layers, as CTranslate2 names it."""
    torch.manual_seed(0)
    found = {"encoder/num_heads": torch.tensor(N_HEADS, dtype=torch.int16)}
    for name, n_in in (("conv1", 80), ("conv2", D)):
        found |= {f"encoder/{name}/weight": torch.randn(D, n_in, 3), f"encoder/{name}/bias": torch.randn(D)}
    found["encoder/position_encodings/encodings"] = torch.randn(1500, D)
    found |= norm("encoder/layer_norm")
    for layer in range(N_LAYERS):
        place = f"encoder/layer_{layer}"
        found |= linear(f"{place}/self_attention/linear_0", 3 * D, D)
        found[f"{place}/self_attention/linear_0/bias"][D : 2 * D] = 0.0
        found |= linear(f"{place}/self_attention/linear_1", D, D) | norm(f"{place}/self_attention/layer_norm")
        found |= linear(f"{place}/ffn/linear_0", 4 * D, D) | linear(f"{place}/ffn/linear_1", D, 4 * D)
        found |= norm(f"{place}/ffn/layer_norm")
    return found


def write(folder: Path, variables: dict[str, Tensor], version: int = 6, spec: str = "WhisperSpec") -> Path:
    folder.mkdir(exist_ok=True)
    body = b"".join(variable(name, tensor) for name, tensor in variables.items())
    head = struct.pack("<I", version) + text(spec) + struct.pack("<II", 3, len(variables))
    (folder / "model.bin").write_bytes(head + body + struct.pack("<I", 0))
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_stored_numbers_come_out_exactly(tmp_path: Path, dtype: Any) -> None:
    stored = {name: value.to(dtype) if value.is_floating_point() else value for name, value in encoder().items()}
    spec, module = load_whisper(write(tmp_path / "w", stored))
    assert spec == WhisperSpec(D, N_LAYERS, N_HEADS, 4 * D)
    state = module.state_dict()
    queries, keys, values = stored["encoder/layer_1/self_attention/linear_0/weight"].float().split(D)
    assert torch.equal(state["layers.1.self_attn.q_proj.weight"], queries)
    assert torch.equal(state["layers.1.self_attn.k_proj.weight"], keys)
    assert torch.equal(state["layers.1.self_attn.v_proj.weight"], values)
    assert torch.equal(state["layers.0.fc2.weight"], stored["encoder/layer_0/ffn/linear_1/weight"].float())
    assert torch.equal(state["conv1.weight"], stored["encoder/conv1/weight"].float())
    assert len(state) == len(module.state_dict())


def test_int8_is_divided_by_the_scale_of_its_row(tmp_path: Path) -> None:
    stored = encoder()
    name = "encoder/layer_0/ffn/linear_0/weight"
    scale = 127.0 / stored[name].abs().amax(1)
    whole = (stored[name] * scale[:, None]).round().to(torch.int8)
    opened = CTranslate2Whisper(write(tmp_path / "w", stored | {name: whole, f"{name}_scale": scale}))
    assert opened.quantized == "int8"
    assert torch.equal(opened.get("model.encoder.layers.0.fc1.weight"), whole.float() / scale[:, None])
    assert CTranslate2Whisper(write(tmp_path / "f", stored)).quantized is None


def test_damaged_files_are_refused_in_one_sentence(tmp_path: Path) -> None:
    whole = write(tmp_path / "w", encoder()) / "model.bin"
    data = whole.read_bytes()
    spoilt = {
        "cut short": data[:-600],
        "empty": b"",
        "version 5": struct.pack("<I", 5) + data[4:],
        "TransformerSpec": data.replace(text("WhisperSpec"), text("TransformerSpec"), 1),
        "encoder/conv1/weight": data.replace(text("encoder/conv1/weight"), text("encoder/conv9/weight"), 1),
    }
    for words, content in spoilt.items():
        whole.write_bytes(content)
        with pytest.raises(CheckpointError) as caught:
            load_whisper(whole.parent)
        message = str(caught.value)
        assert (words in message or words == "empty") and "\n" not in message, message
    stored = encoder()
    stored["encoder/layer_0/self_attention/linear_0/bias"][D + 1] = 1.0
    with pytest.raises(CheckpointError, match="key bias"):
        load_whisper(write(tmp_path / "k", stored))


def test_a_hugging_face_directory_is_not_taken_for_one(golden: Path, tmp_path: Path) -> None:
    assert not is_ctranslate2(golden / "salmonn-tiny" / "checkpoint" / "whisper")
    assert is_ctranslate2(write(tmp_path / "w", encoder()))


@TINY_EN.needed
def test_real_weights_are_the_same_in_both_forms(tmp_path: Path) -> None:
    """transformers takes every tensor, decoder included, and its encoder says what ours says: fp32 1e-4."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    opened = CTranslate2Whisper(TINY_EN.folder)
    state = {name: opened.get(name) for name in opened.names()}
    sizes: dict[str, Any] = {"d_model": 384, "encoder_layers": 4, "decoder_layers": 4, "vocab_size": 51864}
    for half in ("encoder", "decoder"):
        sizes |= {f"{half}_attention_heads": 6, f"{half}_ffn_dim": 1536}
    model = WhisperForConditionalGeneration(WhisperConfig(**sizes)).eval()
    model.load_state_dict(state | {"proj_out.weight": state["model.decoder.embed_tokens.weight"]})
    model.save_pretrained(tmp_path / "hf")
    ours, theirs = load_whisper(TINY_EN.folder), load_whisper(tmp_path / "hf")
    assert ours[0] == theirs[0]
    for name, value in theirs[1].state_dict().items():
        assert torch.equal(ours[1].state_dict()[name], value), name
    mel = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 80, 3000)).astype(np.float32))
    from auricle.export.encoders.whisper import encode

    with torch.no_grad():
        expected = model.model.encoder(mel).last_hidden_state
        assert torch.allclose(encode(ours[1], mel), expected, atol=1e-4)
