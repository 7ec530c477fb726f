"""The aligner: a segment and a text in, when each word was said and whether it was out; or the text that it hears."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...models.aligner import CHECK_TEXT, CROSS, DECODER, ENCODER, PAST, STAGES, TOKENS, VOCABULARY_FILE
from ...models.audio import SAMPLE_RATE, Waveform
from ...models.encoders.whisper import FRAME_RATE, INPUT, log_mel
from ...models.errors import RunError
from ..events import TimedWord
from ..llm.llama import Model
from ..system.ort import OrtOptions, Session, open_session
from .sound import within_sound
from .support import Evidence, as_sentence, evidence, support_of
from .timing import token_frames
from .words import WordTokens, word_tokens

if TYPE_CHECKING:
    from onnxruntime import OrtValue

    from ..bundle import Bundle

Floats = NDArray[np.float32]
_FRAME_SAMPLES = round(SAMPLE_RATE / FRAME_RATE)
_MORE_TOKENS = 16
"""The own text may be twice as long as the given one, and so much: it loops in noise, and each token is a pass."""
_SHORTEST = 1  # frame of 20 ms: no word is shorter
_SILENCE_BEHIND = 50
"""Frames of silence that are heard behind a clip for its words' times. The whole window tells no better when words are
said, but much better whether they were (docs/words.md)."""


@dataclass(frozen=True)
class Recognized:
    """What the aligner itself hears."""

    token_ids: tuple[int, ...]
    text: str
    log_probs: tuple[float, ...]
    """Of each token and the end, nats."""


class Aligner:
    """An opened aligner of a bundle. Several threads may use it at once. Close it when none does."""

    def __init__(self, bundle: Bundle, options: OrtOptions) -> None:
        """On the CPU, whatever the other graphs run on. Raises BundleError."""
        spec = bundle.manifest.aligner
        assert spec is not None, "a bundle without an aligner has none to open"
        self.spec = spec
        cpu = OrtOptions(provider="cpu", threads=options.threads)
        self._sessions: dict[str, Session] = {
            name: open_session(bundle.path(graph.file), graph.inputs, graph.outputs, cpu)
            for name, graph in spec.graphs.items()
        }
        self._vocabulary = Model(bundle.path(VOCABULARY_FILE), 0, vocab_only=True)

    def align(
        self, waveform: Waveform, text: str, words: bool, support: bool
    ) -> tuple[tuple[TimedWord, ...], float | None]:
        """`words` and `support`, those that are asked for: each hears the sound for itself. Raises RunError."""
        if not text.split():
            return (), None
        timed = self._words(waveform, text, self._heard(waveform, alone=True)) if words else ()
        if not support:
            return timed, None
        (found,) = self._evidence(self._heard(waveform), [text])
        return timed, 0.0 if found is None else support_of(found)

    def support(self, waveform: Waveform, text: str) -> float | None:
        """How far this sound supports this text, 0 to 1; None for no text, of which nothing can be said.

        A text of more tokens than the decoder reads, which nobody can have said, has 0. Raises RunError.
        """
        return self.align(waveform, text, words=False, support=True)[1]

    def words(self, waveform: Waveform, text: str) -> tuple[TimedWord, ...]:
        """The text's words with their times, seconds from the waveform's beginning: none shorter than 20 ms.

        Each begins no sooner than the one before it ends, and ends within the waveform. A text of more words than there
        are frames or than the decoder reads, which nobody can have said, has none. Raises RunError.
        """
        return self.align(waveform, text, words=True, support=False)[0]

    def _words(self, waveform: Waveform, text: str, cross: OrtValue | Floats) -> tuple[TimedWord, ...]:
        words = self._tokenized(text)
        n_frames = len(waveform) // _FRAME_SAMPLES
        if len(words) > n_frames:
            return ()
        prompt = self.spec.tokens.prompt(self._language(cross))
        ids = [token for word in words for token in word.ids]
        if len(prompt) + len(ids) + 1 > self.spec.decoder.max_positions:
            return ()
        logits, scores, _ = self._decode([*prompt, *ids, self.spec.tokens.end], self._nothing(), cross)
        frames = token_frames(scores.numpy(), len(prompt), min(n_frames, scores.shape()[2]))
        found_in = _spans(words, frames - self.spec.late_frames)
        lengths = [len(word.text) for word in words]
        spans = _apart(within_sound(found_in, lengths, waveform, _FRAME_SAMPLES), n_frames)
        chances = np.exp(_log_probs(logits.numpy()[0, len(prompt) - 1 : -2], ids))
        found: list[TimedWord] = []
        at = 0
        for word, (start, end) in zip(words, spans, strict=True):
            probability = float(chances[at : at + len(word.ids)].mean())
            found.append(TimedWord(word.text, start / FRAME_RATE, end / FRAME_RATE, round(probability, 4)))
            at += len(word.ids)
        return tuple(found)

    def recognize(self, waveform: Waveform, max_new_tokens: int = 224) -> Recognized:
        """Its own greedy text of at most a window. Raises RunError."""
        cross = self._heard(waveform)
        return self._greedy(cross, self.spec.tokens.prompt(self._language(cross)), max_new_tokens)

    def _greedy(self, cross: OrtValue | Floats, prompt: Sequence[int], max_new_tokens: int) -> Recognized:
        tokens = self.spec.tokens
        new: list[int] = [*prompt]
        most = min(max_new_tokens, self.spec.decoder.max_positions - len(new))
        past = self._nothing()
        ids: list[int] = []
        log_probs: list[float] = []
        while len(ids) < most:
            logits, _, past = self._decode(new, past, cross)
            last = logits.numpy()[0, -1]
            allowed = last.copy()
            allowed[[*tokens.suppressed, *(() if ids else tokens.suppressed_first)]] = -np.inf
            new = [int(allowed.argmax())]
            log_probs.append(float(_log_probs(last[None], new)[0]))
            if new[0] == tokens.end:
                break
            ids += new
        text = b"".join(map(self._vocabulary.piece, ids)).decode("utf-8", "replace").strip()
        return Recognized(tuple(ids), text, tuple(log_probs))

    def stages(self, waveform: Waveform) -> dict[str, Floats]:
        """Every output on one segment and a text that is always the same, by the names of `STAGES`."""
        cross = self._encode(waveform)
        language = next(iter(self.spec.tokens.languages.values()), None)
        words = self._tokenized(CHECK_TEXT)
        ids = [*self.spec.tokens.prompt(language), *(token for word in words for token in word.ids)]
        logits, scores, _ = self._decode(ids, self._nothing(), cross)
        return dict(zip(STAGES, (cross.numpy(), logits.numpy(), scores.numpy()), strict=True))

    def evidence(self, waveform: Waveform, texts: Sequence[str]) -> list[Evidence | None]:
        """What speaks for each text and against it; None for one of more tokens than the decoder reads.

        Raises RunError.
        """
        return self._evidence(self._heard(waveform), texts)

    def _evidence(self, cross: OrtValue | Floats, texts: Sequence[str]) -> list[Evidence | None]:
        prompt = self.spec.tokens.prompt(self._language(cross))
        tokenized = [self._tokenized(as_sentence(text)) for text in texts]
        longest = max(sum(len(word.ids) for word in words) for words in tokenized)
        own = self._greedy(cross, prompt, 2 * longest + _MORE_TOKENS).log_probs
        return [self._judged(cross, prompt, words, own) for words in tokenized]

    def _judged(
        self, cross: OrtValue | Floats, prompt: Sequence[int], words: list[WordTokens], own: Sequence[float]
    ) -> Evidence | None:
        tokens = self.spec.tokens
        ids = [token for word in words for token in word.ids]
        if len(prompt) + len(ids) > self.spec.decoder.max_positions:
            return None
        logits = self._decode([*prompt, *ids], self._nothing(), cross)[0].numpy()[0, len(prompt) - 1 :]
        allowed = logits.copy()
        allowed[:, list(tokens.suppressed)] = -np.inf
        likeliest = _log_probs(logits, allowed.argmax(1).tolist())
        return evidence(_log_probs(logits, [*ids, tokens.end]), likeliest, [len(word.ids) for word in words], own)

    def _tokenized(self, text: str) -> list[WordTokens]:
        return word_tokens(text, self._vocabulary.tokenize, self._vocabulary.piece)

    def close(self) -> None:
        """Frees sessions and vocabulary. Twice does no harm."""
        for session in self._sessions.values():
            session.close()
        self._vocabulary.close()

    def _encode(self, waveform: Waveform, n_positions: int | None = None) -> OrtValue:
        n_frames = None if n_positions is None else 2 * n_positions
        return self._sessions[ENCODER].run(**{INPUT: log_mel(waveform, self.spec.encoder, n_frames)})

    def _heard(self, waveform: Waveform, alone: bool = False) -> OrtValue | Floats:
        """Padded to the window, or almost alone; of a longer one two windows, joined where they overlap most evenly."""
        longest = self.spec.encoder.n_samples
        if len(waveform) <= longest:
            n_alone = min(len(waveform) // _FRAME_SAMPLES + 1 + _SILENCE_BEHIND, self.spec.encoder.n_positions)
            return self._encode(waveform, n_alone if alone and self.spec.any_length else None)
        n = min(len(waveform), 2 * longest) // _FRAME_SAMPLES
        n_positions = self.spec.encoder.n_positions
        half = n // 2
        late = (n - n_positions) * _FRAME_SAMPLES
        first, second = (self._encode(part).numpy() for part in (waveform[:longest], waveform[late : late + longest]))
        return np.concatenate([first[:, :half], second[:, half - (n - n_positions) :]], axis=1)

    def _language(self, cross: OrtValue | Floats) -> int | None:
        """The likeliest, by what follows the start alone."""
        languages = [*self.spec.tokens.languages.values()]
        if not languages:
            return None
        logits = self._decode([self.spec.tokens.start], self._nothing(), cross)[0].numpy()[0, -1]
        return languages[int(logits[languages].argmax())]

    def _nothing(self) -> Floats:
        return np.zeros((2 * self.spec.decoder.n_layers, 0, self.spec.encoder.d_model), np.float32)

    def _decode(
        self, ids: Sequence[int], past: OrtValue | Floats, cross: OrtValue | Floats
    ) -> tuple[OrtValue, OrtValue, OrtValue]:
        inputs = {TOKENS: np.array([ids], np.float32), PAST: past, CROSS: cross}
        logits, scores, present = self._sessions[DECODER].run_all(**inputs)
        if not np.isfinite(logits.numpy()[0, -1, 0]):
            raise RunError(f"{DECODER}.onnx computed no numbers: verify the bundle")
        return logits, scores, present


def _log_probs(logits: Floats, ids: Sequence[int]) -> NDArray[np.float64]:
    """Of one id in each row, nats."""
    peak = logits.max(1, keepdims=True)
    total = np.exp(logits - peak).sum(1, dtype=np.float64)
    chosen = (logits - peak)[np.arange(len(ids)), list(ids)]
    return chosen - np.log(total)


def _spans(words: Sequence[WordTokens], frames: NDArray[np.int64]) -> list[tuple[int, int]]:
    """First frame and the one behind the last of each word, punctuation at its sides left out."""
    spans: list[tuple[int, int]] = []
    at = 0
    for word in words:
        spans.append((max(0, int(frames[at + word.first])), max(0, int(frames[at + word.end]))))
        at += len(word.ids)
    return spans


def _apart(spans: Sequence[tuple[int, int]], n_frames: int) -> list[tuple[int, int]]:
    """Each at least _SHORTEST, in order, inside."""
    starts: list[int] = []
    ends: list[int] = []
    least = 0
    for left, (start, end) in zip(range(len(spans) - 1, -1, -1), spans, strict=True):
        latest = n_frames - (left + 1) * _SHORTEST
        starts.append(min(max(start, least), latest))
        ends.append(min(max(end, starts[-1] + _SHORTEST), latest + _SHORTEST))
        least = ends[-1]
    return list(zip(starts, ends, strict=True))
