"""Work of each stage: sizes in, floating-point operations and bytes out.

The encoders and the reading of a question (prefill) are bound by arithmetic: a weight that was fetched serves hundreds
of positions (1500 in Whisper, 88 audio tokens in the language model), so the multipliers set the pace, and integer
weights help because one instruction multiplies four times as many bytes as floats.

Decoding is bound by memory: every new token needs every weight of the language model once, 2 operations for each, and
a core computes faster than it reads. A token's time is the file's bytes over the bytes that can be read per second;
that is why a smaller quantization is faster even though it computes more to unpack, and why more threads than saturate
the memory do not help.

Checking a draft is therefore nearly free: 20 tokens that are already written down go through the model in one batch,
which reads the weights once, where 20 tokens in turn read them 20 times. With few cores the batch is no longer bound
by memory, and its 20 rows of arithmetic are what remains to pay.

The clip's length changes BEATs, whose tokens follow it (50 a second; its attention grows with the square), and the two
front ends. It does not change Whisper, which always hears its padded window, nor the Q-Former and the language model,
which get as many audio tokens as that window has. `--context short` shortens Whisper, and with it all that follows.
A SALM pads nothing: all of its work follows the clip, 12.5 tokens a second in the FastConformer and the language model.

Counting: a multiply-add is two operations. Counted are products with weights (linear), products of activations with
each other (attention) and convolutions, however they are exported; norms, softmax and other work per element are not:
they are under 1 %. Bytes are those that must come from memory once per pass: weights, and what the KV cache holds;
activations stay in the cache.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..models.audio import MIN_MODEL_SECONDS, SAMPLE_RATE
from ..models.encoders.beats import N_FFT as FBANK_N_FFT
from ..models.encoders.beats import N_MELS as FBANK_N_MELS
from ..models.encoders.beats import BeatsSpec, n_frames
from ..models.encoders.fastconformer import LEAST_SAMPLES, N_BINS, AdapterSpec, FastConformerSpec, n_tokens
from ..models.encoders.fastconformer import N_FFT as FEATURES_N_FFT
from ..models.encoders.fastconformer import n_frames as n_feature_frames
from ..models.encoders.qformer import QFormerSpec
from ..models.encoders.whisper import HOP_LENGTH, N_FFT, WhisperSpec
from ..models.llm import LLM_TYPES, LlmSpec, llm_type
from ..models.precision import PRECISIONS

MICRO_BATCH = 512
"""Positions that llama.cpp computes at a time: its default n_ubatch."""
HALVINGS = 3  # of frames and bands, before the FastConformer's layers


@dataclass(frozen=True)
class Work:
    """Operations and bytes of one stage, or of several together."""

    linear: float = 0.0
    """FLOP of products with weights."""
    attention: float = 0.0
    """FLOP of products of activations with each other."""
    convolution: float = 0.0
    transform: float = 0.0
    """FLOP of a front end: Fourier transform and filters."""
    weight_bytes: float = 0.0
    kv_bytes: float = 0.0
    """Of the key-value cache, read and written."""

    @property
    def flop(self) -> float:
        """All operations."""
        return self.linear + self.attention + self.convolution + self.transform

    @property
    def bytes(self) -> float:
        """All that must come from memory."""
        return self.weight_bytes + self.kv_bytes

    def __add__(self, other: Work) -> Work:
        return Work(
            self.linear + other.linear,
            self.attention + other.attention,
            self.convolution + other.convolution,
            self.transform + other.transform,
            self.weight_bytes + other.weight_bytes,
            self.kv_bytes + other.kv_bytes,
        )


def log_mel(spec: WhisperSpec, seconds: float) -> Work:
    """Whisper's front end transforms only the frames that hear something."""
    active = min(spec.n_frames, int(seconds * SAMPLE_RATE + N_FFT // 2) // HOP_LENGTH + 1)
    return Work(transform=active * _frame(N_FFT, N_FFT // 2 + 1, spec.n_mels))


def fbank(seconds: float) -> Work:
    """BEATs' front end."""
    frames = n_frames(int(max(seconds, MIN_MODEL_SECONDS) * SAMPLE_RATE))
    return Work(transform=frames * _frame(FBANK_N_FFT, FBANK_N_FFT // 2, FBANK_N_MELS))


def whisper_params(spec: WhisperSpec) -> int:
    """Weights in the encoder's matrices and convolutions."""
    d = spec.d_model
    return spec.n_layers * (4 * d * d + 2 * d * spec.d_ffn) + 3 * d * spec.n_mels + 3 * d * d


def whisper(spec: WhisperSpec, precision: str = "fp32", n_positions: int | None = None) -> Work:
    """The Whisper encoder on n_positions frames of 20 ms; on its whole window when None."""
    n = n_positions or spec.n_positions
    d = spec.d_model
    return Work(
        linear=2.0 * n * spec.n_layers * (4 * d * d + 2 * d * spec.d_ffn),
        attention=4.0 * n * n * d * spec.n_layers,
        convolution=2.0 * 3 * (2 * n * d * spec.n_mels + n * d * d),
        weight_bytes=whisper_params(spec) * PRECISIONS[precision].weight_bytes,
    )


def beats_tokens(spec: BeatsSpec, seconds: float) -> int:
    """Tokens of a clip; under a second it is padded to one."""
    return spec.n_tokens(n_frames(int(max(seconds, MIN_MODEL_SECONDS) * SAMPLE_RATE)))


def beats_params(spec: BeatsSpec) -> int:
    """Weights in the encoder's matrices and convolutions."""
    d = spec.d_model
    projected = spec.d_patch != spec.d_model
    layer = 4 * d * d + 2 * d * spec.d_ffn + 2 * (d // spec.n_heads)
    patch = spec.d_patch * spec.patch_size**2
    position = spec.conv_pos * d * d // spec.conv_pos_groups
    return spec.n_layers * layer + patch + position + projected * spec.d_patch * d


def beats(spec: BeatsSpec, precision: str = "fp32", seconds: float = 30.0) -> Work:
    """The BEATs encoder; the gate of its position bias is one product of d_head x 2 per head."""
    n = beats_tokens(spec, seconds)
    d = spec.d_model
    projection = spec.d_patch * d if spec.d_patch != d else 0
    layer = 4 * d * d + 2 * d * spec.d_ffn + 2 * d
    padded = n + 1 - spec.conv_pos % 2  # an even kernel computes one position more
    return Work(
        linear=2.0 * n * (spec.n_layers * layer + projection),
        attention=4.0 * n * n * d * spec.n_layers,
        convolution=2.0 * n * spec.d_patch * spec.patch_size**2
        + 2.0 * padded * spec.conv_pos * d * d // spec.conv_pos_groups,
        weight_bytes=beats_params(spec) * PRECISIONS[precision].weight_bytes,
    )


def qformer_params(spec: QFormerSpec) -> int:
    """Weights in the folded graph's matrices; the first layer has no queries left."""
    h, d = spec.hidden, spec.d_encoder
    later = 2 * h * h + h * d
    return spec.n_layers * (h * d + h * h + 2 * h * spec.d_ffn) + (spec.n_layers - 1) * later + h * spec.d_llm


def qformer(spec: QFormerSpec, n_positions: int, precision: str = "fp32") -> Work:
    """The folded Q-Former: one query per window meets that window's frames, in every layer."""
    n_windows = spec.n_windows(n_positions)
    pooled = n_windows * spec.n_heads * spec.window * spec.d_encoder
    return Work(
        linear=2.0 * n_windows * qformer_params(spec),
        attention=4.0 * spec.n_layers * pooled,
        weight_bytes=qformer_params(spec) * PRECISIONS[precision].weight_bytes,
    )


def features(spec: FastConformerSpec, seconds: float) -> Work:
    """A SALM's front end."""
    return Work(transform=feature_frames(seconds) * _frame(FEATURES_N_FFT, N_BINS, spec.n_mels))


def feature_frames(seconds: float) -> int:
    """Of a SALM's clip."""
    return n_feature_frames(max(round(seconds * SAMPLE_RATE), LEAST_SAMPLES))


def fastconformer_tokens(seconds: float) -> int:
    """Audio tokens of a SALM's clip."""
    return n_tokens(feature_frames(seconds))


def fastconformer_params(spec: FastConformerSpec) -> int:
    """Weights in matrices and convolutions, without the tables of relative positions."""
    c, d = spec.subsampling_channels, spec.d_model
    stem = 9 * c + (HALVINGS - 1) * (9 * c + c * c) + c * _halved(spec.n_mels)[-1] * d
    adapter = 0 if spec.adapter is None else d * spec.adapter.d_model + _conformer_params(spec.adapter)
    return stem + _conformer_params(spec) + adapter + _last_width(spec) * spec.d_llm


def fastconformer(spec: FastConformerSpec, precision: str, seconds: float) -> Work:
    """Encoder, adapter and projection. Every query also meets the position of each key: 2 n distances' rows of a table,
    which are read with the weights."""
    c = spec.subsampling_channels
    d = spec.d_model
    n = fastconformer_tokens(seconds)
    places = [f * b for f, b in zip(_halved(feature_frames(seconds)), _halved(spec.n_mels), strict=True)]
    blocks = [spec] if spec.adapter is None else [spec, spec.adapter]
    linear = sum(2.0 * n * (_conformer_params(b) - b.n_layers * b.conv_kernel * b.d_model) for b in blocks)
    linear += 2.0 * c * c * sum(places[1:]) + 2.0 * n * c * _halved(spec.n_mels)[-1] * d
    linear += 2.0 * n * _last_width(spec) * spec.d_llm + (2.0 * n * d * spec.adapter.d_model if spec.adapter else 0.0)
    tables = sum(2 * n * b.n_layers * b.d_model for b in blocks)
    return Work(
        linear=linear,
        attention=sum(8.0 * n * n * b.d_model * b.n_layers for b in blocks),
        convolution=2.0 * 9 * c * sum(places) + sum(2.0 * n * b.n_layers * b.conv_kernel * b.d_model for b in blocks),
        weight_bytes=(fastconformer_params(spec) + tables) * PRECISIONS[precision].weight_bytes,
    )


def _conformer_params(spec: FastConformerSpec | AdapterSpec) -> int:
    """Of the layers: two feed-forwards, attention, two pointwise convolutions and one in depth."""
    d = spec.d_model
    return spec.n_layers * (4 * d * spec.d_ffn + 4 * d * d + 3 * d * d + spec.conv_kernel * d)


def _last_width(spec: FastConformerSpec) -> int:
    return spec.d_model if spec.adapter is None else spec.adapter.d_model


def _halved(n: int) -> list[int]:
    """After each of the HALVINGS, rounded up."""
    return [-(-n // 2**power) for power in range(1, HALVINGS + 1)]


def forward(spec: LlmSpec, quantization: str, n_tokens: int, n_past: int, n_outputs: int) -> Work:
    """One pass of the language model over n_tokens behind n_past others, with logits for the last n_outputs.

    The last layer's feed-forward and the head compute only rows whose logits are wanted.
    """
    bits = llm_type(quantization).bits_per_weight
    head_bits = max(bits, LLM_TYPES["q6_k"].bits_per_weight) if spec.tied else bits  # as finely as it is kept
    attention, ffn, head = _llm_matrices(spec)
    n_seen = n_tokens * n_past + n_tokens * (n_tokens + 1) / 2
    passes = math.ceil(n_tokens / MICRO_BATCH)
    read = bits * (spec.n_layers * attention + (spec.n_layers - (n_outputs == 0)) * ffn)
    read += (n_outputs > 0) * head * head_bits
    rows = n_tokens * (spec.n_layers * attention + (spec.n_layers - 1) * ffn) + n_outputs * (ffn + head)
    return Work(
        linear=2.0 * rows,
        attention=4.0 * spec.d_q * spec.n_layers * n_seen,
        weight_bytes=passes * read / 8,
        kv_bytes=float(spec.kv_bytes(passes * n_past + 2 * n_tokens)),
    )


def prefill(spec: LlmSpec, quantization: str, n_prefix: int, n_audio: int, n_suffix: int, n_draft: int = 0) -> Work:
    """Reading a question behind its kept prefix: a pass for the audio tokens, one for the prompt's end and a draft."""
    audio = forward(spec, quantization, n_audio, n_prefix, 0)
    return audio + forward(spec, quantization, n_suffix + n_draft, n_prefix + n_audio, 1 + n_draft)


def decode(spec: LlmSpec, quantization: str, n_past: int) -> Work:
    """One more token behind n_past others."""
    return forward(spec, quantization, 1, n_past, 1)


def update(spec: LlmSpec, quantization: str, question: tuple[int, int, int], n_new: int, drafted: bool) -> Work:
    """The language model's part of one live update whose hypothesis has n_new tokens: drafted, or one by one.

    question: positions of the prefix, audio tokens, the prompt's end.
    """
    if drafted:
        return prefill(spec, quantization, *question, n_new - 1)
    work = prefill(spec, quantization, *question)
    for n_past in range(n_new - 1):
        work += decode(spec, quantization, sum(question) + n_past)
    return work


def _llm_matrices(spec: LlmSpec) -> tuple[int, int, int]:
    """Weights of one layer's attention, of its feed-forward, of the head."""
    h = spec.hidden
    return 2 * h * (spec.d_q + spec.d_kv), 3 * h * spec.d_ffn, h * spec.vocab


def _frame(n_fft: int, n_bins: int, n_mels: int) -> float:
    """One frame: a real Fourier transform, 2.5 n log2 n, and dense filters."""
    return 2.5 * n_fft * math.log2(n_fft) + 2.0 * n_bins * n_mels
