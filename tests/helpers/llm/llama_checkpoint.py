"""Small LLaMAs of random weights with byte-level tokenizers, as a Hugging Face directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from auricle.export.formats.byte_bpe import PRE_TOKENIZERS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM

SPECIALS = {"smollm": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], "gpt-2": ["<s>", "</s>"]}
LLAMA_3 = ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]
ENDS = {"smollm": ("<|im_start|>", "<|im_end|>"), "llama-bpe": (LLAMA_3[0], LLAMA_3[1]), "gpt-2": ("<s>", "</s>")}
TEXTS = (
    "",
    "turn on the lights in 12 rooms, it's 3.14 o'clock",
    "naïve café — 日本語 🎧 ½",
    "tabs\tand\nlines\n\n  end ",
    "1234567890 I'LL we've",
    "a" * 100,
)


def tokenizer(kind: str) -> Any:
    """Trained on a few words, cut as llama.cpp's `kind` cuts."""
    steps: list[Any] = []
    for name, value in PRE_TOKENIZERS[kind]:
        if name == "Split":
            from tokenizers import Regex

            steps.append(pre_tokenizers.Split(Regex(str(value)), "isolated"))
        elif name == "Digits":
            steps.append(pre_tokenizers.Digits(individual_digits=bool(value)))
        else:
            steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=bool(value)))
    made: Any = Tokenizer(models.BPE(ignore_merges=kind == "llama-bpe"))
    made.pre_tokenizer = steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(steps)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer: Any = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=alphabet, special_tokens=SPECIALS.get(kind, LLAMA_3), show_progress=False
    )
    made.train_from_iterator(
        ["turn on the lights in the rooms it is three o'clock", "and lines end 12 34"] * 9, trainer
    )
    if kind == "llama-bpe":
        bos = made.token_to_id(LLAMA_3[0])
        made.post_processor = processors.TemplateProcessing(
            single=f"{LLAMA_3[0]} $A", special_tokens=[(LLAMA_3[0], bos)]
        )
    return made


def write_llama(folder: Path, kind: str, **sizes: Any) -> Path:
    """A LLaMA of random weights, grouped heads and tied embeddings unless `sizes` say otherwise."""
    torch.manual_seed(0)
    made = tokenizer(kind)
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    bos, eos = ENDS[kind]
    tokens = {"bos_token": bos, "eos_token": {"content": eos}}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens), encoding="utf-8")
    shape: dict[str, Any] = {
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 100_000.0,
        "tie_word_embeddings": True,
    }
    rows = made.get_vocab_size() + 3  # more rows than pieces, as Llama 3 has
    LlamaForCausalLM(LlamaConfig(vocab_size=rows, **(shape | sizes))).eval().save_pretrained(folder)
    return folder
