"""A GGUF file as the base: same weights, same ids and the same bundle as from the directory it was made of."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

gguf = pytest.importorskip("gguf")
torch = pytest.importorskip("torch")
from auricle.export.__main__ import main
from auricle.export.families.salmonn import _tokenizer
from auricle.export.formats import sentencepiece
from auricle.export.formats.checkpoint import load_section
from auricle.export.formats.gguf_reader import open_gguf
from auricle.export.formats.tensor_names import shapes
from auricle.export.llm.base_model import VICUNA_7B_V15, check_base
from auricle.export.llm.export import LlmExport, read_llm, rounding_note, write_gguf
from auricle.export.llm.lora import Lora, read_lora
from auricle.export.llm.quantize import quantize
from auricle.models.audio import synthetic_clip
from auricle.models.bundle import read_manifest
from auricle.models.errors import CheckpointError
from auricle.runtime.__main__ import main as auricle
from auricle.runtime.engine import load
from conftest import GOLDEN, export_arguments
from llama_checkpoint import TEXTS, write_llama
from llama_judge import Judge
from real_weights import SMOLLM2

VICUNA = GOLDEN / "salmonn-tiny" / "checkpoint" / "vicuna"


def written(directory: Path, path: Path, kind: str = "f32") -> Path:
    if kind in ("f32", "f16"):
        write_gguf(read_llm(directory), path, kind)
    else:
        write_gguf(read_llm(directory), path.with_suffix(".f16"), "f16")
        quantize(path.with_suffix(".f16"), path, kind)
    return path


def raw(path: Path) -> dict[str, bytes]:
    file = open_gguf(path)
    return {name: b"".join(piece.tobytes() for piece in file.raw(name).pieces()) for name in file.tensors}


@pytest.mark.parametrize("kind", ["sentencepiece", "smollm", "llama-bpe", "gpt-2"])
def test_spec_weights_and_ids_are_those_of_the_directory(kind: str, tmp_path: Path) -> None:
    directory = VICUNA if kind == "sentencepiece" else write_llama(tmp_path / "llama", kind)
    expected = read_llm(directory)
    found = read_llm(written(directory, tmp_path / "base.gguf"))
    assert (found.spec, found.vocabulary) == (expected.spec, expected.vocabulary)
    for name in shapes(expected.spec):
        torch.testing.assert_close(found.weights.get(name), expected.weights.get(name).float(), rtol=0, atol=0)
    assert found.fingerprint.sha256 == expected.fingerprint.sha256
    encode = _tokenizer(expected, directory)
    again = _tokenizer(found, found.directory)
    for text in TEXTS:
        assert again(text) == encode(text), text


def test_llama_3_s_stretched_positions_are_recognized(tmp_path: Path) -> None:
    rope = {"rope_type": "llama3", "rope_theta": 500_000.0, "factor": 32.0, "low_freq_factor": 1.0}
    rope |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    directory = write_llama(tmp_path / "llama", "llama-bpe", rope_parameters=rope)
    found = read_llm(written(directory, tmp_path / "base.gguf"))
    assert found.rope == read_llm(directory).rope is not None
    other = write_llama(tmp_path / "other", "llama-bpe", rope_parameters=rope | {"factor": 9.0})
    with pytest.raises(CheckpointError, match=r"rope_freqs\.weight"):
        read_llm(written(other, tmp_path / "other.gguf"))


def golden_lora() -> Lora:
    checkpoint = GOLDEN / "salmonn-tiny" / "checkpoint" / "salmonn.pth"
    return read_lora(load_section(checkpoint, "model", "a checkpoint"), 32.0)


def test_merged_it_is_the_model_of_the_float_directory(golden_bundle: Path, tmp_path: Path) -> None:
    llm = read_llm(written(VICUNA, tmp_path / "base.gguf"))
    LlmExport(llm=llm, lora=golden_lora(), quantization="f32").write(tmp_path)
    assert raw(tmp_path / "llm.gguf") == raw(golden_bundle / "llm.gguf")
    assert rounding_note(llm, "q4_k_m") == ()


@pytest.mark.parametrize("kind", ["q8_0", "q5_k_m"])
def test_kept_its_tensors_stay_byte_for_byte(kind: str, tmp_path: Path) -> None:
    llm = read_llm(written(VICUNA, tmp_path / f"base.{kind}.gguf", kind))
    LlmExport(llm=llm, lora=golden_lora(), quantization="keep", mode="adapter").write(tmp_path)
    assert raw(tmp_path / "llm.gguf") == raw(tmp_path / f"base.{kind}.gguf")
    assert llm.type_name("keep") == kind and rounding_note(llm, "keep") == ()
    assert f"was rounded to {kind}, which stays" in rounding_note(llm, "f32")[0]


def test_a_bundle_of_it_says_what_it_is_made_of_and_answers(golden_bundle: Path, tmp_path: Path) -> None:
    base = written(VICUNA, tmp_path / "base.q4_0.gguf", "q4_0")
    assert main(export_arguments(tmp_path / "kept", vicuna=str(base), llm="keep", lora="adapter")) == 0
    manifest = read_manifest(tmp_path / "kept")
    assert manifest.quantization.llm == "q4_0" and manifest.parity is not None
    assert manifest.parity.token_agreement >= 0.9 and not manifest.provenance.notes
    assert [source.name for source in manifest.provenance.sources if source.role == "vicuna"] == ["base.q4_0.gguf"]
    assert manifest.prompt == read_manifest(golden_bundle).prompt
    with load(tmp_path / "kept") as engine:
        assert engine.ask(synthetic_clip(7, 2.0), "asr").segments


def test_keep_is_for_a_file_and_an_adapter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = written(VICUNA, tmp_path / "base.gguf")
    assert main(export_arguments(tmp_path / "bundle", llm="keep", lora="adapter")) == 2
    assert "keeps the tensors of a GGUF file" in capsys.readouterr().err
    assert main(export_arguments(tmp_path / "bundle", vicuna=str(base), llm="keep", lora="both")) == 2
    assert "add --lora adapter" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


def changed(source: Path, path: Path, change: Callable[[dict[str, Any]], None], more: bool = False) -> Path:
    """The file with other words in its header, or one tensor more."""
    reader: Any = gguf.GGUFReader(source)
    header = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    values = {name: (field.contents(), field.types) for name, field in header.items()}
    given: dict[str, Any] = {name: value for name, (value, _) in values.items()}
    change(given)
    writer = gguf.GGUFWriter(path, str(given.pop("general.architecture")))
    for name, value in given.items():
        if isinstance(value, list):
            writer.add_array(name, value)
        else:
            old = values[name][1][0] if name in values else gguf.GGUFValueType.ARRAY
            kind = gguf.GGUFValueType.get_type(value) if old == gguf.GGUFValueType.ARRAY else old
            writer.add_key_value(name, value, kind)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    if more:
        writer.add_tensor("blk.0.attn_q.bias", np.zeros(128, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "architecture": ({"general.architecture": "qwen3"}, "is a qwen3"),
    "adapter": ({"general.type": "adapter"}, "GGUF file of a adapter"),
    "parts": ({"split.count": 3}, "one of 3 parts"),
    "stretch": ({"llama.rope.scaling.type": "yarn"}, r"stretches positions \(yarn\)"),
    "unknown": ({"llama.attention.clamp_kqv": 2.0}, "clamp_kqv"),
    "tokenizer": ({"tokenizer.ggml.model": "bert"}, "tokenizer 'bert'"),
    "spaces": ({"tokenizer.ggml.add_space_prefix": False}, "spaces text"),
    "heads": ({"llama.attention.head_count": 5}, "no LLaMA"),
    "width": ({"llama.feed_forward_length": 8}, "header says"),
    "eos": ({"tokenizer.ggml.eos_token_id": 10**6}, "eos_token_id 1000000"),
    "no list": ({"tokenizer.ggml.tokens": 5}, "no list of str"),
    "no numbers": ({"tokenizer.ggml.scores": ["a"]}, "no list of float"),
    "no count": ({"split.count": "many"}, "one of many parts"),
    "zero": ({"llama.block_count": 0}, "block_count 0"),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(VICUNA, tmp_path_factory.mktemp("gguf") / "base.gguf", "f16")


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_be_computed_otherwise_is_refused(case: str, base: Path, tmp_path: Path) -> None:
    values, message = REFUSED[case]
    path = changed(base, tmp_path / "base.gguf", lambda header: header.update(values))
    with pytest.raises(CheckpointError, match=message):
        read_llm(path)


def test_a_cut_file_and_one_tensor_more_are_refused(base: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    shutil.copy(base, cut)
    for size in (base.stat().st_size - 100, 5000, 20):
        with cut.open("rb+") as file:
            file.truncate(size)
        with pytest.raises(CheckpointError, match="cut"):
            read_llm(cut)
    with pytest.raises(CheckpointError, match=r"blk\.0\.attn_q\.bias"):
        read_llm(changed(base, tmp_path / "more.gguf", lambda _: None, more=True))


def test_a_wrong_vicuna_is_known_by_its_file_s_name(base: Path, tmp_path: Path) -> None:
    """SALMONN-7B was trained on v1.5."""
    named = tmp_path / "vicuna-7b-v1.3.Q4_K_M.gguf"
    shutil.copy(base, named)
    found = read_llm(named).fingerprint
    assert found.versions == ("1.3",)
    with pytest.raises(CheckpointError, match=r"calls itself v1\.3"):
        check_base(VICUNA_7B_V15, found)


@SMOLLM2.needed
def test_a_package_s_weights_are_dequantized_as_transformers_does() -> None:
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(SMOLLM2.folder, gguf_file="model.gguf", dtype=torch.float32)
    llm = read_llm(SMOLLM2.folder / "model.gguf")
    state = model.state_dict()
    for name in shapes(llm.spec):
        torch.testing.assert_close(llm.weights.get(name), state[name], rtol=0, atol=1e-7)


@SMOLLM2.needed
def test_kept_it_answers_that_paris_is_the_capital_of_france(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The encoders are the golden ones, whose bridge and LoRA are made to fit; text alone uses neither."""
    package = SMOLLM2.folder / "model.gguf"
    checkpoint = torch.load(GOLDEN / "salmonn-tiny" / "checkpoint" / "salmonn.pth", weights_only=True)
    state = {name: value for name, value in checkpoint["model"].items() if "lora_" not in name}
    generator = torch.Generator().manual_seed(0)
    state["speech_llama_proj.weight"] = torch.randn(576, 96, generator=generator) * 0.1
    state["speech_llama_proj.bias"] = torch.zeros(576)
    for layer in range(30):
        for target, rows in (("q_proj", 576), ("v_proj", 192)):
            stem = f"llama_model.base_model.model.model.layers.{layer}.self_attn.{target}.lora_"
            state[f"{stem}A.default.weight"] = torch.randn(8, 576, generator=generator) * 0.01
            state[f"{stem}B.default.weight"] = torch.randn(rows, 8, generator=generator) * 0.01
    torch.save({"model": state}, tmp_path / "salmonn.pth")
    bundle = tmp_path / "bundle"
    given = {"vicuna": str(package), "salmonn": str(tmp_path / "salmonn.pth"), "llm": "keep", "lora": "adapter"}
    assert main(export_arguments(bundle, **given)) == 0
    assert raw(bundle / "llm.gguf") == raw(package)
    capsys.readouterr()
    asked = ["ask", "--bundle", str(bundle), "--text-only", "What is the capital of France?"]
    assert auricle(asked) == 0
    assert "Paris" in capsys.readouterr().out


def test_a_bundle_s_ids_are_llama_cpp_s(base: Path) -> None:
    vocabulary = read_llm(base).vocabulary
    assert isinstance(vocabulary, sentencepiece.Vocabulary)
    judge = Judge(base, vocab_only=True)
    try:
        for text in TEXTS:
            assert judge.tokens(text) == sentencepiece.vocabulary_encoder(vocabulary)(text), text
    finally:
        judge.close()
