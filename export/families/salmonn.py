"""SALMONN: Whisper + BEATs + Vicuna + SALMONN's own checkpoint, opened and found to fit together -> one bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ...models.audio import Waveform
from ...models.encoders import beats, qformer, whisper
from ...models.encoders.beats import fbank
from ...models.encoders.whisper import log_mel
from ...models.errors import CheckpointError, InputError
from ...models.families.salmonn import (
    CHAT_TEMPLATES,
    FAMILY,
    MAX_NEW_TOKENS,
    VICUNA,
    ChatTemplate,
    Hearing,
    SalmonnSpec,
    prompt_info,
)
from .. import parity
from ..encoders.beats import AudioEncoder, export_beats, load_beats
from ..encoders.lexicon import LanguageModelTokens, Lexicon, has_lexicon, load_lexicon
from ..encoders.qformer import LoadedQFormer, QFormerOptions, export_qformer, load_qformer
from ..encoders.whisper import SpeechEncoder, export_whisper, load_whisper, quantization_note, shortened
from ..family import Family
from ..formats import byte_bpe, sentencepiece
from ..formats.byte_bpe import ByteVocabulary
from ..formats.checkpoint import load_section
from ..formats.sentencepiece import Vocabulary
from ..formats.tensor_names import EMBEDDING
from ..graphs.onnx_graph import Arrays
from ..llm.export import Llm, read_llm, rounding_note
from ..llm.lora import Lora, read_lora
from ..options import ExportOptions
from ..provenance import salmonn_sources

LICENCES = (
    "SALMONN code and checkpoint: Apache-2.0",
    "BEATs: MIT",
    "Whisper: MIT (OpenAI), Apache-2.0 (Hugging Face card)",
    "Vicuna: 13B v1.1 under LLaMA's non-commercial terms, 7B v1.5 under the Llama 2 community licence",
)


@dataclass(frozen=True)
class SalmonnExport(ExportOptions):
    """What `auricle-export salmonn` was asked for."""

    whisper: Path
    beats: Path
    vicuna: Path
    salmonn: Path
    lora_alpha: float = 32.0
    second_per_window: float = 0.333333
    second_stride: float = 0.333333
    qformer_heads: int | None = None
    qformer_layers: int = 2
    hears: Hearing = "window"
    longest_seconds: float | None = None
    """Of a clip in training, where that was shorter than Whisper's window."""
    prompt_template: str | None = None
    """In SALMONN's notation, the question at {}; None: Vicuna's, or the one that the tokenizer's specials name."""
    end_symbol: str | None = None


@dataclass(frozen=True)
class Parts:
    """The checkpoints, opened and found to fit together."""

    spec: SalmonnSpec
    whisper: SpeechEncoder
    beats: AudioEncoder
    qformer: LoadedQFormer
    llm: Llm
    lora: Lora
    notes: tuple[str, ...]


def open_parts(options: SalmonnExport) -> Parts:
    """Reads every checkpoint and checks each against the others. Raises CheckpointError."""
    state = load_section(options.salmonn, "model", "a SALMONN checkpoint (salmonn_v1.pth)")
    _refuse_foreign(state, options.salmonn)
    lora = read_lora(state, options.lora_alpha, options.salmonn.name)
    llm = read_llm(options.vicuna)
    whisper_spec, whisper = load_whisper(options.whisper)
    if options.longest_seconds is not None:
        whisper_spec, whisper = shortened(whisper_spec, whisper, options.longest_seconds)
    beats_spec, beats = load_beats(options.beats)
    windows = QFormerOptions(
        options.qformer_heads,
        options.qformer_layers,
        second_per_window=options.second_per_window,
        second_stride=options.second_stride,
    )
    lexicon = _lexicon(state, llm, options) if has_lexicon(state) else None
    qformer = load_qformer(state, whisper_spec, beats_spec, windows, options.salmonn, lexicon)
    spec = SalmonnSpec(whisper_spec, beats_spec, qformer.spec, llm.spec, lora.spec, options.hears)
    if qformer.spec.d_llm != llm.spec.hidden:
        raise CheckpointError(
            f"{options.salmonn} speaks to a language model {qformer.spec.d_llm} wide, {options.vicuna} is "
            f"{llm.spec.hidden} wide: SALMONN-13B goes with vicuna-13b-v1.1, SALMONN-7B with vicuna-7b-v1.5"
        )
    quantized = quantization_note(options.whisper)
    unknown = (f"unknown key in {options.salmonn.name}: {key}" for key in qformer.unknown_keys)
    return Parts(
        spec,
        SpeechEncoder(whisper, qformer.ln_speech).eval(),
        AudioEncoder(beats, qformer.ln_audio).eval(),
        qformer,
        llm,
        lora,
        (*llm.notes, *rounding_note(llm, options.llm), *((quantized,) if quantized else ()), *unknown),
    )


def _lexicon(state: Mapping[str, torch.Tensor], llm: Llm, options: SalmonnExport) -> Lexicon:
    tokens = LanguageModelTokens(_tokenizer(llm, options.vicuna), llm.weights.get(EMBEDDING).float())
    return load_lexicon(state, options.whisper, tokens, state["speech_query_tokens"].shape[2], options.salmonn)


def _refuse_foreign(state: Mapping[str, torch.Tensor], path: Path) -> None:
    if "patch_embedding.weight" in state:
        raise CheckpointError(f"{path} is a BEATs checkpoint: give it as --beats, and salmonn_v1.pth as --salmonn")


def open_family(options: SalmonnExport) -> Family:
    """Reads every checkpoint and checks each against the others. Raises CheckpointError."""
    return _family(open_parts(options), options)


def _family(parts: Parts, options: SalmonnExport) -> Family:
    spec = parts.spec
    vocabulary = parts.llm.vocabulary
    encode_text = _tokenizer(parts.llm, options.vicuna)
    bos_id = None if isinstance(vocabulary, ByteVocabulary) and not vocabulary.begins else vocabulary.bos
    template = _template(vocabulary, options)
    eos_id = encode_text(template.end)[0] if template.end else vocabulary.eos
    return Family(
        family=FAMILY,
        spec=spec,
        prompt=prompt_info(encode_text, bos_id, eos_id, template),
        tokenize=encode_text,
        max_new_tokens=MAX_NEW_TOKENS,
        llm=parts.llm,
        lora=parts.lora,
        graphs={
            "whisper": lambda path: export_whisper(parts.whisper.encoder, parts.whisper.ln_speech, spec.whisper, path),
            "beats": lambda path: export_beats(parts.beats.beats, parts.beats.ln_audio, path),
            "qformer": lambda path: export_qformer(parts.qformer.folded(), path),
        },
        feeds=lambda: _feeds(parts),
        data_files={},
        stages=lambda clip: _stages(parts, clip),
        sources=salmonn_sources(options.whisper, options.beats, options.vicuna, options.salmonn),
        notes=parts.notes,
    )


def _tokenizer(llm: Llm, directory: Path) -> Callable[[str], list[int]]:
    """The directory's own tokenizer; of a GGUF file, one made of its vocabulary."""
    vocabulary = llm.vocabulary
    if isinstance(vocabulary, ByteVocabulary):
        return byte_bpe.vocabulary_encoder(vocabulary) if llm.file else byte_bpe.text_encoder(directory)
    return sentencepiece.vocabulary_encoder(vocabulary) if llm.file else sentencepiece.text_encoder(directory)


def _template(vocabulary: Vocabulary | ByteVocabulary, options: SalmonnExport) -> ChatTemplate:
    """The prompt's words: as asked for, as the special tokens say, or Vicuna's. Raises InputError, CheckpointError."""
    byte_level = isinstance(vocabulary, ByteVocabulary)
    end = options.end_symbol or ""
    if end and not byte_level:
        raise InputError(
            f"--end-symbol {end!r} is for a byte-level tokenizer, {options.vicuna.name} ends with its own EOS"
        )
    if byte_level and end and end not in vocabulary.pieces:
        raise InputError(f"--end-symbol {end!r} is no token of {options.vicuna.name}: give one that ends its answers")
    if options.prompt_template is not None:
        return ChatTemplate.parse(options.prompt_template, end, special_tokens=byte_level)
    if not byte_level:
        return VICUNA
    known = next((template for token, template in CHAT_TEMPLATES.items() if token in vocabulary.pieces), None)
    if known is None:
        raise InputError(
            f"nothing in {options.vicuna.name} says how it is asked: give --prompt-template, a question at {{}}, and "
            "--end-symbol"
        )
    return replace(known, end=end) if end else known


def _feeds(parts: Parts) -> dict[str, list[Arrays]]:
    """What each graph reads of the clips."""
    clips = parity.calibration_clips(parts.spec.n_samples)
    outputs = [_stages(parts, clip) for clip in clips]
    encoded = [(each[whisper.OUTPUT], each[beats.OUTPUT]) for each in outputs]
    return {
        "whisper": [{whisper.INPUT: _log_mel(parts.spec, clip)} for clip in clips],
        "beats": [{beats.INPUT: fbank(clip)} for clip in clips],
        "qformer": [{qformer.SPEECH_INPUT: speech, qformer.AUDIO_INPUT: audio} for speech, audio in encoded],
    }


def _stages(parts: Parts, clip: Waveform) -> dict[str, NDArray[np.float32]]:
    """Each graph's output as torch computes it."""
    with torch.no_grad():
        speech = parts.whisper(torch.from_numpy(_log_mel(parts.spec, clip)))
        audio = parts.beats(torch.from_numpy(fbank(clip)))
        tokens = parts.qformer.reference(speech, audio)[0]
    return {whisper.OUTPUT: speech.numpy(), beats.OUTPUT: audio.numpy(), qformer.OUTPUT: tokens.numpy()}


def _log_mel(spec: SalmonnSpec, clip: Waveform) -> NDArray[np.float32]:
    """As much of the clip as Whisper hears at run time."""
    n_positions = spec.heard_positions(len(clip))
    return log_mel(clip, spec.whisper, None if n_positions is None else 2 * n_positions)
