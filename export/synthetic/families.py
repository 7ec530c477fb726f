"""Synthetic families: a family's sizes -> graphs, tables, vocabulary and prompt of random weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models.audio import SAMPLE_RATE
from ...models.bundle import LLM_FILE, shipped_bundle
from ...models.encoders.fastconformer import FEATURIZER, N_BINS, WIN_LENGTH
from ...models.families import salm, salmonn
from ...models.families.registry import FamilySpec
from ...models.families.salm import SalmSpec
from ...models.families.salmonn import SalmonnSpec
from ...models.prompt import PromptInfo
from ..encoders.beats import export_beats, weightless_beats
from ..encoders.fastconformer import export_fastconformer, weightless_fastconformer, write_featurizer
from ..encoders.qformer import export_qformer, weightless_qformer
from ..encoders.whisper import export_whisper, weightless_whisper
from ..formats.byte_bpe import ByteVocabulary, vocabulary_encoder
from ..formats.sentencepiece import Vocabulary
from ..graphs.weightless import SaveGraph
from .byte_vocabulary import synthetic_bytes
from .vocabulary import gguf_vocabulary, padded, piece_ids

WriteGraph = Callable[[Path, SaveGraph], object]
"""Exports a graph to a path, with a way of saving."""


@dataclass(frozen=True)
class SyntheticFamily:
    """What goes into one bundle."""

    weightless: dict[str, Callable[[], Any]]
    """Graph -> its module without weights, to tell its size."""
    graphs: dict[str, WriteGraph]
    vocabulary: Callable[[], Vocabulary | ByteVocabulary]
    """Takes a second or more."""
    prompt: Callable[[Vocabulary | ByteVocabulary], PromptInfo]
    max_new_tokens: int
    data_files: dict[str, Callable[[Path], object]] = field(default_factory=dict[str, Callable[[Path], object]])


def synthetic_family(spec: FamilySpec) -> SyntheticFamily:
    """For a bundle of these sizes."""
    return SYNTHETIC_FAMILIES[type(spec)](spec)


def _salmonn(spec: SalmonnSpec) -> SyntheticFamily:
    def write_whisper(path: Path, save: SaveGraph) -> None:
        module = weightless_whisper(spec.whisper)
        export_whisper(module.encoder, module.ln_speech, spec.whisper, path, save)

    def write_beats(path: Path, save: SaveGraph) -> None:
        module = weightless_beats(spec.beats)
        export_beats(module.beats, module.ln_audio, path, save)

    def vocabulary() -> Vocabulary:
        own = gguf_vocabulary(shipped_bundle() / LLM_FILE)
        return own if len(own) == spec.llm.vocab else padded(own, spec.llm.vocab)

    def prompt(pieces: Vocabulary | ByteVocabulary) -> PromptInfo:
        assert isinstance(pieces, Vocabulary)
        return salmonn.prompt_info(lambda text: piece_ids(pieces, text), pieces.bos, pieces.eos)

    return SyntheticFamily(
        weightless={
            "whisper": lambda: weightless_whisper(spec.whisper),
            "beats": lambda: weightless_beats(spec.beats),
            "qformer": lambda: weightless_qformer(spec.qformer),
        },
        graphs={
            "whisper": write_whisper,
            "beats": write_beats,
            "qformer": lambda path, save: export_qformer(weightless_qformer(spec.qformer), path, save),
        },
        vocabulary=vocabulary,
        prompt=prompt,
        max_new_tokens=salmonn.MAX_NEW_TOKENS,
    )


def _salm(spec: SalmSpec) -> SyntheticFamily:
    def prompt(pieces: Vocabulary | ByteVocabulary) -> PromptInfo:
        assert isinstance(pieces, ByteVocabulary)
        return salm.prompt_info(vocabulary_encoder(pieces), pieces.eos)

    encoder = spec.fastconformer
    return SyntheticFamily(
        weightless={"fastconformer": lambda: weightless_fastconformer(encoder)},
        graphs={
            "fastconformer": lambda path, save: export_fastconformer(
                weightless_fastconformer(encoder), encoder, path, save
            )
        },
        vocabulary=lambda: synthetic_bytes(spec.llm.vocab),
        prompt=prompt,
        max_new_tokens=salm.MAX_NEW_TOKENS,
        data_files={FEATURIZER: lambda path: write_featurizer(path, mel_bank(encoder.n_mels), hann())},
    )


SYNTHETIC_FAMILIES: dict[type[FamilySpec], Callable[[Any], SyntheticFamily]] = {SalmonnSpec: _salmonn, SalmSpec: _salm}


def mel_bank(n_mels: int) -> NDArray[np.float32]:
    """NeMo's filter bank, librosa's: triangles of equal area on Slaney's mel scale, 0 to 8000 Hz: [n_mels, N_BINS].

    The scale is linear up to 1000 Hz, 3 mels for 200 Hz, and 27 mels for a factor of 6.4 above it.
    """
    nyquist = SAMPLE_RATE / 2
    knee = 15.0
    step = math.log(6.4) / 27
    mels: NDArray[np.float64] = np.linspace(0.0, knee + math.log(nyquist / 1000) / step, n_mels + 2)
    hertz = np.where(mels < knee, mels * 200 / 3, 1000 * np.exp(np.maximum(mels - knee, 0.0) * step))
    low = hertz[:-2, None]
    centre = hertz[1:-1, None]
    high = hertz[2:, None]
    bins = np.linspace(0.0, nyquist, N_BINS)
    triangles = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre))
    return (np.maximum(triangles, 0.0) * 2 / (high - low)).astype(np.float32)


def hann() -> NDArray[np.float32]:
    """NeMo's window, symmetric: [WIN_LENGTH]."""
    return np.hanning(WIN_LENGTH).astype(np.float32)
