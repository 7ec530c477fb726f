"""Importance matrices: what is summed, the file, what the quantizer makes of it, what is refused, the command."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import gguf
import torch
from auricle.export import pipeline
from auricle.export.__main__ import main
from auricle.export.formats.imatrix_file import Importance, read_imatrix, require_match, write_imatrix
from auricle.export.formats.sentencepiece import text_encoder
from auricle.export.formats.tensor_names import gguf_name, shapes
from auricle.export.llm.calibration import Example
from auricle.export.llm.export import Llm, write_gguf
from auricle.export.llm.imatrix import Passage, gather, passages_of
from auricle.export.llm.lora import Lora
from auricle.export.llm.quantize import quantize
from auricle.export.llm.tensor_types import tensor_type
from auricle.export.llm.torch_reference import ReferenceLlm
from auricle.export.options import ExportOptions
from auricle.export.synthetic.random_llm import write_random_llm
from auricle.export.synthetic.vocabulary import gguf_vocabulary
from auricle.models.bundle import LLM_FILE, shipped_bundle
from auricle.models.errors import InputError
from auricle.models.families import salmonn
from auricle.models.llm import LlmSpec
from auricle.models.prompt import PromptInfo
from conftest import export_arguments, salm_arguments
from llm_export import export_llm
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

GOLDEN = Path(__file__).parents[2] / "golden"
SALMONN = GOLDEN / "salmonn-tiny" / "checkpoint"
SALM = GOLDEN / "salm-tiny" / "checkpoint"
JFK = Path(pipeline.__file__).parent / "jfk.wav"
NOTHING: Callable[..., None] = lambda *_: None  # noqa: E731


@pytest.fixture(scope="module")
def info() -> PromptInfo:
    return salmonn.prompt_info(tokenize, 1, 2)


def tokenize(text: str) -> list[int]:
    return text_encoder(SALMONN / "vicuna")(text)


def reference(opened: tuple[Llm, Lora]) -> ReferenceLlm:
    llm, lora = opened
    return ReferenceLlm(llm.weights, llm.spec, lora, lora.spec.scale)


def heard(hidden: int) -> list[torch.Tensor]:
    """Three sequences of different lengths, as strong as audio tokens are beside text."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, hidden, generator=generator) for n in (7, 31, 12)]


def importance_of(opened: tuple[Llm, Lora]) -> Importance:
    passages = [Passage(states, start=2) for states in heard(opened[0].spec.hidden)]
    return gather(reference(opened), passages, ("noise",), NOTHING)


# --- what is summed


def whole_model(opened: tuple[Llm, Lora]) -> Any:
    """transformers' own model, every weight in memory, the LoRA merged by hand."""
    llm, lora = opened
    spec = llm.spec
    sizes: dict[str, Any] = {
        "vocab_size": spec.vocab,
        "hidden_size": spec.hidden,
        "intermediate_size": spec.d_ffn,
        "num_hidden_layers": spec.n_layers,
        "num_attention_heads": spec.n_heads,
        "num_key_value_heads": spec.n_kv_heads,
        "head_dim": spec.d_head,
        "rms_norm_eps": spec.rms_norm_eps,
        "rope_theta": spec.rope_theta,
        "tie_word_embeddings": spec.tied,
    }
    classes: dict[str, Any] = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen3": (Qwen3Config, Qwen3ForCausalLM)}
    config, model = classes[spec.architecture]
    state = {name: llm.weights.get(name)[: spec.vocab].float() for name in shapes(spec) if "layers" not in name}
    for name in shapes(spec):
        if "layers" in name:
            state[name] = llm.weights.get(name).float()
    for (layer, target), (a, b) in lora.pairs.items():
        state[f"model.layers.{layer}.self_attn.{target}.weight"] += lora.spec.scale * (b @ a)
    if spec.tied:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    opened_model = model(config(**sizes, attn_implementation="eager")).eval()
    opened_model.load_state_dict(state)
    return opened_model


@pytest.mark.parametrize("family", ["vicuna", "qwen"])
def test_sums_are_those_of_the_whole_model(family: str, request: pytest.FixtureRequest) -> None:
    opened: tuple[Llm, Lora] = request.getfixturevalue(family)
    model, wanted = whole_model(opened), dict[str, np.ndarray]()

    def add(name: str, inputs: torch.Tensor) -> None:
        wanted[name] = wanted.get(name, 0) + inputs[0, 2:].double().square().sum(0).numpy()

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            name = "model.embed_tokens" if name == "lm_head" and opened[0].spec.tied else name
            module.register_forward_pre_hook(lambda _, given, name=name: add(gguf_name(f"{name}.weight"), given[0]))
    with torch.no_grad():
        for sequence in heard(opened[0].spec.hidden):
            model(inputs_embeds=sequence[None])
    found = importance_of(opened)
    assert found.sums.keys() == wanted.keys()
    assert ("token_embd.weight" in wanted) == opened[0].spec.tied != ("output.weight" in wanted)
    for name, sums in found.sums.items():
        np.testing.assert_allclose(sums, wanted[name], rtol=1e-4, err_msg=name)
    assert set(found.counts.values()) == {44} and (found.n_chunks, found.chunk_size) == (3, 15)
    require_match(found, opened[0].spec, Path("imatrix.gguf"))


def test_logits_do_not_change_with_who_else_is_heard(vicuna: tuple[Llm, Lora]) -> None:
    llm, sequences = reference(vicuna), heard(vicuna[0].spec.hidden)
    together = llm.run(sequences, NOTHING)
    for one, sequence in zip(together, sequences, strict=True):
        torch.testing.assert_close(llm.run([sequence], NOTHING)[0], one, rtol=0, atol=0)


def test_an_example_becomes_text_audio_text_and_answer(vicuna: tuple[Llm, Lora], info: PromptInfo) -> None:
    llm, audio = reference(vicuna), np.ones((5, vicuna[0].spec.hidden), np.float32)
    spoken = Example(JFK, info.tasks["asr"], "and so my fellow americans")
    silent, text = replace(spoken, answer=None), Example(None, "a line of text", None)
    found = passages_of([spoken, silent, text], llm, info, tokenize, lambda _: audio, NOTHING)
    before, after = info.texts(info.tasks["asr"])
    first, last = [1, *tokenize(before)], [*tokenize(after), *tokenize("and so my fellow americans")]
    wanted = torch.cat([llm.embed(first), torch.from_numpy(audio), llm.embed(last)])
    torch.testing.assert_close(found[0].states, wanted)
    torch.testing.assert_close(found[1].states, wanted[: len(first) + 5 + len(tokenize(after))])
    torch.testing.assert_close(found[2].states, llm.embed([1, *tokenize("a line of text")]))
    assert [passage.start for passage in found] == [len(first), len(first), 1]


# --- the file


def test_llama_cpps_layout(vicuna: tuple[Llm, Lora], tmp_path: Path) -> None:
    given = importance_of(vicuna)
    write_imatrix(tmp_path / "imatrix.gguf", given)
    reader = gguf.GGUFReader(tmp_path / "imatrix.gguf")
    said = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert said == {
        "general.type": "imatrix",
        "imatrix.datasets": ["noise"],
        "imatrix.chunk_count": 3,
        "imatrix.chunk_size": 15,
    }
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert list(tensors) == [f"{name}.{kind}" for name in sorted(given.sums) for kind in ("in_sum2", "counts")]
    sums, counts = (tensors[f"blk.1.ffn_down.weight.{kind}"] for kind in ("in_sum2", "counts"))
    assert (list(sums.shape), list(counts.shape)) == ([vicuna[0].spec.d_ffn, 1], [1, 1])
    assert sums.tensor_type == counts.tensor_type == gguf.GGMLQuantizationType.F32
    np.testing.assert_array_equal(sums.data.ravel(), given.sums["blk.1.ffn_down.weight"])
    assert float(counts.data.ravel()[0]) == 44.0


def older_binary(path: Path, given: Importance, tail: bytes) -> None:
    """As llama-imatrix wrote it before GGUF: means times chunks."""
    means = given.means()
    with path.open("wb") as file:
        file.write(struct.pack("<i", len(means)))
        for name, values in means.items():
            file.write(struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", 3, len(values)))
            file.write((3 * values).astype("<f4").tobytes())
        file.write(tail)


@pytest.mark.parametrize("tail", [b"", struct.pack("<i", 3), struct.pack("<ii", 3, 5) + b"noise", None])
def test_what_was_written_is_read_back(tail: bytes | None, vicuna: tuple[Llm, Lora], tmp_path: Path) -> None:
    path, given = tmp_path / "imatrix", importance_of(vicuna)
    if tail is None:
        write_imatrix(path, given)
    else:
        older_binary(path, given, tail)
    found = read_imatrix(path)
    require_match(found, vicuna[0].spec, path)
    assert found.means().keys() == given.means().keys()
    for name, values in found.means().items():
        np.testing.assert_allclose(values, given.means()[name], rtol=1e-6)
    assert found.datasets == (("noise",) if tail is None or len(tail) > 4 else ())
    assert found.n_chunks == (0 if tail == b"" else 3)


# --- the quantizer


@pytest.mark.parametrize("quantization", ["q4_0", "q4_k_m", "iq4_xs", "q3_k_m"])
def test_columns_that_are_driven_harder_are_rounded_less(quantization: str, tmp_path: Path) -> None:
    vocabulary = gguf_vocabulary(shipped_bundle() / LLM_FILE)
    spec = LlmSpec(256, 2, 4, 4, 256, len(vocabulary), max_positions=512, rms_norm_eps=1e-5)
    write_random_llm(spec, vocabulary, tmp_path / "f16.gguf", "f16", seed=0)
    strong = np.where(np.arange(256) % 8 == 3, 100, 1).astype(np.float32)
    names = [gguf_name(name) for name, shape in shapes(spec).items() if len(shape) == 2]
    given = Importance(dict.fromkeys(names, strong), dict.fromkeys(names, 50), ("noise",), 3, 17)
    write_imatrix(tmp_path / "im.gguf", given)
    quantize(tmp_path / "f16.gguf", tmp_path / "plain.gguf", quantization)
    quantize(tmp_path / "f16.gguf", tmp_path / "weighed.gguf", quantization, imatrix=tmp_path / "im.gguf")
    for name in ("blk.0.attn_q.weight", "blk.1.ffn_up.weight", "blk.1.attn_output.weight"):
        exact, plain, weighed = (weight_of(tmp_path / f"{file}.gguf", name) for file in ("f16", "plain", "weighed"))
        before, after = (float((strong * (each - exact) ** 2).sum()) for each in (plain, weighed))
        assert after < 0.8 * before, name
    said = gguf.GGUFReader(tmp_path / "weighed.gguf").fields
    assert {key: field.contents() for key, field in said.items() if key.startswith("quantize.")} == {
        "quantize.imatrix.file": "im.gguf",
        "quantize.imatrix.dataset": "noise",
        "quantize.imatrix.entries_count": len(names),
        "quantize.imatrix.chunks_count": 3,
    }


@pytest.mark.parametrize("n_layers", [16])
def test_mixtures_are_those_of_llama_cpps_quantizer(n_layers: int, tmp_path: Path) -> None:
    """Of the types that came with importance matrices; without one, as random models are written."""
    vocabulary = gguf_vocabulary(shipped_bundle() / LLM_FILE)
    spec = LlmSpec(256, n_layers, 4, 4, 256, len(vocabulary), max_positions=512, rms_norm_eps=1e-5)
    write_random_llm(spec, vocabulary, tmp_path / "f16.gguf", "f16", seed=0)
    for quantization in ("iq4_xs", "q3_k_m"):
        quantize(tmp_path / "f16.gguf", tmp_path / "theirs.gguf", quantization)
        theirs = {tensor.name: tensor.tensor_type for tensor in gguf.GGUFReader(tmp_path / "theirs.gguf").tensors}
        assert {name: tensor_type(name, n_layers, quantization) for name in theirs} == theirs, quantization


def weight_of(path: Path, name: str) -> np.ndarray:
    (tensor,) = (tensor for tensor in gguf.GGUFReader(path).tensors if tensor.name == name)
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type)


# --- what is refused


def _without(given: Importance, name: str) -> Importance:
    sums = {each: values for each, values in given.sums.items() if each != name}
    return replace(given, sums=sums)


def _with(given: Importance, name: str, values: np.ndarray) -> Importance:
    return replace(given, sums={**given.sums, name: values.astype(np.float32)}, counts={**given.counts, name: 50})


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda given: _without(given, "blk.1.attn_v.weight"), r"lacks blk\.1\.attn_v\.weight, and 1 names"),
        (lambda given: _with(given, "blk.2.attn_v.weight", np.ones(128)), r"weighs blk\.2\.attn_v\.weight"),
        (lambda given: _with(given, "blk.1.attn_v.weight", np.ones(64)), "64 inputs for .*, which has 128"),
        (
            lambda given: _with(given, "blk.1.attn_v.weight", -np.ones(128)),
            "cannot be sums of squares",
        ),
        (lambda given: replace(given, sums={}), "damaged|no importance"),
    ],
)
def test_another_models_file_is_refused(
    change: Callable[[Importance], Importance], word: str, vicuna: tuple[Llm, Lora], tmp_path: Path
) -> None:
    llm, lora = vicuna
    write_imatrix(tmp_path / "im.gguf", change(importance_of(vicuna)))
    with pytest.raises(InputError, match=word):
        export_llm(llm, lora, tmp_path, quantization="q4_0", imatrix=tmp_path / "im.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["im.gguf"]


def test_the_head_need_not_be_weighed(vicuna: tuple[Llm, Lora], tmp_path: Path) -> None:
    """llama-imatrix leaves it out."""
    llm, lora = vicuna
    write_imatrix(tmp_path / "im.gguf", _without(importance_of(vicuna), "output.weight"))
    assert export_llm(llm, lora, tmp_path, quantization="q4_0", imatrix=tmp_path / "im.gguf")


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a matrix at all", b"\x01\0\0\0\x02\0\0\0ab", None, "model"])
def test_what_is_no_matrix_is_refused(content: bytes | str | None, vicuna: tuple[Llm, Lora], tmp_path: Path) -> None:
    path = tmp_path / "im.gguf"
    if content == "model":
        write_gguf(vicuna[0], path, "f16")
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"im\.gguf (is not an importance|cannot be read|holds no)"):
        read_imatrix(path)


@pytest.mark.parametrize("llm", ["f32", "f16", "q8_0"])
def test_types_that_nothing_weighs_are_refused(llm: str, vicuna: tuple[Llm, Lora], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"--imatrix changes nothing at --llm {llm}"):
        ExportOptions(out=tmp_path, llm=llm, imatrix="auto")
    with pytest.raises(InputError, match="changes nothing"):
        export_llm(*vicuna, tmp_path, quantization=llm, imatrix=tmp_path / "im.gguf")


@pytest.mark.parametrize("imatrix", [None, Path("im.gguf")])
def test_calibrate_goes_with_auto_alone(imatrix: Path | None, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is for --imatrix auto and --llm gptq"):
        ExportOptions(out=tmp_path, imatrix=imatrix, calibrate=tmp_path)


# --- the command


class Stop(KeyboardInterrupt):
    pass


def _stop(*_: object) -> None:
    raise Stop


@pytest.mark.parametrize("arguments", [export_arguments, salm_arguments], ids=["salmonn", "salm"])
def test_the_part_is_made_once_and_can_be_given(
    arguments: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "_export_graphs", _stop)
    auto = [*arguments(tmp_path / "a", llm="q4_0"), "--imatrix", "auto", "--quiet"]
    assert main(auto) == 130
    made = tmp_path / "a.partial" / "imatrix.gguf"
    assert read_imatrix(made).datasets == ("Auricle's demo clips",)
    monkeypatch.setattr(pipeline, "_gather", lambda *_: pytest.fail("measured again"))
    assert main(auto) == 130
    given = [*arguments(tmp_path / "b", llm="q4_0"), "--imatrix", str(made), "--quiet"]
    assert main(given) == 130
    assert (tmp_path / "b.partial" / "imatrix.gguf").read_bytes() == made.read_bytes()


def test_calibration_is_part_of_what_the_part_was_made_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_export_graphs", _stop)
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "jfk.wav").write_bytes(JFK.read_bytes())
    auto = [*salm_arguments(tmp_path / "a", llm="q4_0"), "--imatrix", "auto", "--quiet"]
    assert main(auto) == 130
    assert main([*auto, "--calibrate", str(tmp_path / "clips")]) == 130
    assert read_imatrix(tmp_path / "a.partial" / "imatrix.gguf").datasets == ("clips",)


def test_a_bundle_keeps_its_matrix(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [*salm_arguments(out, llm="q4_0", lora="merged"), "--imatrix", "auto", "--force", "--quiet"]
    assert main(words) == 0
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert "imatrix.gguf" in [entry["path"] for entry in manifest["files"]]
    assert manifest["provenance"]["options"]["imatrix"] == "auto"
    fields = gguf.GGUFReader(out / "llm.gguf").fields
    assert fields["quantize.imatrix.dataset"].contents() == "Auricle's demo clips"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--llm", "q8_0", "--imatrix", "auto"], "changes nothing at --llm q8_0"),
        (["--llm", "q4_0", "--calibrate", "clips"], "is for --imatrix auto and --llm gptq-q4_0"),
        (["--llm", "q4_0", "--imatrix", "nothing.gguf"], "nothing.gguf cannot be read"),
    ],
)
def test_the_command_says_what_is_wrong(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*salm_arguments(tmp_path / "out"), *words, "--quiet"]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()
