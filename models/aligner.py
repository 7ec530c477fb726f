"""The aligner: spec and interface of a small Whisper with its decoder, which times the words of a given text.

Source: openai/whisper timing.py and decoding.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from .encoders.whisper import INPUT, WhisperSpec
from .graph_io import GraphInfo, TensorInfo

ENCODER = "aligner_encoder"
DECODER = "aligner_decoder"
"""Its graphs, and the stems of their files."""
VOCABULARY_FILE = "aligner.gguf"
"""Its tokenizer: the vocabulary alone, no weights."""
CROSS = "cross"
"""Keys and values that the decoder's cross-attention reads, one layer after another: [2 n_layers, n_positions, d]."""
TOKENS = "tokens"
"""Ids as float32: [1, n_tokens]."""
PAST = "past"
"""Keys and values of the tokens before: [2 n_layers, n_past, d]."""
LOGITS = "logits"
"""[1, n_tokens, vocab]."""
SCORES = "scores"
"""Of each alignment head before its softmax: [n_heads, n_tokens, n_positions]."""
PRESENT = "present"
"""PAST with the new tokens behind: [2 n_layers, n_past + n_tokens, d]."""

CHECK_TEXT = "On Tuesday, the 13th of May, it wasn't easy: naïve sailors' 2,500 tea-cups broke."
"""What both sides measure the decoder's graph with."""
STAGES = (ENCODER, DECODER, "aligner_scores")
"""Names in parity reports and self-checks of CROSS, LOGITS and SCORES."""

_LATE_FRAMES = {(4, 51864): 3, (6, 51865): -2}
"""(decoder layers, vocabulary) of tiny.en and base -> `AlignerSpec.late_frames` as measured."""


@dataclass(frozen=True)
class AlignerDecoder:
    """Sizes of the decoder; its width is the encoder's."""

    n_layers: int
    n_heads: int
    d_ffn: int
    vocab: int
    max_positions: int = 448


@dataclass(frozen=True)
class AlignerTokens:
    """Special ids. An answer is [start, language, transcribe, no_timestamps] text end; the middle two multilingual."""

    start: int
    end: int
    no_timestamps: int
    transcribe: int | None
    """None: it knows English alone, and its languages are none."""
    languages: dict[str, int]
    """Code of a language -> its id."""
    suppressed: tuple[int, ...]
    """Never chosen."""
    suppressed_first: tuple[int, ...]
    """Never chosen as the first of a text."""

    def prompt(self, language: int | None) -> tuple[int, ...]:
        """What a text follows; language: one of the ids of `languages`, None where there are none."""
        spoken = () if language is None else (language,)
        task = () if self.transcribe is None else (self.transcribe,)
        return (self.start, *spoken, *task, self.no_timestamps)


@dataclass(frozen=True)
class AlignerSpec:
    """Everything that the runtime must know of one aligner."""

    encoder: WhisperSpec
    decoder: AlignerDecoder
    heads: tuple[tuple[int, ...], ...]
    """(layer, head) of every head whose attention follows the sound."""
    tokens: AlignerTokens
    any_length: bool = True
    """Its encoder's graph hears clips of any length up to the window, as SpeechEncoder does; once the window alone."""

    @property
    def late_frames(self) -> int:
        """Frames of 20 ms by which a word's attention comes after its sound; 0 for a model that was not measured.

        By the durations of synthetic speech, once silence is taken from words' ends (docs/words.md).
        """
        return _LATE_FRAMES.get((self.decoder.n_layers, self.decoder.vocab), 0)

    @property
    def graphs(self) -> dict[str, GraphInfo]:
        """The interface that its graphs must have."""
        d = self.encoder.d_model
        n = 2 * self.decoder.n_layers
        free = self.any_length
        mel = TensorInfo(INPUT, (1, self.encoder.n_mels, "mel_frames" if free else self.encoder.n_frames))
        heard = TensorInfo(CROSS, (n, "n_positions" if free else self.encoder.n_positions, d))
        inputs = (
            TensorInfo(TOKENS, (1, "n_tokens")),
            TensorInfo(PAST, (n, "n_past", d)),
            TensorInfo(CROSS, (n, "n_positions", d)),
        )
        outputs = (
            TensorInfo(LOGITS, (1, "n_tokens", self.decoder.vocab)),
            TensorInfo(SCORES, (len(self.heads), "n_tokens", "n_positions")),
            TensorInfo(PRESENT, (n, "n_present", d)),
        )
        return {
            ENCODER: GraphInfo(f"{ENCODER}.onnx", (mel,), (heard,)),
            DECODER: GraphInfo(f"{DECODER}.onnx", inputs, outputs),
        }

    @property
    def files(self) -> tuple[str, ...]:
        """Files of the bundle that belong to it."""
        return (*(graph.file for graph in self.graphs.values()), VOCABULARY_FILE)

    def impossible(self) -> str | None:
        """A number that does not go with the others."""
        decoder = self.decoder
        if min(decoder.n_layers, decoder.n_heads, decoder.d_ffn, decoder.vocab, decoder.max_positions) < 1:
            return "an aligner without a decoder"
        if not self.heads:
            return "an aligner without alignment heads"
        for head in self.heads:
            if len(head) != 2 or not 0 <= head[0] < decoder.n_layers or not 0 <= head[1] < decoder.n_heads:
                return f"the alignment head {list(head)}"
        named = (self.tokens.start, self.tokens.end, self.tokens.no_timestamps, *self.tokens.languages.values())
        wrong = next((n for n in named if not 0 <= n < decoder.vocab), None)
        return None if wrong is None else f"the aligner's token {wrong}"
