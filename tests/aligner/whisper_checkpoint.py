"""Whispers with their decoder as Hugging Face directories: of random weights, or a faster-whisper one's numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from auricle.export.formats.ctranslate2 import CTranslate2Whisper
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import WhisperConfig, WhisperForConditionalGeneration

SPECIALS = (
    *("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>"),
    *("<|nospeech|>", "<|notimestamps|>"),
)
HEADS = [[1, 1], [0, 0], [1, 0]]


def write_whisper(folder: Path, multilingual: bool = False) -> Path:
    """Two layers of random weights, a window of 2 s."""
    torch.manual_seed(0)
    made: Any = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer: Any = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    made.train_from_iterator([" turn on the lights in the rooms, it is three o'clock"] * 9, trainer)
    made.add_special_tokens([*SPECIALS])
    ids = {piece: made.token_to_id(piece) for piece in SPECIALS}
    config: dict[str, Any] = {
        **{"vocab_size": made.get_vocab_size(), "d_model": 16, "max_source_positions": 100, "num_mel_bins": 80},
        **{f"{half}_{what}": n for half in ("encoder", "decoder") for what, n in (("layers", 2), ("ffn_dim", 32))},
        **{f"{half}_attention_heads": 2 for half in ("encoder", "decoder")},
        **{"max_target_positions": 128, "decoder_start_token_id": ids["<|startoftranscript|>"]},
        **{"eos_token_id": ids["<|endoftext|>"], "pad_token_id": ids["<|endoftext|>"]},
        **{"bos_token_id": ids["<|endoftext|>"], "suppress_tokens": None, "begin_suppress_tokens": None},
    }
    model = WhisperForConditionalGeneration(WhisperConfig(**config, init_std=0.3))
    model.save_pretrained(folder)
    made.save(str(folder / "tokenizer.json"))
    generation = {"alignment_heads": HEADS, "is_multilingual": multilingual, "suppress_tokens": [5, 7]}
    (folder / "generation_config.json").write_text(json.dumps(generation | {"begin_suppress_tokens": [9]}))
    return folder


def as_hugging_face(source: Path, folder: Path) -> WhisperForConditionalGeneration:
    """faster-whisper's weights, opened and saved by transformers."""
    opened = CTranslate2Whisper(source)
    state = {name: opened.get(name) for name in opened.names()}
    vocab, d_model = state["model.decoder.embed_tokens.weight"].shape
    sizes: dict[str, Any] = {"d_model": d_model, "vocab_size": vocab, "attn_implementation": "eager"}
    for half in ("encoder", "decoder"):
        sizes |= {f"{half}_attention_heads": opened.n_heads, f"{half}_ffn_dim": opened.d_ffn}
        sizes[f"{half}_layers"] = opened.n_layers
    model = WhisperForConditionalGeneration(WhisperConfig(**sizes)).eval()
    model.load_state_dict(state | {"proj_out.weight": state["model.decoder.embed_tokens.weight"]})
    model.save_pretrained(folder)
    shutil.copyfile(source / "tokenizer.json", folder / "tokenizer.json")
    return model
