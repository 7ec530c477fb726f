"""What is written for the peers: the same weights in the files that each of them reads."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from auricle.bench.peers.ggml_format import q8_0, write_ggml, write_recognizer
from auricle.bench.peers.recordings import write_transformers
from auricle.models.encoders.fastconformer import FastConformerSpec
from auricle.models.encoders.whisper import WhisperSpec
from auricle.models.families.salm import AUDIO_TAG, SALM, SalmSpec


def test_q8_0_blocks_read_back() -> None:
    values = np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)
    values[0, :32] = 0
    blocks = np.frombuffer(q8_0(values), np.dtype([("scale", "<f2"), ("values", "i1", 32)]))
    read = (blocks["scale"][:, None].astype(np.float32) * blocks["values"]).reshape(values.shape)
    assert len(blocks) == 8
    assert np.abs(read - values).max() < np.abs(values).max() / 127
    assert not read[0, :32].any()


def test_a_ggml_file_holds_every_tensor_with_its_bytes(tmp_path: Path) -> None:
    """Walked as whisper.cpp walks it: lengths that were wrong would lead astray."""
    pytest.importorskip("torch")
    from auricle.bench.peers.whisper import random_encoder

    spec = WhisperSpec(d_model=32, n_layers=2, n_heads=2, d_ffn=128, n_positions=8)
    state = random_encoder(spec, "eager").state_dict()
    write_ggml(tmp_path / "x.bin", spec, state)
    sizes, pieces, found = walked(tmp_path / "x.bin")
    assert sizes == (0x67676D6C, 51865, 8, 32, 2, 2, 448, 32, 2, 1, 80, 2007) and len(pieces) == 50257
    assert len([name for name in found if name.startswith("encoder.")]) == len(state)
    assert found["encoder.blocks.1.mlp.0.weight"] == (32, 128)
    assert found["encoder.conv1.bias"] == (1, 32)


class Trained:
    """A directory of faster-whisper's, two layers to hear and three to speak; each tensor has values of its own."""

    d_model, n_mels, n_layers, n_heads, d_ffn, n_positions = 32, 80, 2, 4, 128, 8

    def __init__(self, _: Path) -> None: ...

    def names(self) -> list[str]:
        from auricle.export.formats import ctranslate2

        halves = {"encoder": self.n_layers, "decoder": 3}
        layers = [f"{half}/layer_{n}/ffn/linear_0/weight" for half, n_layers in halves.items() for n in range(n_layers)]
        return list(ctranslate2._hugging_face_names(layers))

    def get(self, name: str) -> Any:
        torch = pytest.importorskip("torch")
        torch.manual_seed(sum(name.encode()))
        return torch.randn(self._shape(name))

    def _shape(self, name: str) -> tuple[int, ...]:
        d = self.d_model
        if name.endswith("bias"):
            return (self.d_ffn if ".fc1" in name else d,)
        if ".conv" in name:
            return d, self.n_mels if "conv1" in name else d, 3
        tables = {"encoder.embed_pos": self.n_positions, "decoder.embed_pos": 448, "embed_tokens": 7}
        for part, n_rows in tables.items():
            if part in name:
                return n_rows, d
        if "norm" in name:
            return (d,)
        return {"fc1": (self.d_ffn, d), "fc2": (d, self.d_ffn)}.get(name.split(".")[-2], (d, d))


def test_a_recognizer_is_written_as_whisper_cpp_calls_its_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all layers, the decoder's included, and the pieces of its vocabulary as bytes."""
    pytest.importorskip("torch")
    from auricle.export.formats import byte_bpe, ctranslate2

    def vocabulary(_: Path, n_rows: int) -> byte_bpe.ByteVocabulary:
        pieces = ("a", "Ġthe", "Ã©", "Ċ", "<|endoftext|>", "<|en|>", "<|de|>")
        assert n_rows == len(pieces)
        return byte_bpe.ByteVocabulary(pieces, (1,) * 7, (), 4, 4, 4)

    monkeypatch.setattr(ctranslate2, "CTranslate2Whisper", Trained)
    monkeypatch.setattr(byte_bpe, "read_whisper_vocabulary", vocabulary)
    write_recognizer(tmp_path / "x.bin", tmp_path)
    sizes, pieces, found = walked(tmp_path / "x.bin")
    assert sizes == (0x67676D6C, 7, 8, 32, 4, 2, 448, 32, 4, 3, 80, 2007)
    assert pieces == [b"a", b" the", "é".encode(), b"\n"]
    blocks = {f"decoder.blocks.{layer}.cross_attn.{part}.weight" for layer in range(3) for part in ("query", "out")}
    top = {
        "encoder.ln_post.bias",
        "encoder.conv2.weight",
        "encoder.positional_embedding",
        "encoder.blocks.1.mlp.2.bias",
    }
    top |= {"decoder.ln.weight", "decoder.token_embedding.weight", "decoder.positional_embedding"}
    assert blocks | top <= found.keys() and len(found) == len(Trained(tmp_path).names())
    assert "encoder.blocks.0.attn.key.bias" not in found and "encoder.blocks.0.attn.value.bias" in found


def test_a_recognizer_is_written_as_transformers_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All weights under their names, its head the embedding, and what Whisper never says."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from auricle.export.formats import ctranslate2

    monkeypatch.setattr(ctranslate2, "CTranslate2Whisper", Trained)
    said = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|translate|>", "<|transcribe|>", "<|startofprev|>"]
    special = [*said, "<|notimestamps|>"]
    tokenizer = {
        "version": "1.0",
        "added_tokens": [
            {"id": n, "content": text, "special": True}
            | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            for n, text in enumerate(special)
        ],
        "model": {"type": "BPE", "vocab": {text: n for n, text in enumerate(special)}, "merges": []},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    (tmp_path / "config.json").write_text('{"suppress_ids": [1, 3], "suppress_ids_begin": [0]}', encoding="utf-8")
    write_transformers(tmp_path / "hf", tmp_path)
    model = transformers.WhisperForConditionalGeneration.from_pretrained(tmp_path / "hf")
    trained = Trained(tmp_path)
    state = model.state_dict()
    for name in trained.names():
        torch.testing.assert_close(state[name], trained.get(name), rtol=0, atol=0)
    assert state["proj_out.weight"] is not None
    torch.testing.assert_close(state["proj_out.weight"], state["model.decoder.embed_tokens.weight"], rtol=0, atol=0)
    choice = transformers.GenerationConfig.from_pretrained(tmp_path / "hf" / "generation")
    assert (choice.suppress_tokens, choice.begin_suppress_tokens, choice.is_multilingual) == ([1, 3], [0], False)
    assert (choice.no_timestamps_token_id, choice.lang_to_id, choice.task_to_id["transcribe"]) == (6, {"<|en|>": 2}, 4)


def walked(path: Path) -> tuple[tuple[int, ...], list[bytes], dict[str, tuple[int, ...]]]:
    """Sizes, pieces of the vocabulary, and tensors with their dimensions."""
    data = path.read_bytes()
    at = 48
    rows, columns = struct.unpack_from("<2i", data, at)
    assert (rows, columns) == (80, 201)
    at += 8 + 4 * rows * columns
    n_pieces, at = struct.unpack_from("<i", data, at)[0], at + 4
    pieces: list[bytes] = []
    for _ in range(n_pieces):
        end = at + 4 + struct.unpack_from("<i", data, at)[0]
        pieces.append(data[at + 4 : end])
        at = end
    found: dict[str, tuple[int, ...]] = {}
    while at < len(data):
        n_dims, n_name, kind = struct.unpack_from("<3i", data, at)
        dims = struct.unpack_from(f"<{n_dims}i", data, at + 12)
        at += 12 + 4 * n_dims
        name, at = data[at : at + n_name].decode(), at + n_name
        found[name] = dims
        at += int(np.prod(dims)) * {0: 128, 1: 64, 8: 34}[kind] // 32
    assert at == len(data)
    return struct.unpack_from("<12i", data), pieces, found


@pytest.mark.parametrize("n_tokens", [0, 1, 12])
@pytest.mark.parametrize("quantization", ["q8_0", "q4_k_m"])
def test_a_canary_file_is_whole_and_its_answer_as_long_as_asked(
    quantization: str, n_tokens: int, tmp_path: Path
) -> None:
    """Names and sizes as transcribe.cpp's loader asks for them; any token leads to the answer's first, that on."""
    gguf: Any = pytest.importorskip("gguf")
    pytest.importorskip("torch")
    from auricle.bench.peers.canary_format import write_canary

    encoder = FastConformerSpec(64, 2, 4, 128, 5, 32, d_llm=256)
    llm = replace(SALM.llm, hidden=256, n_layers=2, n_heads=4, n_kv_heads=2, d_ffn=512, vocab=2048, head_dim=64)
    write_canary(tmp_path / "x.gguf", SalmSpec(encoder, llm, SALM.lora), quantization, n_tokens)
    reader = gguf.GGUFReader(tmp_path / "x.gguf")
    found = {tensor.name: tensor for tensor in reader.tensors}
    assert len(found) == 2 + 12 + 2 * (2 * 17 + 5) + 2 + 2 + 2 * 11
    shapes = {name: tuple(map(int, tensor.shape)) for name, tensor in found.items()}  # the innermost first
    assert shapes["enc.blocks.1.conv.pointwise1.weight"] == (1, 64, 128)
    assert shapes["enc.blocks.0.attn.pos_bias_u"] == (16, 4) and shapes["enc.pre_encode.out.weight"] == (512, 64)
    assert shapes["dec.blocks.1.attn.k.weight"] == (256, 128)
    table = found["dec.token_embd.weight"]
    rows = gguf.quants.dequantize(table.data, table.tensor_type)
    end = int(reader.fields["tokenizer.ggml.eos_token_id"].parts[-1][0])
    assert rows.shape == (2048, 256)
    said = [*range(100, 100 + n_tokens), end]
    after = (rows @ rows.T).argmax(axis=1)
    ordinary = [token for token in range(2048) if token not in said]
    assert set(after[ordinary].tolist()) == {said[0]} and after[said[:-1]].tolist() == said[1:]
    locator = int(reader.fields["stt.canary_qwen.perception.audio_locator_id"].parts[-1][0])
    pieces = reader.fields["tokenizer.ggml.tokens"]
    assert bytes(pieces.parts[pieces.data[locator]]).decode() == AUDIO_TAG
