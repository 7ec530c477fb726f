"""SALMONN for the benches: a clip -> two front ends, two encoders, the Q-Former -> audio tokens."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import cast

import numpy as np
from onnxruntime import OrtValue

from ...models.audio import MIN_MODEL_SECONDS, SAMPLE_RATE, Waveform, synthetic_clip
from ...models.encoders import beats, qformer, whisper
from ...models.encoders.beats import fbank
from ...models.encoders.whisper import log_mel
from ...models.families.salmonn import MAX_NEW_TOKENS, SalmonnSpec
from ...models.precision import PRECISIONS
from ...runtime.engine import Engine
from ...runtime.families.salmonn import SalmonnEncoders
from .. import flops
from ..flops import Work
from ..machine import probe_encoders
from ..machine.timing import repeat
from .base import Family, Floats, Part, Tick

_WHISPER, _BEATS, _QFORMER = "whisper", "beats", "qformer"  # names of the graphs


def works(spec: SalmonnSpec, precision: str, seconds: float) -> dict[str, Work]:
    """See Family."""
    return {
        whisper.INPUT: flops.log_mel(spec.whisper, seconds),
        beats.INPUT: flops.fbank(seconds),
        _WHISPER: flops.whisper(spec.whisper, precision, heard(spec, seconds)),
        _BEATS: flops.beats(spec.beats, precision, seconds),
        _QFORMER: flops.qformer(spec.qformer, heard(spec, seconds), precision),
    }


def heard(spec: SalmonnSpec, seconds: float) -> int:
    """Whisper frames of a clip: of its window, or of the clip alone where the model was trained so."""
    return spec.heard_positions(round(seconds * SAMPLE_RATE)) or spec.whisper.n_positions


def n_audio_tokens(spec: SalmonnSpec, seconds: float) -> int:
    """See Family."""
    return spec.qformer.n_windows(heard(spec, seconds))


def parts(engine: Engine, waveform: Waveform) -> Iterator[Part]:
    """See Family. The Q-Former reads the encoders' results where they left them."""
    encoders = cast(SalmonnEncoders, engine.encoders)
    spec = cast(SalmonnSpec, engine.spec)
    missing = round(MIN_MODEL_SECONDS * SAMPLE_RATE) - len(waveform)
    padded = np.pad(waveform, (0, missing)) if missing > 0 else waveform
    n = heard(spec, len(waveform) / SAMPLE_RATE)
    n_mel = 2 * n
    n_bank = beats.n_frames(len(padded))
    yield Part(whisper.INPUT, lambda: log_mel(waveform, spec.whisper, n_mel), (1, spec.whisper.n_mels, n_mel), n_mel)
    yield Part(beats.INPUT, lambda: fbank(padded), (1, n_bank, beats.N_MELS), n_bank)
    outputs: dict[str, OrtValue] = {}
    sessions = {_WHISPER: encoders.whisper.session, _BEATS: encoders.beats.session}
    feeds = {
        _WHISPER: {whisper.INPUT: log_mel(waveform, spec.whisper, n_mel)},
        _BEATS: {beats.INPUT: fbank(padded)},
    }

    def encode(name: str) -> Floats:
        outputs[name] = sessions[name].run(**feeds[name])
        return outputs[name].numpy()

    n_audio = spec.beats.n_tokens(n_bank)
    yield Part(_WHISPER, lambda: encode(_WHISPER), (1, n, spec.whisper.d_model), n, feeds[_WHISPER])
    yield Part(_BEATS, lambda: encode(_BEATS), (1, n_audio, spec.beats.d_model), n_audio, feeds[_BEATS])
    speech = outputs[_WHISPER]
    audio = outputs[_BEATS]
    read = {qformer.SPEECH_INPUT: speech.numpy(), qformer.AUDIO_INPUT: audio.numpy()}
    n_windows = spec.qformer.n_windows(n)
    run = encoders.qformer.audio_tokens
    yield Part(_QFORMER, lambda: run(speech, audio), (n_windows, spec.llm.hidden), n_windows, read)


def probe(
    spec: SalmonnSpec, seconds: float, precision: str, threads: int, provider: str, tick: Tick
) -> dict[str, float]:
    """See Family. The Q-Former's products have few rows: they are taken to be half as fast as Whisper's."""
    clip = synthetic_clip(1, seconds)
    whole = probe_encoders.whisper(spec.whisper, precision, threads, provider, tick).seconds(spec.whisper.n_layers)
    audio = probe_encoders.beats(spec.beats, seconds, precision, threads, provider, tick).seconds(spec.beats.n_layers)
    work = works(spec, precision, seconds)
    speech = whole * work[_WHISPER].flop / flops.whisper(spec.whisper, precision).flop
    return {
        whisper.INPUT: median(repeat(lambda: log_mel(clip, spec.whisper), 3).wall_s),
        beats.INPUT: median(repeat(lambda: fbank(clip), 3).wall_s),
        _WHISPER: speech,
        _BEATS: audio,
        _QFORMER: 2 * work[_QFORMER].flop * speech / work[_WHISPER].flop,
    }


def scratch(spec: SalmonnSpec, precision: str, seconds: float) -> float:
    """See Family: attention's scores of both encoders, kept for the next clip, and rows of activations.

    BEATs' whole numbers go head by head (export/graphs/attention.py).
    """
    w, b = spec.whisper, spec.beats
    n_speech = heard(spec, seconds)
    n_audio = flops.beats_tokens(b, seconds)
    n_heads = 1 if PRECISIONS[precision].integer else b.n_heads
    scores = 4.0 * (2 * w.n_heads * n_speech**2 + 3 * n_heads * n_audio**2)
    return scores + 4.0 * n_speech * (w.d_ffn + 4 * w.d_model)


def params(spec: SalmonnSpec) -> int:
    """See Family."""
    encoders = flops.whisper_params(spec.whisper) + flops.beats_params(spec.beats)
    return encoders + flops.qformer_params(spec.qformer)


DESCRIPTION = Family(
    works=works,
    n_audio_tokens=n_audio_tokens,
    parts=parts,
    probe=probe,
    shares={
        whisper.INPUT: 0.02,
        beats.INPUT: 0.02,
        _WHISPER: 0.55,
        f"{_WHISPER} fp32": 0.9,
        f"{_WHISPER} int4": 0.25,
        _BEATS: 0.35,
        f"{_BEATS} fp32": 0.7,
        f"{_BEATS} int4": 0.23,
        _QFORMER: 0.3,
    },
    params=params,
    scratch=scratch,
    question=(8, 21),
    max_new_tokens=MAX_NEW_TOKENS,
)
