"""Byte-level BPE: a tokenizer.json of Qwen3, SmolLM2 or Llama 3 -> the vocabulary as llama.cpp wants it, and exact ids.

Source: docs/reference.md §7.1, §7.6; llama.cpp src/llama-vocab.cpp for the names of pre-tokenizers.
"""

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
_LETTERS = ("ByteLevel", False)  # bytes become letters, nothing is cut
_GPT2 = ("ByteLevel", True)  # cut by GPT-2's own expression first
PRE_TOKENIZERS: dict[str, tuple[tuple[object, ...], ...]] = {
    "qwen2": (("Split", PRE_TOKENIZER), _LETTERS),
    "llama-bpe": (("Split", PRE_TOKENIZER.replace(r"\p{N}|", r"\p{N}{1,3}|")), _LETTERS),
    "smollm": (("Digits", True), _GPT2),
    "gpt-2": (_GPT2,),
}
"""llama.cpp's name of a way to cut text before merging -> its steps in tokenizer.json."""
_IGNORES_MERGES = ("llama-bpe",)
_COMPOSES = ("qwen2",)  # NFC, by the normalizer
_PLAIN = ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
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
    pre_tokenizer: str = "qwen2"
    """One of PRE_TOKENIZERS."""
    begins: bool = False
    """Every text begins with bos."""

    def __len__(self) -> int:
        return len(self.pieces)

    def add_to(self, writer: gguf.GGUFWriter) -> None:
        """The vocabulary's part of a GGUF file's header."""
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(self.pre_tokenizer)
        writer.add_token_list(self.pieces)
        writer.add_token_types(self.types)
        writer.add_token_merges(self.merges)
        writer.add_bos_token_id(self.bos)
        writer.add_eos_token_id(self.eos)
        writer.add_pad_token_id(self.pad)
        writer.add_add_bos_token(self.begins)
        writer.add_add_eos_token(False)


def read_byte_vocabulary(directory: Path, n_rows: int) -> ByteVocabulary:
    """Read Qwen3's tokenizer.json and tokenizer_config.json; rows beyond them, up to n_rows, become unused pieces.

    Raises CheckpointError when they are missing, damaged, have more pieces than n_rows, or cut text in a way
    llama.cpp would not repeat.
    """
    pieces = _read_pieces(directory, n_rows, ("qwen2",), "Qwen3", "--qwen")
    ids = pieces.ids
    _require_specials(ids, pieces.types, directory)
    return pieces.vocabulary(ids[DOCUMENT_END], ids[TURN_END], ids[DOCUMENT_END])


def read_llama_byte_vocabulary(directory: Path, n_rows: int) -> ByteVocabulary:
    """The same of a LLaMA with a byte-level tokenizer, as SmolLM2 and Llama 3 have.

    bos and eos are those of tokenizer_config.json; a text begins with bos where the tokenizer puts it there.
    Raises CheckpointError, also for a way of cutting text that is not in PRE_TOKENIZERS.
    """
    pieces = _read_pieces(directory, n_rows, tuple(PRE_TOKENIZERS), "a LLaMA with a byte-level tokenizer", "--vicuna")
    config = read_json(directory / "tokenizer_config.json")
    bos, eos = (_special(config, name, pieces, directory) for name in ("bos_token", "eos_token"))
    pad = _special(config, "pad_token", pieces, directory) if config.get("pad_token") else eos
    return pieces.vocabulary(bos, eos, pad)


def read_whisper_vocabulary(directory: Path, n_rows: int) -> ByteVocabulary:
    """The same of a Whisper, which has GPT-2's pieces and specials of its own. Raises CheckpointError."""
    pieces = _read_pieces(directory, n_rows, ("gpt-2",), "Whisper", "--aligner")
    if DOCUMENT_END not in pieces.ids:
        raise CheckpointError(f"{directory}/tokenizer.json has no {DOCUMENT_END}: give a Whisper's own tokenizer")
    end = pieces.ids[DOCUMENT_END]
    return pieces.vocabulary(end, end, end)


def is_byte_level(directory: Path) -> bool:
    """Whether a LLaMA's directory holds a byte-level tokenizer, and not SentencePiece's."""
    return (directory / "tokenizer.json").is_file() and not (directory / "tokenizer.model").is_file()


def _special(config: dict[str, Any], name: str, pieces: _Pieces, directory: Path) -> int:
    token: Any = config.get(name)
    text = token.get("content") if isinstance(token, dict) else token
    if text not in pieces.ids:
        raise CheckpointError(
            f"{directory}/tokenizer_config.json has {name} {text!r}, which tokenizer.json does not: "
            "they belong to different models, give one model's whole directory"
        )
    return pieces.ids[text]


@dataclass(frozen=True)
class _Pieces:
    """What tokenizer.json holds, found repeatable."""

    names: dict[int, str]
    types: dict[int, int]
    merges: tuple[str, ...]
    pre_tokenizer: str
    begins: bool
    n_rows: int

    @property
    def ids(self) -> dict[str, int]:
        return {piece: n for n, piece in self.names.items()}

    def vocabulary(self, bos: int, eos: int, pad: int) -> ByteVocabulary:
        return ByteVocabulary(
            tuple(self.names.get(n, f"[PAD{n}]") for n in range(self.n_rows)),
            tuple(self.types.get(n, UNUSED) for n in range(self.n_rows)),
            self.merges,
            bos=bos,
            eos=eos,
            pad=pad,
            pre_tokenizer=self.pre_tokenizer,
            begins=self.begins,
        )


def _read_pieces(directory: Path, n_rows: int, known: tuple[str, ...], model_name: str, option: str) -> _Pieces:
    path = directory / "tokenizer.json"
    tokenizer = read_json(path)
    model: dict[str, Any] = tokenizer.get("model") or {}
    pre_tokenizer = _recognized(tokenizer, model, path, known, f"give {model_name}'s directory as {option}")
    pieces = {int(n): str(piece) for piece, n in cast(dict[str, Any], model.get("vocab") or {}).items()}
    types = dict.fromkeys(pieces, NORMAL)
    merges = _merges(model, set(pieces.values()), path)
    for token in cast(list[dict[str, Any]], tokenizer.get("added_tokens") or []):
        if any(token.get(key) for key in _STRIPS):
            raise CheckpointError(f"{path}: {token['content']!r} swallows what is beside it, which llama.cpp would not")
        n = int(token["id"])
        pieces[n] = str(token["content"])
        types[n] = CONTROL if token.get("special") else USER_DEFINED
    if max(pieces, default=0) >= n_rows:
        raise CheckpointError(
            f"{path} has {max(pieces) + 1} pieces, but the embedding has {n_rows} rows: "
            f"they belong to different models, give one model's whole directory as {option}"
        )
    return _Pieces(pieces, types, merges, pre_tokenizer, _begins(tokenizer), n_rows)


def _begins(tokenizer: dict[str, Any]) -> bool:
    """Whether the tokenizer puts a special token before every text."""
    processor: Any = tokenizer.get("post_processor") or {}
    for step in processor.get("processors") or [processor]:
        if step.get("type") == "TemplateProcessing" and (step.get("single") or [{}])[0].get("SpecialToken"):
            return True
    return False


def text_encoder(directory: Path) -> Callable[[str], list[int]]:
    """A text to the tokenizer's own ids, special tokens recognised, which the GGUF vocabulary must give too.

    The directory's tokenizer is one that `read_byte_vocabulary` has read.
    """
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    return lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids)


def text_decoder(directory: Path) -> Callable[[list[int]], str]:
    """Ids to their text; bytes that are no letter are replaced. Raises CheckpointError without tokenizer.json."""
    import tokenizers

    path = directory / "tokenizer.json"
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: give the model's whole directory")
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    return lambda ids: str(tokenizer.decode(ids, skip_special_tokens=False))


def vocabulary_encoder(vocabulary: ByteVocabulary) -> Callable[[str], list[int]]:
    """The same of a vocabulary that lies in no directory. Takes a second to build at full size."""
    import tokenizers
    from tokenizers import models, normalizers, pre_tokenizers

    pieces = {piece: n for n, piece in enumerate(vocabulary.pieces) if vocabulary.types[n] != UNUSED}
    merges = [cast(tuple[str, str], tuple(merge.split(" "))) for merge in vocabulary.merges]
    cut = vocabulary.pre_tokenizer
    bpe: Any = models.BPE(pieces, merges, ignore_merges=cut in _IGNORES_MERGES)
    tokenizer: Any = tokenizers.Tokenizer(bpe)
    if cut in _COMPOSES:
        tokenizer.normalizer = normalizers.NFC()
    make: dict[str, Callable[[Any], Any]] = {
        "Split": lambda regex: pre_tokenizers.Split(tokenizers.Regex(regex), "isolated"),
        "Digits": lambda alone: pre_tokenizers.Digits(individual_digits=alone),
        "ByteLevel": lambda regex: pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex),
    }
    steps = [make[str(kind)](given) for kind, given in PRE_TOKENIZERS[cut]]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.add_special_tokens([piece for piece, n in pieces.items() if vocabulary.types[n] == CONTROL])
    tokenizer.add_tokens([piece for piece, n in pieces.items() if vocabulary.types[n] == USER_DEFINED])
    return lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids)


def _recognized(
    tokenizer: dict[str, Any], model: dict[str, Any], path: Path, known: tuple[str, ...], remedy: str
) -> str:
    """llama.cpp's name of the tokenizer's way to cut text. Raises CheckpointError for one that it would not repeat."""
    odd = [key for key in _PLAIN if model.get(key)]
    if model.get("type") != "BPE" or odd:
        what = odd[0] if odd else f"type {model.get('type')!r}"
        raise CheckpointError(f"{path} is not plain byte-level BPE ({what}): {remedy}")
    pre: Any = tokenizer.get("pre_tokenizer") or {}
    steps = tuple(_step(step) for step in pre.get("pretokenizers") or [pre])
    name = next((name for name in known if PRE_TOKENIZERS[name] == steps), None)
    if name is None:
        raise CheckpointError(
            f"{path} cuts text before merging in another way than {' or '.join(known)}, "
            f"which llama.cpp would not repeat: {remedy}"
        )
    ignores = bool(model.get("ignore_merges"))
    if ignores != (name in _IGNORES_MERGES):
        raise CheckpointError(f"{path} has ignore_merges {ignores}, unlike {name} in llama.cpp: {remedy}")
    normalizer = (tokenizer.get("normalizer") or {}).get("type")
    if normalizer not in ((None, "NFC") if name in _COMPOSES else (None,)):
        raise CheckpointError(f"{path} normalizes text ({normalizer}), which llama.cpp would not repeat: {remedy}")
    return name


def _step(step: dict[str, Any]) -> tuple[object, ...]:
    """One step of cutting, as PRE_TOKENIZERS writes it."""
    kind = step.get("type")
    if kind == "Split" and (step.get("behavior"), step.get("invert")) == ("Isolated", False):
        return kind, (step.get("pattern") or {}).get("Regex")
    if kind == "ByteLevel" and not step.get("add_prefix_space"):
        return kind, bool(step.get("use_regex", True))
    if kind == "Digits":
        return kind, bool(step.get("individual_digits"))
    return kind, "unknown"


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
