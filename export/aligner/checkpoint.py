"""The aligner's checkpoint: a Whisper directory, Hugging Face's or faster-whisper's -> spec, model, vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperDecoder, WhisperEncoder

from ...models.aligner import AlignerDecoder, AlignerSpec, AlignerTokens
from ...models.errors import CheckpointError
from ..encoders.whisper import load_whisper, whisper_files
from ..formats.byte_bpe import ByteVocabulary, read_whisper_vocabulary
from ..formats.checkpoint import Weights, read_json, require_shape
from ..formats.ctranslate2 import CTranslate2Whisper, is_ctranslate2

_PREFIXES = ("model.decoder.", "decoder.")
_START, _END, _NO_TIMESTAMPS, _TRANSCRIBE = (
    "<|startoftranscript|>",
    "<|endoftext|>",
    "<|notimestamps|>",
    "<|transcribe|>",
)
_BESIDE_LANGUAGES = ("<|startof", "<|endof", "<|no", "<|trans")


@dataclass(frozen=True)
class Aligner:
    """One opened checkpoint. Its modules compute in float32 and learn nothing."""

    spec: AlignerSpec
    encoder: WhisperEncoder
    decoder: WhisperDecoder
    vocabulary: ByteVocabulary
    files: tuple[Path, ...]


def load_aligner(directory: Path) -> Aligner:
    """Raises CheckpointError for what is no whole Whisper, and for the tokenizer of another one."""
    encoder_spec, encoder = load_whisper(directory)
    weights = CTranslate2Whisper(directory) if is_ctranslate2(directory) else Weights(directory)
    prefix = next((p for p in _PREFIXES if f"{p}embed_tokens.weight" in weights), _PREFIXES[0])
    sizes = _decoder_sizes(directory, weights, prefix, encoder_spec.n_heads)
    decoder = _load_decoder(weights, prefix, sizes, encoder_spec.d_model, directory)
    weights.close()
    vocabulary = read_whisper_vocabulary(directory, sizes.vocab)
    settings = _settings(directory)
    spec = AlignerSpec(
        encoder_spec, sizes, _heads(settings, sizes), _tokens(vocabulary, settings, directory / "tokenizer.json")
    )
    if wrong := spec.impossible():
        raise CheckpointError(f"{directory}: {wrong} is not possible: give the directory of one whole Whisper")
    names = ("tokenizer.json", "config.json", "generation_config.json")
    beside = (directory / name for name in names)
    files = dict.fromkeys((*whisper_files(directory), *(path for path in beside if path.is_file())))
    return Aligner(spec, encoder, decoder, vocabulary, tuple(files))


def _decoder_sizes(directory: Path, weights: Weights | CTranslate2Whisper, prefix: str, n_heads: int) -> AlignerDecoder:
    weights.require([f"{prefix}embed_tokens.weight", f"{prefix}embed_positions.weight"], "Whisper with its decoder")
    n_layers = len({n for n in weights.names() if n.startswith(f"{prefix}layers.") and n.endswith(".fc1.weight")})
    if not is_ctranslate2(directory):
        n_heads = read_json(directory / "config.json").get("decoder_attention_heads", n_heads)
    return AlignerDecoder(
        n_layers=n_layers,
        n_heads=n_heads,
        d_ffn=len(weights.get(f"{prefix}layers.0.fc1.bias")) if n_layers else 0,
        vocab=len(weights.get(f"{prefix}embed_tokens.weight")),
        max_positions=len(weights.get(f"{prefix}embed_positions.weight")),
    )


def _load_decoder(
    weights: Weights | CTranslate2Whisper, prefix: str, sizes: AlignerDecoder, d_model: int, directory: Path
) -> WhisperDecoder:
    config: dict[str, Any] = {
        "vocab_size": sizes.vocab,
        "d_model": d_model,
        "decoder_layers": sizes.n_layers,
        "decoder_attention_heads": sizes.n_heads,
        "decoder_ffn_dim": sizes.d_ffn,
        "max_target_positions": sizes.max_positions,
        "pad_token_id": 0,
    }
    with torch.device("meta"):
        decoder = WhisperDecoder(WhisperConfig(**config))
    expected = {name: tuple(tensor.shape) for name, tensor in decoder.state_dict().items()}
    weights.require([prefix + name for name in expected], "Whisper decoder")
    state = {
        name: require_shape(weights.get(prefix + name), shape, prefix + name, directory).clone()
        for name, shape in expected.items()
    }
    decoder.load_state_dict(state, assign=True)
    return decoder.eval().requires_grad_(False)


def _settings(directory: Path) -> dict[str, Any]:
    """Alignment heads and suppressed ids, under Hugging Face's names."""
    config = read_json(directory / "config.json") if (directory / "config.json").is_file() else {}
    ours = {"suppress_tokens": "suppress_ids", "begin_suppress_tokens": "suppress_ids_begin"}
    settings = config | {name: config[theirs] for name, theirs in ours.items() if theirs in config}
    generation = directory / "generation_config.json"
    return settings | (read_json(generation) if generation.is_file() else {})


def _heads(settings: dict[str, Any], sizes: AlignerDecoder) -> tuple[tuple[int, ...], ...]:
    """As named; where none are, all heads of the upper half of the layers, as openai/whisper has it."""
    if named := settings.get("alignment_heads"):
        return tuple((int(layer), int(head)) for layer, head in cast(list[list[int]], named))
    upper = range(sizes.n_layers // 2, sizes.n_layers)
    return tuple((layer, head) for layer in upper for head in range(sizes.n_heads))


def _tokens(vocabulary: ByteVocabulary, settings: dict[str, Any], path: Path) -> AlignerTokens:
    ids = {piece: n for n, piece in enumerate(vocabulary.pieces)}
    if missing := [piece for piece in (_START, _END, _NO_TIMESTAMPS) if piece not in ids]:
        raise CheckpointError(f"{path} has no {missing[0]}: give a Whisper's own tokenizer")
    end, no_timestamps = ids[_END], ids[_NO_TIMESTAMPS]
    language_pieces = [
        piece
        for piece in vocabulary.pieces[ids[_START] + 1 : no_timestamps]
        if piece.startswith("<|") and not piece.startswith(_BESIDE_LANGUAGES)
    ]
    multilingual = settings.get("is_multilingual", len(vocabulary) > _LARGEST_ENGLISH)
    languages = {piece[2:-2]: ids[piece] for piece in language_pieces} if multilingual else {}
    unsaid = {n for n in range(end + 1, len(vocabulary))}  # tasks, languages and timestamps
    suppressed = {n for n in cast(list[int], settings.get("suppress_tokens") or []) if n >= 0} | unsaid
    first = cast(list[int], settings.get("begin_suppress_tokens") or [])
    return AlignerTokens(
        start=ids[_START],
        end=end,
        no_timestamps=no_timestamps,
        transcribe=ids.get(_TRANSCRIBE) if languages else None,
        languages=languages,
        suppressed=tuple(sorted(suppressed)),
        suppressed_first=tuple(first),
    )


_LARGEST_ENGLISH = 51864
"""Rows of an English-only Whisper's embedding: its tokenizer has languages too, which it was never trained on."""
