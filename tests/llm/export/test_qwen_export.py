"""Qwen3's export for a SALM: GGUF files against the golden data and transformers, the tokenizer, what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

pytest.importorskip("torch")

import gguf
import torch
from auricle.export.formats.byte_bpe import ByteVocabulary, read_byte_vocabulary, text_encoder, vocabulary_encoder
from auricle.export.formats.checkpoint import Weights, open_weights, read_json
from auricle.export.llm import lora as lora_module
from auricle.export.llm.base_model import check_base
from auricle.export.llm.export import Llm, disk_bytes, read_salm_llm, write_gguf
from auricle.export.llm.lora import Lora, read_salm_lora, require_fit, salm_lora_spec
from auricle.export.llm.quantize import quantize
from auricle.export.llm.tensor_types import tensor_type
from auricle.export.llm.torch_reference import ReferenceLlm
from auricle.export.synthetic.byte_vocabulary import synthetic_bytes
from auricle.export.synthetic.random_llm import random_tensors, write_random_llm
from auricle.models.errors import CheckpointError
from auricle.models.llm import CANARY_QWEN_LORA, LLM_TYPES, QWEN3_1_7B, LlmSpec, LoraSpec
from llama_judge import Judge
from llm_export import export_llm
from safetensors import torch as safetensors_torch

SALM = Path(__file__).parents[2] / "golden" / "salm-tiny"
CHECKPOINT = SALM / "checkpoint"
QWEN = CHECKPOINT / "qwen3"
CLIPS = ("jfk_11s", "noise_1s", "tone_40s")
BEFORE, AFTER = "<|im_start|>user\nTranscribe the following: ", "<|im_end|>\n<|im_start|>assistant\n"
LAYER = "llm.base_model.model.model.layers.{}."
GOLDEN_ATOL = 2e-3
"""Golden logits are 9e-4 from transformers' layers in float32, with which llama.cpp agrees to 1e-5."""
ODD_TEXTS = (
    "",
    " ",
    "    four  spaces ",
    "tabs\tand\nlines\n\n\r\n  end\n",
    "1234567890 3.14 ²³ ½ Ⅷ",
    "It's WE'LL they'Re i'd",
    "naïve café — “quoted” … €",
    "日本語のテキスト、中文。한국어",
    "🎧👩‍👩‍👧 emoji\u200d",
    "हिन्दी العربية עברית",
    "x=[1,2];//comment\n\tif(a<b){return;}",
    "<|im_end|> in <|im_start|>text <|no such|> <think>",
    "a" * 200,
    "\u00a0nbsp\u3000wide\u2028line",
)

State = dict[str, torch.Tensor]


def opened(directory: Path = CHECKPOINT) -> tuple[Llm, Lora]:
    weights = open_weights(directory)
    spec = salm_lora_spec(read_json(directory / "config.json"))
    return read_salm_llm(weights, directory / "qwen3"), read_salm_lora(weights, spec)


@pytest.fixture(scope="module")
def llm() -> Llm:
    return opened()[0]


@pytest.fixture(scope="module")
def lora() -> Lora:
    return opened()[1]


@pytest.fixture(scope="module")
def state() -> State:
    loaded = cast(Any, safetensors_torch).load_file(str(CHECKPOINT / "model.safetensors"))
    return {name: tensor for name, tensor in loaded.items() if not name.startswith("perception.")}


@pytest.fixture(scope="module")
def exported(llm: Llm, lora: Lora, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """GGUF files: merged (f32), the base alone, the adapter."""
    out = tmp_path_factory.mktemp("gguf")
    merged, adapter = export_llm(llm, lora, out, quantization="f32", mode="both")
    write_gguf(llm, out / "base.gguf", "f32")
    return {"merged": merged, "adapter": adapter, "base": out / "base.gguf"}


@pytest.fixture
def judge() -> Iterator[Callable[..., Judge]]:
    judges: list[Judge] = []

    def open_judge(*args: Any, **kwargs: Any) -> Judge:
        judges.append(Judge(*args, **kwargs))
        return judges[-1]

    yield open_judge
    for one in judges:
        one.close()


@pytest.fixture(params=CLIPS)
def clip(request: pytest.FixtureRequest) -> dict[str, np.ndarray]:
    with np.load(SALM / f"{request.param}.npz") as arrays:
        names = ("prompt", "prompt_ids", "audio_tokens", "next_logits", "ids_greedy")
        return {name: arrays[name] for name in names}


def text_logits(judge: Judge) -> np.ndarray:
    judge.prefill(text_encoder(QWEN)(BEFORE + AFTER))
    return judge.logits()


def copied(tmp_path: Path, state: State | None = None, **changed: Any) -> Path:
    """The golden checkpoint without its perception; `state` in place of its tensors, keywords change config.json."""
    place = tmp_path / "checkpoint"
    shutil.copytree(CHECKPOINT, place)
    if state is not None:
        cast(Any, safetensors_torch).save_file(
            {name: tensor.clone() for name, tensor in state.items()}, str(place / "model.safetensors")
        )
    edit(place / "config.json", **changed)
    return place


def edit(path: Path, **changed: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changed), encoding="utf-8")


# --- against the golden data


def test_the_specs_are_those_of_the_checkpoint(llm: Llm, lora: Lora) -> None:
    assert llm.spec == LlmSpec(64, 2, 4, 2, 128, 4096, 4096, 1e-6, 1e6, "qwen3", head_dim=16, tied=True)
    assert lora.spec == LoraSpec(4, 8.0)
    assert lora.spec.scale == CANARY_QWEN_LORA.scale == 2.0
    assert (lora.hidden, lora.n_layers, len(lora.pairs)) == (64, 2, 4)


def test_logits_and_greedy_ids_are_those_of_the_reference(
    exported: dict[str, Path], clip: dict[str, np.ndarray], judge: Callable[..., Judge]
) -> None:
    model = judge(exported["merged"], n_ctx=640)
    before, after = model.tokens(BEFORE, specials=True), model.tokens(AFTER, specials=True)
    tag = text_encoder(QWEN)("<|audioplaceholder|>")
    assert [*before, *tag, *after] == clip["prompt_ids"].tolist()
    n_audio, wanted = len(clip["audio_tokens"]), clip["ids_greedy"].tolist()
    model.prefill(before)
    model.prefill_audio(clip["audio_tokens"], len(before))
    model.prefill(after, len(before) + n_audio)
    np.testing.assert_allclose(model.logits(), clip["next_logits"], rtol=0, atol=GOLDEN_ATOL)
    position, found = len(before) + n_audio + len(after), [int(model.logits().argmax())]
    while len(found) < len(wanted):
        model.prefill(found[-1:], position)
        position, found = position + 1, [*found, int(model.logits().argmax())]
    assert found == wanted


def test_the_reference_is_the_reference(llm: Llm, lora: Lora, clip: dict[str, np.ndarray]) -> None:
    reference = ReferenceLlm(llm.weights, llm.spec, lora, lora.spec.scale)
    before, after = text_encoder(QWEN)(BEFORE), text_encoder(QWEN)(AFTER)
    ids = clip["ids_greedy"].tolist()
    logits = reference.logits(before, torch.from_numpy(clip["audio_tokens"]), [*after, *ids[:-1]], lambda *_: None)
    np.testing.assert_allclose(logits[len(after) - 1].numpy(), clip["next_logits"], rtol=0, atol=GOLDEN_ATOL)
    assert logits[len(after) - 1 :].argmax(-1).tolist() == ids


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_llama_cpp_cuts_text_as_qwens_tokenizer_does(
    text: str, exported: dict[str, Path], llm: Llm, judge: Callable[..., Judge]
) -> None:
    found = judge(exported["base"], vocab_only=True).tokens(text, specials=True)
    assert found == text_encoder(QWEN)(text)
    assert isinstance(llm.vocabulary, ByteVocabulary)
    assert found == vocabulary_encoder(llm.vocabulary)(text)


def test_llama_cpp_and_transformers_agree_on_text(
    exported: dict[str, Path], llm: Llm, lora: Lora, judge: Callable[..., Judge]
) -> None:
    reference, nothing = ReferenceLlm(llm.weights, llm.spec, lora, 2.0), torch.zeros(0, llm.spec.hidden)
    wanted = reference.logits([], nothing, text_encoder(QWEN)(BEFORE + AFTER), lambda *_: None)[-1]
    np.testing.assert_allclose(text_logits(judge(exported["merged"])), wanted.numpy(), rtol=0, atol=1e-5)


# --- what is in the files


def test_the_file_is_a_tied_qwen3(exported: dict[str, Path], state: State) -> None:
    reader = gguf.GGUFReader(exported["merged"])
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.architecture"] == "qwen3"
    assert (fields["qwen3.attention.key_length"], fields["qwen3.rope.freq_base"]) == (16, 1e6)
    assert (fields["tokenizer.ggml.model"], fields["tokenizer.ggml.pre"]) == ("gpt2", "qwen2")
    assert fields["tokenizer.ggml.eos_token_id"] == 4002
    assert not fields["tokenizer.ggml.add_bos_token"]
    assert fields["auricle.lora_scale"] == 2.0
    assert len(fields["tokenizer.ggml.tokens"]) == 4096
    assert fields["tokenizer.ggml.tokens"][4002:4005] == ["<|im_end|>", "<|audioplaceholder|>", "[PAD4004]"]
    assert fields["tokenizer.ggml.token_type"][3999:4005] == [1, 3, 3, 3, 3, 5]
    held = {t.name: np.array(t.data) for t in reader.tensors}
    assert "output.weight" not in held
    assert len(held) == 2 * 11 + 2
    query = LAYER.format(1) + "self_attn.q_proj"
    a, b = (state[f"{query}.lora_{side}.default.weight"].float() for side in "AB")
    merged = state[f"{query}.base_layer.weight"].float() + 2 * (b @ a)
    np.testing.assert_allclose(held["blk.1.attn_q.weight"], merged.numpy(), rtol=0, atol=1e-6)


def test_the_end_of_a_turn_ends_generation(exported: dict[str, Path], judge: Callable[..., Judge]) -> None:
    import llama_cpp

    model = judge(exported["base"], vocab_only=True)
    assert llama_cpp.llama_vocab_is_eog(model.vocab, 4002)
    assert not llama_cpp.llama_vocab_get_add_bos(model.vocab)


def test_adapter_on_the_base_is_the_merged_model(exported: dict[str, Path], judge: Callable[..., Judge]) -> None:
    base, merged, adapter = (exported[name] for name in ("base", "merged", "adapter"))
    wanted, alone = text_logits(judge(merged)), text_logits(judge(base))
    assert np.abs(wanted - alone).max() > 0.05
    np.testing.assert_allclose(text_logits(judge(base, adapter, 1.0)), wanted, rtol=0, atol=1e-4)
    np.testing.assert_allclose(text_logits(judge(merged, adapter, -1.0)), alone, rtol=0, atol=1e-4)


def test_without_its_adapter_it_is_the_base_model(
    exported: dict[str, Path], llm: Llm, judge: Callable[..., Judge]
) -> None:
    """Trap 33."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    model: Any = Qwen3ForCausalLM(cast(Any, Qwen3Config).from_pretrained(str(QWEN)))
    model.load_state_dict({n: llm.weights.get(n).float() for n in llm.weights.names()}, strict=False)
    model.tie_weights()
    with torch.no_grad():
        wanted = model.eval()(torch.tensor([text_encoder(QWEN)(BEFORE + AFTER)])).logits[0, -1].numpy()
    np.testing.assert_allclose(text_logits(judge(exported["base"])), wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("quantization", ["f16", "q8_0", "q4_k_m"])
def test_other_types_run(
    quantization: str, exported: dict[str, Path], llm: Llm, lora: Lora, tmp_path: Path, judge: Callable[..., Judge]
) -> None:
    (path,) = export_llm(llm, lora, tmp_path, quantization=quantization)
    wanted, found = text_logits(judge(exported["merged"])), text_logits(judge(path))
    error = np.sqrt(np.mean((found - wanted) ** 2)) / wanted.std()
    assert error < {"f16": 0.01, "q8_0": 0.1}.get(quantization, 0.5)


def test_a_lora_on_every_projection(state: State, llm: Llm, tmp_path: Path, judge: Callable[..., Judge]) -> None:
    """What another SALM may adapt: merged is the adapter on the base, and the reference."""
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    generator = torch.Generator().manual_seed(0)
    changed = dict(state)
    for n in range(2):
        for target in targets:
            module = LAYER.format(n) + ("mlp." if target in targets[4:] else "self_attn.") + target
            weight = changed.pop(f"{module}.weight", None)
            if weight is not None:
                rows, columns = weight.shape
                changed[f"{module}.base_layer.weight"] = weight
                changed[f"{module}.lora_A.default.weight"] = torch.randn(4, columns, generator=generator) * 0.1
                changed[f"{module}.lora_B.default.weight"] = torch.randn(rows, 4, generator=generator) * 0.1
    place = copied(tmp_path, changed, lora={"r": 4, "lora_alpha": 8, "target_modules": targets})
    other, lora = opened(place)
    assert lora.spec.targets == tuple(targets)
    merged, adapter = export_llm(other, lora, tmp_path, quantization="f32", mode="both")
    write_gguf(other, tmp_path / "base.gguf", "f32")
    found = text_logits(judge(merged))
    np.testing.assert_allclose(text_logits(judge(tmp_path / "base.gguf", adapter)), found, rtol=0, atol=1e-4)
    ids = text_encoder(QWEN)(BEFORE + AFTER)
    nothing = torch.zeros(0, 64)
    logits = ReferenceLlm(other.weights, other.spec, lora, 2.0).logits([], nothing, ids, lambda *_: None)
    np.testing.assert_allclose(logits[-1].numpy(), found, rtol=0, atol=1e-4)


# --- random weights of the same shapes


@pytest.fixture(scope="module")
def vocabulary() -> ByteVocabulary:
    return read_byte_vocabulary(QWEN, 4096)


def tiny(n_layers: int) -> LlmSpec:
    return LlmSpec(256, n_layers, 2, 1, 256, 4096, 512, 1e-6, 1e6, "qwen3", head_dim=128, tied=True)


@pytest.mark.parametrize(("n_layers", "quantizations"), [(2, ["q8_0", "q6_k", "q4_0"]), (28, ["q4_k_m"])])
def test_types_are_those_of_llama_cpps_quantizer(
    n_layers: int, quantizations: list[str], vocabulary: ByteVocabulary, tmp_path: Path
) -> None:
    write_random_llm(tiny(n_layers), vocabulary, tmp_path / "f16.gguf", "f16", seed=0)
    for quantization in quantizations:
        path = tmp_path / "theirs.gguf"
        quantize(tmp_path / "f16.gguf", path, quantization)
        theirs = {tensor.name: tensor.tensor_type for tensor in gguf.GGUFReader(path).tensors}
        assert {name: tensor_type(name, n_layers, quantization, tied=True) for name in theirs} == theirs, quantization


@pytest.mark.parametrize("quantization", LLM_TYPES)
def test_the_arithmetic_of_sizes_is_near_the_truth(quantization: str) -> None:
    size = sum(t.n_bytes for t in random_tensors(QWEN3_1_7B, quantization, seed=0))
    assert QWEN3_1_7B.weight_bytes(quantization) == pytest.approx(size, rel=0.02)
    assert disk_bytes(QWEN3_1_7B, quantization) > size


def test_a_synthetic_vocabulary_cuts_the_prompt_as_qwens_does(tmp_path: Path, judge: Callable[..., Judge]) -> None:
    large = synthetic_bytes()
    assert len(large) == len(set(large.pieces)) == QWEN3_1_7B.vocab
    assert (large.bos, large.eos, large.pieces[151644]) == (151643, 151645, "<|im_start|>")
    spec = replace(tiny(1), vocab=len(large))
    write_random_llm(spec, large, tmp_path / "llm.gguf", "q4_0", seed=0)
    model = judge(tmp_path / "llm.gguf")
    before, after = model.tokens(BEFORE, specials=True), model.tokens(AFTER, specials=True)
    assert (len(before), len(after)) == (9, 5)
    assert vocabulary_encoder(large)(BEFORE + AFTER + ODD_TEXTS[3]) == [*before, *after, *model.tokens(ODD_TEXTS[3])]
    model.prefill([*before, *after])
    assert 0.1 < model.logits().std() < 10


# --- what is refused


def llm_keys() -> list[str]:
    first = LAYER.format(1)
    names = ("self_attn.q_proj.base_layer.weight", "self_attn.k_norm.weight", "mlp.up_proj.weight")
    return ["embed_tokens.weight", "llm.base_model.model.model.norm.weight", *(first + name for name in names)]


@pytest.mark.parametrize("key", llm_keys())
def test_a_missing_weight_is_named(key: str, state: State, tmp_path: Path) -> None:
    place = copied(tmp_path, {name: tensor for name, tensor in state.items() if name != key})
    with pytest.raises(CheckpointError, match=f"1 tensors are missing: {key}"):
        opened(place)


def test_an_unknown_weight_is_named(state: State, tmp_path: Path) -> None:
    key = LAYER.format(0) + "self_attn.q_proj.base_layer.bias"
    with pytest.raises(CheckpointError, match=f"holds {key}, for which .* has no place.*--qwen"):
        opened(copied(tmp_path, {**state, key: torch.zeros(64)}))


def test_a_head_that_is_not_the_embedding_is_refused(state: State, tmp_path: Path) -> None:
    head = "llm.base_model.model.lm_head.weight"
    changed = state[head].clone()
    changed[7, 7] += 1
    with pytest.raises(CheckpointError, match=r"lm_head\.weight differs from embed_tokens\.weight"):
        opened(copied(tmp_path, {**state, head: changed}))


def test_a_tied_head_need_not_be_stored(state: State, tmp_path: Path) -> None:
    head = "llm.base_model.model.lm_head.weight"
    assert opened(copied(tmp_path, {name: tensor for name, tensor in state.items() if name != head}))[0].spec.tied


def test_an_untied_head_is_exported(state: State, tmp_path: Path, judge: Callable[..., Judge]) -> None:
    head = "llm.base_model.model.lm_head.weight"
    place = copied(tmp_path, {**state, head: state[head].flip(0)})
    edit(place / "qwen3" / "config.json", tie_word_embeddings=False)
    llm, lora = opened(place)
    (path,) = export_llm(llm, lora, tmp_path, quantization="f32")
    turned = text_logits(judge(path))
    reference = ReferenceLlm(llm.weights, llm.spec, lora, 2.0)
    ids = text_encoder(QWEN)(BEFORE + AFTER)
    wanted = reference.logits([], torch.zeros(0, 64), ids, lambda *_: None)[-1].numpy()
    np.testing.assert_allclose(turned, wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"model_type": "qwen2"}, "model_type 'qwen2'"),
        ({"attention_bias": True}, "attention_bias"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "yarn"),
        ({"rope_theta": None}, "rope_theta None"),
        ({"hidden_size": 128}, r"embed_tokens\.weight is \[4096, 64\].*\[4096, 128\].*--qwen"),
        ({"head_dim": 32}, r"q_proj\.base_layer\.weight is \[64, 64\]"),
        ({"num_key_value_heads": 3}, "4 heads of 16 and 3 key-value heads"),
        ({"num_hidden_layers": 3}, r"model\.layers\.2\.input_layernorm\.weight"),
        ({"num_hidden_layers": 1}, r"model\.layers\.1\..* no place.*--qwen"),
        ({"vocab_size": 5000}, r"\[4096, 64\] but .*\[5000, 64\]"),
        ({"vocab_size": 4003}, "4004 pieces, but the embedding has 4003 rows"),
        ({"eos_token_id": 4000}, r"<\|im_end\|> is 4002 in tokenizer.json but config.json says 4000"),
    ],
)
def test_another_config_is_refused(config: dict[str, Any], word: str, tmp_path: Path) -> None:
    place = copied(tmp_path)
    edit(place / "qwen3" / "config.json", **config)
    with pytest.raises(CheckpointError, match=word):
        read_salm_llm(open_weights(place), place / "qwen3")


def spoiled(part: str) -> tuple[str, dict[str, Any]]:
    """A tokenizer file and what to put into it."""
    whole = json.loads((QWEN / "tokenizer.json").read_text(encoding="utf-8"))
    model, cut = whole["model"], whole["pre_tokenizer"]["pretokenizers"]
    prefixed = [cut[0], {**cut[1], "add_prefix_space": True}]
    split = {**cut[0], "pattern": {"Regex": cut[0]["pattern"]["Regex"].replace(r"\p{N}|", r"\p{N}{1,3}|")}}
    added = whole["added_tokens"]
    changes: dict[str, dict[str, Any]] = {
        "wordpiece": {"model": {**model, "type": "WordPiece"}},
        "fallback": {"model": {**model, "byte_fallback": True}},
        "llama3": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, cut[1]]}},
        "prefix": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": prefixed}},
        "bytes only": {"pre_tokenizer": cut[1]},
        "none": {"pre_tokenizer": None},
        "lower": {"normalizer": {"type": "Lowercase"}},
        "merge": {"model": {**model, "merges": [*model["merges"], ["zz", "qq qq"]]}},
        "strips": {"added_tokens": [{**added[0], "lstrip": True}, *added[1:]]},
        "no turns": {"added_tokens": added[:2]},
    }
    return "tokenizer.json", changes[part]


@pytest.mark.parametrize(
    ("part", "word"),
    [
        ("wordpiece", "type 'WordPiece'"),
        ("fallback", "byte_fallback"),
        ("llama3", "cuts text before merging in another way"),
        ("prefix", "cuts text before merging"),
        ("bytes only", "cuts text before merging"),
        ("none", "cuts text before merging"),
        ("lower", "normalizes text .Lowercase"),
        ("merge", "without having these pieces"),
        ("strips", "swallows what is beside it"),
        ("no turns", r"no special token <\|im_end\|>"),
    ],
)
def test_another_tokenizer_is_refused(part: str, word: str, tmp_path: Path) -> None:
    shutil.copytree(QWEN, tmp_path / "qwen3")
    name, changes = spoiled(part)
    edit(tmp_path / "qwen3" / name, **changes)
    with pytest.raises(CheckpointError, match=word):
        read_byte_vocabulary(tmp_path / "qwen3", 4096)


def test_a_base_models_end_of_text_is_refused(tmp_path: Path) -> None:
    shutil.copytree(QWEN, tmp_path / "qwen3")
    edit(tmp_path / "qwen3" / "tokenizer_config.json", eos_token="<|endoftext|>")
    with pytest.raises(CheckpointError, match="not the -Base one's"):
        read_byte_vocabulary(tmp_path / "qwen3", 4096)


def test_older_files_write_merges_as_text_and_composing_letters_is_qwens(
    tmp_path: Path, vocabulary: ByteVocabulary
) -> None:
    shutil.copytree(QWEN, tmp_path / "qwen3")
    path = tmp_path / "qwen3" / "tokenizer.json"
    model = json.loads(path.read_text(encoding="utf-8"))["model"]
    edit(path, model={**model, "merges": [" ".join(pair) for pair in model["merges"]]}, normalizer={"type": "NFC"})
    assert read_byte_vocabulary(tmp_path / "qwen3", 4096) == vocabulary


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    place = copied(tmp_path)
    (place / "qwen3" / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        opened(place)


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"r": 8}, "holds a LoRA of rank 4, but its config.json says r 8"),
        ({"target_modules": ["q_proj", "k_proj"]}, r"adapts .*v_proj\.lora_A.*says q_proj and k_proj only"),
        ({"target_modules": ["q_proj", "k_proj", "v_proj"]}, r"lacks 4 LoRA tensors: .*k_proj\.lora_A"),
        ({"target_modules": ["q_proj", "lm_head"]}, "target_modules 'lm_head'"),
        ({"target_modules": "all-linear"}, "target_modules 'all-linear'"),
        ({"use_rslora": True}, r"lora\.use_rslora True"),
        ({"lora_alpha": None}, "lora_alpha None"),
        ({"lora_alpha": -1}, "alpha -1"),
        ({"r": "wide"}, "r 'wide'"),
    ],
)
def test_another_lora_is_refused(changed: dict[str, Any], word: str, tmp_path: Path) -> None:
    section = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], **changed}
    with pytest.raises((CheckpointError, ValueError), match=word):
        opened(copied(tmp_path, lora=section))


PLAIN_SECTION: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}


def test_every_field_of_peft_is_known() -> None:
    """A field that a new peft brings is looked at before its checkpoints are exported."""
    peft = pytest.importorskip("peft")
    defaults = peft.LoraConfig().to_dict()
    assert {field.name for field in fields(peft.LoraConfig)} == {*lora_module.PLAIN, *lora_module.HARMLESS} | {
        *lora_module.READ
    }
    assert {name: defaults[name] for name in lora_module.PLAIN} == lora_module.PLAIN
    assert salm_lora_spec({"lora": {**defaults, **PLAIN_SECTION}}) == LoraSpec(4, 8.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, True) for name in lora_module.PLAIN if name.startswith("use_") or "bias" in name),
        *((name, {"a": 1}) for name in lora_module.PLAIN if name.endswith(("_config", "_pattern"))),
        ("bias", "lora_only"),
        ("peft_type", "LOHA"),
        ("alora_invocation_tokens", [151644, 8948]),
        ("layer_replication", [[0, 2], [1, 2]]),
        ("layers_to_transform", [0]),
        ("trainable_token_indices", [5]),
        ("modules_to_save", ["lm_head"]),
        ("exclude_modules", "lm_head"),
        ("target_parameters", ["mlp.experts"]),
        ("fan_in_fan_out", True),
        ("ensure_weight_tying", True),
        ("init_lora_weights", "pissa_niter_4"),
        ("next_years_idea", False),
    ],
)
def test_a_field_that_makes_another_adapter_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(CheckpointError, match=rf"config\.json has lora\.{name} .*plain LoRA only"):
        salm_lora_spec({"lora": {**PLAIN_SECTION, name: value}})


@pytest.mark.parametrize("name", ["lora_magnitude_vector.default.weight", "hada_w1_a.default", "lokr_w1.default"])
def test_weights_of_another_adapter_are_refused(state: State, tmp_path: Path, name: str) -> None:
    key = f"llm.base_model.model.model.layers.0.self_attn.q_proj.{name}"
    with pytest.raises(CheckpointError, match=rf"adapts .*{name}"):
        read_salm_lora(open_weights(copied(tmp_path, {**state, key: torch.ones(4)})), LoraSpec(4, 8.0))


def test_a_checkpoint_without_lora_is_refused(state: State, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no lora section"):
        salm_lora_spec({"lora": None})
    bare = {name.replace(".base_layer", ""): tensor for name, tensor in state.items() if ".lora_" not in name}
    with pytest.raises(CheckpointError, match="not a SALM checkpoint"):
        opened(copied(tmp_path, bare))


def test_a_missing_or_misshapen_lora_tensor_is_named(state: State, tmp_path: Path) -> None:
    key = LAYER.format(1) + "self_attn.v_proj.lora_B.default.weight"
    with pytest.raises(CheckpointError, match=f"lacks 1 LoRA tensors: {key}"):
        opened(copied(tmp_path / "a", {name: tensor for name, tensor in state.items() if name != key}))
    with pytest.raises(CheckpointError, match="layer 1's v_proj LoRA has A"):
        opened(copied(tmp_path / "b", {**state, key: torch.zeros(32, 3)}))
    llm, lora = opened(copied(tmp_path / "c", {**state, key: torch.zeros(64, 4)}))
    with pytest.raises(CheckpointError, match=r"layer 1's v_proj LoRA is for a weight \[64, 64\]"):
        require_fit(lora, llm.spec, "qwen3")


def test_a_qwen_of_vicunas_size_is_not_taken_for_vicuna(llm: Llm) -> None:
    check_base(replace(QWEN3_1_7B, hidden=5120, n_layers=40), llm.fingerprint)


def test_a_view_renames_and_leaves_out() -> None:
    weights: Weights = open_weights(CHECKPOINT)
    view = weights.renamed({"table": "embed_tokens.weight"})
    assert view.names() == ["table"]
    assert "table" in view
    assert "table" not in weights
    assert view.shape("table") == (4096, 64)
    assert torch.equal(view.get("table"), weights.get("embed_tokens.weight"))
    view.close()
    assert torch.equal(view.get("table"), weights.get("embed_tokens.weight"))
