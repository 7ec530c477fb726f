"""A GGUF file as the base model: its header -> spec, vocabulary, rotary scaling; what would be computed otherwise is
refused.

Source: llama.cpp src/llama-arch.cpp and src/llama-vocab.cpp for the keys and what holds where one is absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

import numpy as np

from ...models.errors import CheckpointError
from ...models.llm import LlmSpec
from ..formats.byte_bpe import PRE_TOKENIZERS, ByteVocabulary
from ..formats.gguf_reader import GgufFile
from ..formats.sentencepiece import BYTE, N_BYTES, Vocabulary
from ..formats.tensor_names import EMBEDDING, HEAD, ROPE_DIVISORS, gguf_name
from .config import RopeScaling

T = TypeVar("T")
ARCHITECTURE = "llama"
_SIZES = {
    "hidden": "embedding_length",
    "n_layers": "block_count",
    "n_heads": "attention.head_count",
    "d_ffn": "feed_forward_length",
    "max_positions": "context_length",
}
_HEADS_WIDE = ("attention.key_length", "attention.value_length", "rope.dimension_count")
_KNOWN = {
    *_SIZES.values(),
    *_HEADS_WIDE,
    "attention.head_count_kv",
    "attention.layer_norm_rms_epsilon",
    "rope.freq_base",
    "rope.scaling.type",
    "vocab_size",
    "tensor_data_layout",  # said by old files, read by nobody
}
_OTHER_NAMES = {"llama3": "llama-bpe", "llama-v3": "llama-bpe"}
_LLAMA_3_SCALINGS = (RopeScaling(8.0, 1.0, 4.0, 8192), RopeScaling(32.0, 1.0, 4.0, 8192))  # of 3.1 and of 3.2
_SPELLING = ("add_space_prefix", "remove_extra_whitespaces")


def gguf_spec(file: GgufFile) -> LlmSpec:
    """Sizes of a LLaMA. Raises CheckpointError for another architecture, and for a key that is not known here."""
    header = file.header
    if (kind := header.get("general.type", "model")) != "model":
        raise CheckpointError(f"{file.path} is a GGUF file of a {kind}, not of a language model")
    if (found := header.get("general.architecture")) != ARCHITECTURE:
        raise CheckpointError(f"{file.path} is a {found}, SALMONN's language model is a LLaMA: give one's GGUF file")
    prefix = f"{ARCHITECTURE}."
    settings = {key.removeprefix(prefix): value for key, value in header.items() if key.startswith(prefix)}
    for key, value in settings.items():
        if key not in _KNOWN:
            raise CheckpointError(f"{file.path} says {prefix}{key} {value!r}, which no LLaMA that is read here has")
    if settings.get("rope.scaling.type", "none") != "none":
        raise CheckpointError(
            f"{file.path} stretches positions ({settings['rope.scaling.type']}): take the model as released, "
            "not a -16k version or the like"
        )
    sizes: dict[str, Any] = {name: _size(settings, key, file) for name, key in _SIZES.items()}
    spec = LlmSpec(
        **sizes,
        n_kv_heads=_size({"attention.head_count_kv": sizes["n_heads"], **settings}, "attention.head_count_kv", file),
        vocab=len(_listed({"tokens": header.get("tokenizer.ggml.tokens", [])}, "tokens", str, file)),
        rms_norm_eps=_tidy(settings.get("attention.layer_norm_rms_epsilon", 0.0), file),
        rope_theta=_tidy(settings.get("rope.freq_base", 10_000.0), file),
        tied=gguf_name(HEAD) not in file.tensors,
    )
    wide = next((key for key in _HEADS_WIDE if settings.get(key, spec.d_head) != spec.d_head), None)
    if wide or spec.hidden % spec.n_heads or spec.n_heads % spec.n_kv_heads or spec.d_head % 2:
        raise CheckpointError(
            f"{file.path} has {spec.n_heads} heads and {spec.n_kv_heads} key-value heads in a width of {spec.hidden}"
            + (f", but {wide} {settings[wide]}" if wide else "")
            + ": that is no LLaMA"
        )
    return spec


def gguf_rope(file: GgufFile, spec: LlmSpec) -> RopeScaling | None:
    """Llama 3's, recognized by what the file divides its frequencies by. Raises CheckpointError for another."""
    if ROPE_DIVISORS not in file.tensors:
        return None
    divisors = file.dequantized(ROPE_DIVISORS).numpy()
    for known in _LLAMA_3_SCALINGS:
        wanted = known.divisors(spec)
        if wanted.shape == divisors.shape and np.allclose(divisors, wanted, rtol=1e-4):
            return known
    raise CheckpointError(f"{file.path} divides its rotary frequencies ({ROPE_DIVISORS}) as no Llama 3 does")


def gguf_vocabulary(file: GgufFile) -> Vocabulary | ByteVocabulary:
    """SentencePiece's or a byte-level one. Raises CheckpointError for another kind, or a damaged one."""
    given = {
        key.removeprefix("tokenizer.ggml."): value
        for key, value in file.header.items()
        if key.startswith("tokenizer.ggml.")
    }
    pieces = _listed(given, "tokens", str, file)
    rows = file.tensors[gguf_name(EMBEDDING)].shape[0] if gguf_name(EMBEDDING) in file.tensors else len(pieces)
    types = _listed(given, "token_type", int, file) or (1,) * len(pieces)
    if not pieces or len(types) != len(pieces) or rows != len(pieces):
        raise CheckpointError(
            f"{file.path} has {len(pieces)} pieces, {len(types)} types of pieces and {rows} rows of the embedding: "
            "it is damaged, download it again"
        )
    if (kind := given.get("model")) == "llama":
        return _sentencepiece(file, given, pieces, types)
    if kind == "gpt2":
        return _byte_level(file, given, pieces, types)
    raise CheckpointError(f"{file.path} has a tokenizer {kind!r}: a LLaMA has llama (SentencePiece) or gpt2 (bytes)")


def _sentencepiece(
    file: GgufFile, given: Mapping[str, Any], pieces: tuple[str, ...], types: tuple[int, ...]
) -> Vocabulary:
    scores = _listed(given, "scores", float, file)
    if len(scores) != len(pieces) or types.count(BYTE) != N_BYTES:
        raise CheckpointError(
            f"{file.path} has {len(scores)} scores for {len(pieces)} pieces and {types.count(BYTE)} byte pieces: "
            f"LLaMA's tokenizer has a score each and {N_BYTES} byte pieces"
        )
    if (given.get(_SPELLING[0], True), given.get(_SPELLING[1], False)) != (True, False):
        raise CheckpointError(f"{file.path} spaces text in another way than LLaMA's tokenizer ({', '.join(_SPELLING)})")
    bos, eos, unk = (_id(given, key, at, pieces, file) for key, at in (("bos", 1), ("eos", 2), ("unknown", 0)))
    return Vocabulary(pieces, scores, types, bos, eos, unk)


def _byte_level(
    file: GgufFile, given: Mapping[str, Any], pieces: tuple[str, ...], types: tuple[int, ...]
) -> ByteVocabulary:
    cut = str(given.get("pre", "absent"))
    cut = _OTHER_NAMES.get(cut, cut)
    if cut not in PRE_TOKENIZERS:
        raise CheckpointError(
            f"{file.path} cuts text as {cut!r} before merging: only {', '.join(PRE_TOKENIZERS)} are known here"
        )
    eos = _id(given, "eos", None, pieces, file)
    return ByteVocabulary(
        pieces,
        types,
        _listed(given, "merges", str, file),
        bos=_id(given, "bos", eos, pieces, file),
        eos=eos,
        pad=_id(given, "padding", eos, pieces, file),
        pre_tokenizer=cut,
        begins=bool(given.get("add_bos_token", cut == "llama-bpe")),
    )


def _listed(given: Mapping[str, Any], name: str, kind: type[T], file: GgufFile) -> tuple[T, ...]:
    """A list of the header; () where it has none. Raises CheckpointError for anything else."""
    found: Any = given.get(name, [])
    if not isinstance(found, list) or not all(isinstance(each, kind) for each in cast(list[Any], found)):
        raise CheckpointError(
            f"{file.path} has a tokenizer.ggml.{name} that is no list of {kind.__name__}: it is damaged"
        )
    return tuple(cast(list[T], found))


def _id(given: Mapping[str, Any], name: str, absent: int | None, pieces: tuple[str, ...], file: GgufFile) -> int:
    found = given.get(f"{name}_token_id", absent)
    if not isinstance(found, int) or not 0 <= found < len(pieces):
        raise CheckpointError(f"{file.path} has {name}_token_id {found!r} of {len(pieces)} pieces: it is damaged")
    return found


def _size(settings: Mapping[str, Any], key: str, file: GgufFile) -> int:
    value = settings.get(key)
    if not isinstance(value, int) or value <= 0:
        raise CheckpointError(f"{file.path} has {ARCHITECTURE}.{key} {value!r}: it should be a whole number above 0")
    return value


def _tidy(value: object, file: GgufFile) -> float:
    """A float32 as it was written before it was one: 1e-05, not 9.999999747378752e-06."""
    if not isinstance(value, float) or not value > 0:
        raise CheckpointError(f"{file.path} has {value!r} where a number above 0 should stand: it is damaged")
    return float(str(np.float32(value)))
