"""SALM for the benches: a clip -> features, one graph, as many audio tokens as the clip is long."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import cast

import numpy as np

from ...models.audio import Waveform, synthetic_clip
from ...models.encoders import fastconformer
from ...models.encoders.fastconformer import N_BINS, WIN_LENGTH, Featurizer, features
from ...models.families.salm import MAX_NEW_TOKENS, SalmSpec
from ...runtime.engine import Engine
from ...runtime.families.salm import SalmEncoders
from .. import flops
from ..flops import Work
from ..machine import probe_encoders
from ..machine.timing import repeat
from .base import Family, Floats, Part, Tick

_GRAPH = "fastconformer"  # its name


def works(spec: SalmSpec, precision: str, seconds: float) -> dict[str, Work]:
    """See Family."""
    return {
        fastconformer.INPUT: flops.features(spec.fastconformer, seconds),
        _GRAPH: flops.fastconformer(spec.fastconformer, precision, seconds),
    }


def parts(engine: Engine, waveform: Waveform) -> Iterator[Part]:
    """See Family."""
    encoder = cast(SalmEncoders, engine.encoders).fastconformer
    spec = encoder.spec
    n_frames = fastconformer.n_frames(max(len(waveform), fastconformer.LEAST_SAMPLES))
    n_tokens = fastconformer.n_tokens(n_frames)
    yield Part(
        fastconformer.INPUT, lambda: features(waveform, encoder.featurizer), (1, spec.n_mels, n_frames), n_frames
    )
    read = {fastconformer.INPUT: features(waveform, encoder.featurizer)}

    def encode() -> Floats:
        return encoder.session.run(**read).numpy()[0]

    yield Part(_GRAPH, encode, (n_tokens, spec.d_llm), n_tokens, read)


def probe(spec: SalmSpec, seconds: float, precision: str, threads: int, provider: str, tick: Tick) -> dict[str, float]:
    """See Family."""
    clip = synthetic_clip(1, seconds)
    s = spec.fastconformer
    tables = Featurizer(np.ones((s.n_mels, N_BINS), np.float32), np.ones(WIN_LENGTH, np.float32))
    layers = probe_encoders.fastconformer(s, seconds, precision, threads, provider, tick)
    return {
        fastconformer.INPUT: median(repeat(lambda: features(clip, tables), 3).wall_s),
        _GRAPH: layers.seconds(s.n_layers),
    }


def scratch(spec: SalmSpec, _precision: str, seconds: float) -> float:
    """See Family: what the first convolution gives and its copy, attention's scores, rows of activations."""
    s = spec.fastconformer
    n = flops.fastconformer_tokens(seconds)
    wide = 4.0 * 2 * s.subsampling_channels * (flops.feature_frames(seconds) / 2) * (s.n_mels / 2)
    return wide + 4.0 * n * (4 * s.n_heads * n + s.d_ffn + 6 * s.d_model)


def params(spec: SalmSpec) -> int:
    """See Family; with the tables of relative positions of every layer."""
    s = spec.fastconformer
    longest = 2 * spec.n_audio_tokens
    blocks = [s] if s.adapter is None else [s, s.adapter]
    return flops.fastconformer_params(s) + sum(longest * block.n_layers * block.d_model for block in blocks)


DESCRIPTION = Family(
    works=works,
    n_audio_tokens=lambda _spec, seconds: flops.fastconformer_tokens(seconds),
    parts=parts,
    probe=probe,
    shares={fastconformer.INPUT: 0.1, _GRAPH: 0.7, f"{_GRAPH} fp32": 0.8, f"{_GRAPH} int4": 0.25},
    params=params,
    scratch=scratch,
    question=(9, 5),
    max_new_tokens=MAX_NEW_TOKENS,
)
