"""LLaMAs with byte-level tokenizers, as SmolLM2 and Llama 3 have, in the place of Vicuna: same ids, same logits."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from auricle.export.__main__ import main
from auricle.export.formats.byte_bpe import read_llama_byte_vocabulary, text_encoder
from auricle.export.llm.export import read_llm, write_gguf
from auricle.export.llm.lora import Lora
from auricle.export.llm.torch_reference import ReferenceLlm
from auricle.models.audio import synthetic_clip
from auricle.models.bundle import read_manifest
from auricle.models.errors import CheckpointError
from auricle.models.llm import LoraSpec
from auricle.runtime.engine import load
from conftest import export_arguments
from llama_checkpoint import ENDS, LLAMA_3, TEXTS, write_llama
from llama_judge import Judge
from transformers import LlamaForCausalLM


@pytest.mark.parametrize("kind", ["smollm", "llama-bpe", "gpt-2"])
def test_the_same_ids_and_the_same_logits_as_transformers(kind: str, tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "llama", kind)
    llm = read_llm(folder)
    assert llm.spec.tied and llm.spec.n_kv_heads == 2
    assert llm.vocabulary == read_llama_byte_vocabulary(folder, llm.spec.vocab)
    write_gguf(llm, tmp_path / "llm.gguf", "f32")
    judge = Judge(tmp_path / "llm.gguf")
    encode = text_encoder(folder)
    try:
        for text in (*TEXTS, f"{ENDS[kind][0]}user\n{TEXTS[1]}{ENDS[kind][1]}"):
            assert judge.tokens(text, specials=True) == encode(text), text
        ids = encode(TEXTS[1])
        judge.prefill(ids)
        with torch.no_grad():
            model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
            expected = model(torch.tensor([ids])).logits[0, -1].numpy()
        assert np.abs(judge.logits() - expected).max() < 1e-4
    finally:
        judge.close()


LLAMA_3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def test_llama_3_s_stretched_positions(tmp_path: Path) -> None:
    """Far beyond the length it was trained at, in llama.cpp and in the reference alike; without them all is other."""
    folder = write_llama(tmp_path / "llama", "llama-bpe", rope_parameters=LLAMA_3_ROPE, hidden_size=192)
    llm = read_llm(folder)
    assert llm.rope is not None and llm.spec.rope_theta == 500_000.0
    model: Any = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    plain = 1 / 500_000.0 ** (np.arange(0, 32, 2) / 32)
    frequencies = plain / llm.rope.divisors(llm.spec)
    np.testing.assert_allclose(frequencies, model.model.rotary_emb.inv_freq.numpy(), rtol=1e-5)
    write_gguf(llm, tmp_path / "llm.gguf", "f32")
    write_gguf(replace(llm, rope=None), tmp_path / "plain.gguf", "f32")
    ids = np.random.default_rng(0).integers(0, 300, 400).tolist()
    nothing = Lora(LoraSpec(1, 1.0), llm.spec.hidden, llm.spec.n_layers, {})
    reference = ReferenceLlm(llm.weights, llm.spec, nothing, 0.0, llm.rope)
    with torch.no_grad():
        wanted = model(torch.tensor([ids])).logits[0, -1].numpy()[: llm.spec.vocab]
    ours = reference.logits(ids[:-1], torch.zeros(0, 192), ids[-1:], lambda *_: None)[-1].numpy()
    assert np.abs(ours - wanted).max() < 1e-4
    errors: dict[str, float] = {}
    for name in ("llm", "plain"):
        judge = Judge(tmp_path / f"{name}.gguf", n_ctx=512)
        try:
            judge.prefill(ids)
            errors[name] = float(np.abs(judge.logits()[: len(wanted)] - wanted).max())
        finally:
            judge.close()
    assert errors["llm"] < 1e-4 < 1e-2 < errors["plain"]


@pytest.mark.parametrize(
    ("change", "word"),
    [({"factor": 0.5}, "factor"), ({"low_freq_factor": 4.0}, "below"), ({"factor": None}, "factor None")],
)
def test_a_stretch_that_llama_3_does_not_know_is_refused(change: dict[str, Any], word: str, tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "llama", "llama-bpe")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"rope_parameters": LLAMA_3_ROPE | change}))
    with pytest.raises(CheckpointError, match=word):
        read_llm(folder)


@pytest.mark.parametrize(("kind", "first"), [("smollm", "<|im_start|>user\n<Speech>"), ("llama-bpe", LLAMA_3[2])])
def test_a_whole_bundle_with_such_a_base(kind: str, first: str, golden: Path, tmp_path: Path) -> None:
    """The exporter's own check compares every stage and the answer's tokens with torch."""
    vicuna = golden / "salmonn-tiny" / "checkpoint" / "vicuna"
    config = json.loads((vicuna / "config.json").read_text(encoding="utf-8"))
    sizes = {name: config[name] for name in ("hidden_size", "intermediate_size", "num_hidden_layers")}
    sizes |= {name: config["num_attention_heads"] for name in ("num_attention_heads", "num_key_value_heads")}
    base = write_llama(tmp_path / "llama", kind, **sizes, tie_word_embeddings=False)
    arguments = export_arguments(tmp_path / "bundle")
    arguments[arguments.index("--vicuna") + 1] = str(base)
    assert main(arguments) == 0
    prompt = read_manifest(tmp_path / "bundle").prompt
    encode = text_encoder(base)
    begin = encode(ENDS[kind][0]) if kind == "llama-bpe" else []
    assert list(prompt.prefix_ids)[: len(begin)] == begin and prompt.special_tokens
    assert prompt.turn.replace("{keywords}", "").startswith(first)
    assert prompt.eos_id == encode(ENDS[kind][1])[0]
    with load(tmp_path / "bundle") as engine:
        assert engine.ask(synthetic_clip(7, 2.0), "asr").segments


def test_what_cannot_be_repeated_or_asked_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_llama(tmp_path / "llama", "smollm")
    spoilt = tmp_path / "spoilt"
    shutil.copytree(folder, spoilt)
    document = json.loads((spoilt / "tokenizer.json").read_text(encoding="utf-8"))
    document["pre_tokenizer"]["pretokenizers"][0]["individual_digits"] = False
    (spoilt / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(CheckpointError, match="cuts text before merging in another way than qwen2 or llama-bpe"):
        read_llm(spoilt)
    (folder / "tokenizer_config.json").write_text('{"bos_token": "<nobody>", "eos_token": "<|im_end|>"}')
    with pytest.raises(CheckpointError, match="bos_token '<nobody>'"):
        read_llm(folder)
    arguments = export_arguments(tmp_path / "bundle")
    assert main([*arguments, "--prompt-template", "no place for a question"]) == 2
    assert "needs {} once" in capsys.readouterr().err
    assert main([*arguments, "--end-symbol", "</s>"]) == 2  # would change nothing: Vicuna ends with its own
    assert "is for a byte-level tokenizer" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()
