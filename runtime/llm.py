"""The language model as a session: a kept prefix, audio tokens, the prompt's tail, then token ids one by one.

    [BOS] prefix | audio_tokens | suffix     positions 0 .. n_past - 1 of sequence 0
    ^ KV is kept   ^ embeddings   ^ ids -> logits of the last -> ids

Knows nothing about sound. Source: docs/reference.md §4.1 (order), §4.2 (ids), §4.4 (generation).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from ..models.bundle import Manifest
from ..models.errors import BundleError, InputError, RunError
from ..models.llm import LlmSpec
from .beam import BeamRule, beam_search
from .cores import usable_cores
from .detokenizer import Detokenizer, detokenize
from .llama import Adapter, Context, Model
from .sampling import Generation, forbid, log_softmax, penalize, sample

Floats = npt.NDArray[np.float32]
MIN_CTX = 512  # prefix, 88 audio tokens, a long prompt and 200 new tokens fit
GREEDY = Generation()


def default_threads() -> int:
    """One less than the cores this process may use.

    llama.cpp's threads spin while they wait for each other: all are slow when one has to share its core.
    """
    return max(1, usable_cores() - 1)


@dataclass(frozen=True)
class LlmOptions:
    """How and where to run. Raises InputError for an impossible value."""

    n_ctx: int | None = None  # KV cells; None grows to what each question needs
    n_threads: int | None = None  # None: default_threads()
    n_gpu_layers: int = -1  # -1: all, when this build of llama.cpp can offload
    kv_type: str = "f16"  # f32 doubles the cache and switches flash attention off: for comparing numbers
    lora_scale: float | None = None  # None: as exported; another needs the bundle's adapter

    def __post_init__(self) -> None:
        for name in ("n_ctx", "n_threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name}={value} is not possible: it must be at least 1")
        if self.kv_type not in ("f16", "f32"):
            raise InputError(f"kv_type={self.kv_type!r} is not possible: it must be f16 or f32")


class Llm:
    """One opened language model. One thread at a time; close it, or use it as a context manager.

    path: llm.gguf; adapter: lora.gguf, when the bundle has one; what they must be stands in the manifest.
    Raises BundleError when a file is missing, unreadable or not what the manifest says, InputError for a LoRA
    scale without an adapter, RunError when memory is too small.
    """

    n_past: int
    """Positions in use: where the next token goes."""

    def __init__(self, path: Path, manifest: Manifest, adapter: Path | None, options: LlmOptions) -> None:
        self.spec, self.options = manifest.spec.llm, options
        self._manifest = manifest
        self._context: Context | None = None
        self._adapter: Adapter | None = None
        self._turn = 0  # counts questions, so that an answer knows when it is an old one
        self._logits: Floats | None = None
        if options.lora_scale is not None and adapter is None:
            raise InputError(_no_adapter(options.lora_scale))
        self._model = Model(path, options.n_gpu_layers)
        try:
            _check_sizes(self._model, self.spec)
            self.eos = self._model.eos
            self._forbidden = sorted(self._model.specials - self.eos)  # BOS and UNK; EOS stops
            self._prefix_ids = self._check_prefix()
            if adapter is not None:
                self._adapter = _open_adapter(self._model, adapter, manifest)
            self._factor = _lora_factor(manifest, options.lora_scale)
            self._open_context(options.n_ctx or min(MIN_CTX, self.spec.max_positions), 1)
        except BaseException:
            self.close()
            raise

    def tokenize(self, text: str) -> list[int]:
        """Ids of one prompt half: SentencePiece's dummy prefix, no BOS.

        Specials are not parsed: "</s>" in a prompt is four letters, though the reference makes an EOS of it.
        """
        try:
            ids = self._model.tokenize(text)
        except UnicodeEncodeError as error:
            raise InputError(f"the prompt is not text at character {error.start}: write it again") from None
        if self._model.specials.intersection(ids):
            raise InputError(f"the prompt {text!r} spells a control token of this model: leave that out")
        return ids

    def detokenizer(self) -> Detokenizer:
        """A fresh state that turns ids into text while they arrive."""
        return Detokenizer(self._model.piece)

    def text(self, ids: Sequence[int]) -> str:
        """The whole text of ids, without specials."""
        return detokenize(ids, self._model.piece)

    def prefill(self, audio_tokens: Floats, prompt: str, generation: Generation = GREEDY) -> Floats:
        """Read a question: logits [vocab] of the answer's first token.

        audio_tokens: float32 [n, hidden]. Afterwards n_past is prefix + n + suffix. The prefix's KV is kept.
        Raises InputError when the question and what `generation` allows for its answer do not fit.
        """
        if audio_tokens.ndim != 2 or audio_tokens.shape[1] != self.spec.hidden:
            shape = audio_tokens.shape
            raise InputError(f"audio tokens have shape {shape}, but this model reads [n, {self.spec.hidden}]")
        suffix = self.tokenize(self._manifest.prompt.suffix.replace("{prompt}", prompt.strip()))
        self._make_room(len(self._prefix_ids) + len(audio_tokens) + len(suffix), generation)
        self._turn += 1
        self._logits = None
        self._keep_prefix()
        self.feed_audio(audio_tokens)
        self._logits = logits = self.feed(suffix)[-1]
        return logits

    def generate(self, generation: Generation = GREEDY) -> Iterator[int]:
        """The answer's ids, without EOS, to the question that prefill read.

        Greedy and sampling yield each id at once; beam search as soon as no other hypothesis can win.
        As many ids as max_new_tokens mean that the answer was cut. A new question ends an unfinished answer.
        """
        if self._logits is None:
            raise RunError("no question was read: call prefill before generate")
        if _cells(self.n_past, generation) > self.context.n_ctx:
            raise InputError(_no_room(self.n_past, generation, self.context.n_ctx))
        logits, self._logits = self._logits, None  # one answer per question: it moves n_past
        return self._search(logits, generation) if generation.beams > 1 else self._decode(logits, generation)

    def feed(self, ids: Sequence[int], every: bool = False) -> Floats:
        """Append ids: logits [1, vocab] of the last, or [len(ids), vocab] of every one (to check a draft)."""
        rows: list[Floats] = []
        for chunk in _chunks(len(ids), self.context.n_batch):
            part = ids[chunk]
            last = range(len(part) - 1, len(part)) if chunk.stop == len(ids) else range(0)
            outputs = range(len(part)) if every else last
            rows.append(self.context.decode_ids(part, *self._places(len(part)), outputs))
            self.n_past += len(part)
        return np.concatenate(rows)

    def feed_audio(self, audio_tokens: Floats) -> None:
        """Append embeddings [n, hidden]."""
        for chunk in _chunks(len(audio_tokens), self.context.n_batch):
            part = audio_tokens[chunk]
            self.context.decode_embeddings(part, *self._places(len(part)))
            self.n_past += len(part)

    def rewind(self, n_past: int) -> None:
        """Forget every position from n_past on, and the beams of the last answer."""
        for sequence in range(1, self.context.n_sequences):
            self.context.drop(sequence)
        self.context.drop(0, n_past)
        self.n_past = n_past

    def set_lora_scale(self, scale: float) -> None:
        """Use the adapter at another scale from the next question on: 4 as it was trained, 0 is the base.

        Raises InputError when the bundle has no adapter.
        """
        if self._adapter is None:
            raise InputError(_no_adapter(scale))
        self._factor = _lora_factor(self._manifest, scale)
        self.context.set_adapter(self._adapter, self._factor)
        self._turn += 1
        self._logits, self._prefix_kept = None, False  # computed at the old scale

    @property
    def context(self) -> Context:
        """The KV cache. Raises RunError after close()."""
        if self._context is None:
            raise RunError("the language model is closed: open the bundle again")
        return self._context

    def close(self) -> None:
        """Free cache, adapter and weights. Closing twice is fine."""
        self._turn += 1
        if self._context is not None:
            self._context.close()
            self._context = None
        self._model.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_prefix(self) -> tuple[int, ...]:
        expected = self._manifest.prompt.prefix_ids
        ids = (self._model.bos, *self.tokenize(self._manifest.prompt.prefix))
        if self._manifest.prompt.eos_id not in self.eos:
            raise BundleError(
                f"{self._model.path} does not stop at token {self._manifest.prompt.eos_id}, as the manifest says: "
                "they are of different exports"
            )
        if ids != expected:
            raise BundleError(
                f"{self._model.path} tokenizes the prompt's start as {list(ids)}, but the manifest says"
                f" {list(expected)}: the tokenizer is another one, export the bundle again"
            )
        return ids

    def _places(self, n: int) -> tuple[range, list[int]]:
        return range(self.n_past, self.n_past + n), [0] * n

    def _keep_prefix(self) -> None:
        if self._prefix_kept:
            self.rewind(len(self._prefix_ids))
            return
        self.context.clear()  # whatever an interruption may have left behind
        self.n_past = 0
        self.feed(self._prefix_ids)
        self._prefix_kept = True

    def _make_room(self, n_prompt: int, generation: Generation) -> None:
        """Check that a question and its answer fit, and grow the context when it may."""
        if n_prompt + generation.max_new_tokens > self.spec.max_positions:
            raise InputError(_no_room(n_prompt, generation, self.spec.max_positions, beams=1))
        context, cells, sequences = self.context, _cells(n_prompt, generation), _sequences(generation.beams)
        if self.options.n_ctx is not None and cells > context.n_ctx:
            raise InputError(_no_room(n_prompt, generation, context.n_ctx))
        if cells > context.n_ctx or sequences > context.n_sequences:
            old = context.n_ctx, context.n_sequences
            try:
                self._open_context(max(cells, old[0]), max(sequences, old[1]))
            except RunError:
                self._open_context(*old)  # a smaller question can still be asked
                raise

    def _open_context(self, n_ctx: int, n_sequences: int) -> None:
        if self._context is not None:
            self._context.close()  # before the new one is made: the two need not fit side by side
            self._context = None
        threads = self.options.n_threads or default_threads()
        self._context = self._model.context(n_ctx, n_sequences, threads, self.options.kv_type)
        self.n_past, self._prefix_kept = 0, False
        if self._adapter is not None:
            self._context.set_adapter(self._adapter, self._factor)

    def _decode(self, logits: Floats, generation: Generation) -> Iterator[int]:
        rng = np.random.default_rng(generation.seed)
        turn, ids = self._turn, list[int]()
        while True:
            token = sample(penalize(self._allowed(logits), ids, generation.repetition_penalty), generation, rng)
            if token in self.eos:
                return
            ids.append(token)
            yield token
            if len(ids) == generation.max_new_tokens:
                return
            self._check_turn(turn)
            logits = self.feed([token])[0]

    def _search(self, logits: Floats, generation: Generation) -> Iterator[int]:
        """Beams are sequences that share the prompt's KV; two sets take turns as parents and children."""
        rule = BeamRule(generation.beams, generation.max_new_tokens, self.eos, generation.length_penalty)
        sets = range(1, 1 + rule.beams), range(1 + rule.beams, 1 + 2 * rule.beams)
        turn, start, n_steps = self._turn, self.n_past, 0

        def step(tokens: Sequence[int], parents: Sequence[int]) -> npt.NDArray[np.float64]:
            nonlocal n_steps
            self._check_turn(turn)
            old, new = sets[n_steps % 2], sets[1 - n_steps % 2][: len(tokens)]
            for parent, child in zip(parents, new, strict=True):
                self.context.copy(old[parent] if n_steps else 0, child)
            for sequence in old:
                self.context.drop(sequence)
            positions = [start + n_steps] * len(tokens)
            n_steps += 1
            return log_softmax(self._allowed(self.context.decode_ids(tokens, positions, new, range(len(tokens)))))

        def adjust(log_probs: npt.NDArray[np.float64], ids: Sequence[int]) -> npt.NDArray[np.float64]:
            return penalize(log_probs, ids, generation.repetition_penalty)

        return beam_search(log_softmax(self._allowed(logits)), step, rule, adjust)

    def _allowed(self, logits: Floats) -> Floats:
        if not np.isfinite(logits.max()):
            raise RunError("the language model computed no numbers: try --n-gpu-layers 0, or verify the bundle")
        return forbid(logits, self._forbidden, self.spec.vocab)

    def _check_turn(self, turn: int) -> None:
        if turn != self._turn:
            raise RunError("this answer ended when another question was read or the model was closed: ask again")


def _check_sizes(model: Model, spec: LlmSpec) -> None:
    for name in ("hidden", "n_layers", "n_heads", "n_kv_heads", "vocab"):
        found, expected = getattr(model, name), getattr(spec, name)
        if found != expected:
            raise BundleError(
                f"{model.path} has {name} {found}, but the manifest says {expected}: export the bundle again"
            )


def _open_adapter(model: Model, path: Path, manifest: Manifest) -> Adapter:
    adapter, alpha = model.adapter(path), manifest.spec.lora.alpha
    if adapter.alpha != alpha:
        raise BundleError(
            f"{path} has alpha {adapter.alpha:g}, but the manifest says {alpha:g}: export the bundle again"
        )
    return adapter


def _lora_factor(manifest: Manifest, scale: float | None) -> float:
    """What multiplies alpha / rank, so that merged weights and adapter together are at `scale`."""
    scale = manifest.llm.lora_scale if scale is None else scale
    if not np.isfinite(scale):
        raise InputError(f"lora_scale={scale} is not possible: give a number such as {manifest.spec.lora.scale:g}")
    merged = manifest.llm.lora_scale if manifest.llm.lora == "merged" else 0.0
    return (scale - merged) / manifest.spec.lora.scale


def _no_adapter(scale: float) -> str:
    return (
        f"lora_scale={scale:g} needs the LoRA adapter, which this bundle does not have: export it again with"
        " --lora adapter or --lora both"
    )


def _cells(n_prompt: int, generation: Generation) -> int:
    """Beams share what was read, not what they say."""
    return n_prompt + generation.beams * generation.max_new_tokens


def _sequences(beams: int) -> int:
    return 1 if beams == 1 else 1 + 2 * beams


def _no_room(n_prompt: int, generation: Generation, n_cells: int, beams: int | None = None) -> str:
    beams = beams or generation.beams
    new = beams * generation.max_new_tokens
    each = f"{beams} beams of {generation.max_new_tokens} new ones" if beams > 1 else f"{new} new ones"
    return (
        f"the question has {n_prompt} tokens, which makes {n_prompt + new} with {each}, but {n_cells} fit:"
        f" shorten it to {max(0, n_cells - new)} tokens, or lower max_new_tokens"
    )


def _chunks(n: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, n)) for start in range(0, n, size))
