"""Qwen's byte-level BPE vocabulary, as llama.cpp wants it, and its exact ids. Source: docs/reference.md §7.1, §7.6."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import gguf

from ...models.errors import CheckpointError
from .checkpoint import read_json

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # GGUF's token types
TURN_START, TURN_END, DOCUMENT_END = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
PRE_TOKENIZER = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen2 and Qwen3 cut text before merging; llama.cpp knows it as `qwen2`."""
_PLAIN = ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges")
_STRIPS = ("lstrip", "rstrip", "single_word")


@dataclass(frozen=True)
class ByteVocabulary:
    """One entry per row of the embedding. Nothing is put before or after a text."""

    pieces: tuple[str, ...]  # in GPT-2's letters, one for each byte; a space is Ġ
    types: tuple[int, ...]  # 1 normal, 3 control, 4 user defined, 5 unused
    merges: tuple[str, ...]  # two pieces and a space between them, the first merged first
    bos: int  # <|endoftext|>; it is in no prompt
    eos: int  # <|im_end|>
    pad: int  # <|endoftext|>

    def __len__(self) -> int:
        return len(self.pieces)

    def add_to(self, writer: gguf.GGUFWriter) -> None:
        """The vocabulary's part of a GGUF file's header."""
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("qwen2")
        writer.add_token_list(self.pieces)
        writer.add_token_types(self.types)
        writer.add_token_merges(self.merges)
        writer.add_bos_token_id(self.bos)
        writer.add_eos_token_id(self.eos)
        writer.add_pad_token_id(self.pad)
        writer.add_add_bos_token(False)
        writer.add_add_eos_token(False)


def read_byte_vocabulary(directory: Path, n_rows: int) -> ByteVocabulary:
    """Read tokenizer.json and tokenizer_config.json; rows beyond them, up to n_rows, become unused pieces.

    Raises CheckpointError when they are missing, damaged, have more pieces than n_rows, or cut text in a way
    llama.cpp would not repeat.
    """
    path = directory / "tokenizer.json"
    tokenizer = read_json(path)
    model: dict[str, Any] = tokenizer.get("model") or {}
    _require_repeatable(tokenizer, model, path)
    pieces = {int(n): str(piece) for piece, n in cast(dict[str, Any], model.get("vocab") or {}).items()}
    types = dict.fromkeys(pieces, NORMAL)
    merges = _merges(model, set(pieces.values()), path)
    for token in cast(list[dict[str, Any]], tokenizer.get("added_tokens") or []):
        if any(token.get(key) for key in _STRIPS):
            raise CheckpointError(f"{path}: {token['content']!r} swallows what is beside it, which no Qwen3's does")
        n = int(token["id"])
        pieces[n] = str(token["content"])
        types[n] = CONTROL if token.get("special") else USER_DEFINED
    if max(pieces, default=0) >= n_rows:
        raise CheckpointError(
            f"{path} has {max(pieces) + 1} pieces, but the embedding has {n_rows} rows: "
            "they belong to different models, give one model's whole directory as --qwen"
        )
    ids = {piece: n for n, piece in pieces.items()}
    _require_specials(ids, types, directory)
    return ByteVocabulary(
        tuple(pieces.get(n, f"[PAD{n}]") for n in range(n_rows)),
        tuple(types.get(n, UNUSED) for n in range(n_rows)),
        merges,
        bos=ids[DOCUMENT_END],
        eos=ids[TURN_END],
        pad=ids[DOCUMENT_END],
    )


def text_encoder(directory: Path) -> Callable[[str], list[int]]:
    """A text to Qwen's own ids, special tokens recognised, which the GGUF vocabulary must give too.

    The directory's tokenizer is one that `read_byte_vocabulary` has read.
    """
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    return lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids)


def byte_ids(vocabulary: ByteVocabulary, text: str) -> tuple[int, ...]:
    """The same of a vocabulary that lies in no directory. Its tokenizer takes a second to build at full size."""
    import tokenizers
    from tokenizers import models, pre_tokenizers

    pieces = {piece: n for n, piece in enumerate(vocabulary.pieces) if vocabulary.types[n] != UNUSED}
    bpe: Any = models.BPE(pieces, [cast(tuple[str, str], tuple(merge.split(" "))) for merge in vocabulary.merges])
    tokenizer: Any = tokenizers.Tokenizer(bpe)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(PRE_TOKENIZER), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.add_special_tokens([piece for piece, n in pieces.items() if vocabulary.types[n] == CONTROL])
    return tuple(tokenizer.encode(text).ids)


def _require_repeatable(tokenizer: dict[str, Any], model: dict[str, Any], path: Path) -> None:
    """Raises CheckpointError for anything but the byte-level BPE that llama.cpp knows as qwen2."""
    odd = [key for key in _PLAIN if model.get(key)]
    if model.get("type") != "BPE" or odd:
        what = odd[0] if odd else f"type {model.get('type')!r}"
        raise CheckpointError(f"{path} is not Qwen's plain byte-level BPE ({what}): give Qwen3's directory as --qwen")
    normalizer = tokenizer.get("normalizer") or {"type": "NFC"}
    if normalizer.get("type") != "NFC":
        raise CheckpointError(
            f"{path} normalizes text ({normalizer.get('type')}); Qwen3's tokenizer only composes (NFC)"
        )
    steps: Any = tokenizer.get("pre_tokenizer") or {}
    steps = steps.get("pretokenizers") or [steps]
    split, letters = [*steps, {}, {}][:2]
    known = (
        len(steps) == 2
        and (split.get("type"), split.get("behavior"), split.get("invert")) == ("Split", "Isolated", False)
        and (split.get("pattern") or {}).get("Regex") == PRE_TOKENIZER
        and letters.get("type") == "ByteLevel"
        and not letters.get("add_prefix_space")
        and not letters.get("use_regex")
    )
    if not known:
        raise CheckpointError(
            f"{path} cuts text before merging in another way than Qwen2 and Qwen3, which llama.cpp would not repeat: "
            "give Qwen3's directory as --qwen"
        )


def _merges(model: dict[str, Any], pieces: set[str], path: Path) -> tuple[str, ...]:
    """Older files write "a b", newer ones ["a", "b"]."""
    merges: list[str] = []
    for entry in cast(list[Any], model.get("merges") or []):
        pair = entry.split(" ") if isinstance(entry, str) else entry
        if len(pair) != 2 or not {*pair, "".join(pair)} <= pieces:
            raise CheckpointError(f"{path} merges {pair} without having these pieces: download it again")
        merges.append(" ".join(pair))
    return tuple(merges)


def _require_specials(ids: dict[str, int], types: dict[int, int], directory: Path) -> None:
    for piece in (TURN_START, TURN_END, DOCUMENT_END):
        if types.get(ids.get(piece, -1)) != CONTROL:
            raise CheckpointError(f"{directory} has no special token {piece}: it is not Qwen3's tokenizer")
    end: Any = read_json(directory / "tokenizer_config.json").get("eos_token")
    end = end.get("content") if isinstance(end, dict) else end
    if end != TURN_END:
        raise CheckpointError(
            f"{directory}/tokenizer_config.json ends a text with {end!r}, a SALM's turns end with {TURN_END}: "
            "give the chat model's directory as --qwen, not the -Base one's"
        )
    config = read_json(directory / "config.json").get("eos_token_id", ids[end])
    if ids[end] not in (config if isinstance(config, list) else [config]):
        raise CheckpointError(
            f"{directory}: {TURN_END} is {ids[end]} in tokenizer.json but config.json says {config}: "
            "they belong to different models, give one model's whole directory as --qwen"
        )
