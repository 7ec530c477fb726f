"""The language model as a session: a prompt and audio tokens in (prefill), token ids out one by one (decode).

    before | audio_tokens | suffix     positions 0 .. n_past - 1 of sequence 0
    ^ KV is kept            ^ ids -> logits of the last -> ids

Knows nothing about sound. Source: docs/reference.md §4.1 and §7.6 (order), §4.2 (ids), §4.4 (generation).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from ...models.bundle import Manifest
from ...models.errors import InputError, RunError
from ..system.exclusive import Exclusive, exclusively
from .boosting import Boost, unboosted
from .context_size import batches, require_room, required_positions, required_sequences, usual_context_size
from .decoding import BeamSequences, PromptLookup, decode, search
from .detokenizer import Detokenizer, detokenize
from .grammar.gbnf import Grammar
from .grammar.kept import Grammars
from .kv_prefix import KvPrefix
from .llama import Context, Floats
from .options import LlmOptions
from .prompts import Prompts
from .sampling import Generation, TokenScores, forbid
from .weights import NO_BASE, Lora, Weights

GREEDY = Generation()
AUDIO = -1  # in Llm.read: no id of a vocabulary


class Llm:
    """One opened language model. Close it, or use it as a context manager.

    One thread at a time: in turns, or RunError for the one that comes while another is inside. What is several calls
    belongs into one `with llm.exclusive`.

    path: llm.gguf; adapter: lora.gguf, when the bundle has one; what they must be stands in the manifest.
    Raises BundleError when a file is missing, unreadable or not what the manifest says, InputError for a LoRA
    scale without an adapter, RunError when memory is too small. weights: of another session, which frees them.
    """

    read: list[int]
    """What stands in the cache: the id at each position that is in use, AUDIO where it is an audio token."""
    turn: int
    """Counts questions, so that an answer, or who keeps something in the KV cache, knows when it is an old one."""
    before_pass: Callable[[], None] | None = None
    """Called before every pass; what it raises ends the answer there, and another question can be asked."""

    def __init__(
        self, path: Path, manifest: Manifest, adapter: Path | None, options: LlmOptions, weights: Weights | None = None
    ) -> None:
        self.exclusive = Exclusive()
        self.spec = manifest.spec.llm
        self.options = options
        self.manifest = manifest
        self._context: Context | None = None
        self._prefix = KvPrefix()
        self.read = []
        self.turn = 0
        self._logits: Floats | None = None
        self._boost: Boost = unboosted
        self._own_weights = weights is None
        self.weights = weights or Weights(path, manifest, adapter, options)
        self._model = self.weights.model
        self._grammars = Grammars(self._model)
        try:
            self.eos = self._model.eos
            self._forbidden = sorted(self._model.specials - self.eos)  # BOS and UNK; EOS stops
            self.prompts = Prompts(self._model, manifest, options.keyword_boost)
            self._lora = Lora(self.weights.adapter, manifest, options.lora_scale)
            self._open_context(options.n_ctx or min(usual_context_size(manifest), self.spec.max_positions), 1)
        except BaseException:
            self.close()
            raise

    def grammar(self, gbnf: str, sequence: int = 0) -> Grammar:
        """What the answer in a sequence must look like, in llama.cpp's notation, from its start. Raises InputError."""
        (rules := self._grammars.get(gbnf, sequence)).reset()
        return rules

    @exclusively
    def check_grammar(self, gbnf: str) -> None:
        """Raises InputError for rules that are none; an answer that follows them goes on."""
        self._grammars.get(gbnf)

    def detokenizer(self) -> Detokenizer:
        """A fresh state that turns ids into text while they arrive."""
        return Detokenizer(self._model.piece)

    def text(self, ids: Sequence[int]) -> str:
        """The whole text of ids, without specials."""
        return detokenize(ids, self._model.piece)

    @exclusively
    def prefill(self, audio_tokens: Floats | Sequence[Floats], prompt: str, generation: Generation = GREEDY) -> Floats:
        """Read a question: logits [vocab] of the answer's first token.

        audio_tokens: float32 [n, hidden], or one of these for each clip that the prompt asks about. The KV of what
        stands before the first clip is kept, as far as the next question begins alike. Raises InputError when the
        question and what `generation` allows for its answer do not fit, or it asks about another number of clips.
        """
        audios = [audio_tokens] if isinstance(audio_tokens, np.ndarray) else list(audio_tokens)
        before, *texts = self.prompts.turn(prompt)
        if len(texts) != len(audios):
            raise InputError(f"the prompt asks about {len(texts)} clips, but {len(audios)} were given")
        n_prompt = len(before) + sum(map(len, texts)) + sum(map(len, audios))
        self._reserve(n_prompt, generation)
        self.prefill_audio(before, audios[0])
        for text, audio in zip(texts, audios[1:], strict=False):
            self.feed(text)
            self.feed_audio(self._checked(audio))
        return self.question(texts[-1])

    @exclusively
    def prefill_text(self, prompt: str, generation: Generation = GREEDY) -> Floats:
        """Read a question without audio for the language model alone, its LoRA switched off: logits [vocab].

        Raises InputError, also when the LoRA is merged and no adapter can take it out.
        """
        if not self._lora.has_adapter:
            raise InputError(NO_BASE)
        ids = (*self.prompts.info.start_ids, *self.prompts.text_turn(prompt))
        self._reserve(len(ids), generation)
        self._work_at(0.0)
        self._keep(ids[:-1])
        logits = self.question(ids[-1:])
        self._boost = unboosted  # listed words are those of the audio
        return logits

    @exclusively
    def question(self, ids: Sequence[int]) -> Floats:
        """Append the end of a question, for `generate` to answer: logits [vocab]. Ends any answer."""
        self.turn += 1
        self._boost = self.prompts.boost
        self._logits = logits = self.feed(ids)[-1]
        return logits

    @exclusively
    def restart(self, n_positions: int = 0) -> None:
        """Forget everything, the prefix too: the cache is the caller's, and has n_positions, until `turn` moves on."""
        self.grow(n_positions, 1)
        self._work_at(self.lora_scale)
        self.turn += 1
        self._logits = None
        self._prefix.clear()
        self.context.clear()
        self.read.clear()

    @exclusively
    def prefill_audio(self, before: Sequence[int], audio_tokens: Floats, n_kept: int = 0) -> int:
        """A question's beginning and its audio into sequence 0, for the rest to follow.

        audio_tokens: float32 [n, hidden], all of them; the KV of the first n_kept stays where they are those of the
        last call, behind the same ids. Ends any answer. Returns how many were kept.
        """
        self._checked(audio_tokens)
        self._work_at(self.lora_scale)
        n_kept = self._prefix.n_audio_kept(before, n_kept)
        self._keep(before, n_kept)
        self.feed_audio(audio_tokens[n_kept:])
        self._prefix.hold(before, len(audio_tokens))
        return n_kept

    def require_positions(
        self, prompt: str, n_audio_tokens: int, max_new_tokens: int, keywords: Sequence[str] | None = None
    ) -> None:
        """Raises InputError when the model has no positions for such a question and its answer. Any thread may ask.

        keywords: others than are listened for now.
        """
        n_prompt = sum(map(len, self.prompts.around(prompt, keywords))) + n_audio_tokens
        require_room(n_prompt, Generation(max_new_tokens), self.spec.max_positions)

    @exclusively
    def reserve(self, n_shared: int, n_suffixes: Sequence[int], max_new_tokens: Sequence[int]) -> None:
        """See that the context holds n_shared positions with several questions side by side, and their answers.

        Raises InputError when it may not grow so far. What it holds is forgotten when it grows.
        """
        for n_suffix, n_new in zip(n_suffixes, max_new_tokens, strict=True):
            require_room(n_shared + n_suffix, Generation(n_new), self.spec.max_positions)
        self.grow(n_shared + sum(n_suffixes) + sum(max_new_tokens), len(n_suffixes))

    @exclusively
    def generate(self, generation: Generation = GREEDY, scores: TokenScores | None = None) -> Iterator[int]:
        """The answer's ids, without EOS, to the question that prefill read.

        Greedy and sampling yield each id at once; beam search as soon as no other hypothesis can win.
        As many ids as max_new_tokens mean that the answer was cut. A new question ends an unfinished answer. What
        `stop`, `max_seconds` and `guard` say is for the caller to do, see StoppingCriteria. scores: is told how likely
        each id was; nothing by beam search, whose winner is not known before its end.
        """
        if self._logits is None:
            raise RunError("no question was read: call prefill before generate")
        require_room(self.n_past, generation, self.context.n_ctx)
        logits = self._logits.copy()  # prefill's caller has them too
        self._logits = None  # one answer per question: it moves n_past
        if generation.beams == 1:
            grammar = None if generation.gbnf is None else self.grammar(generation.gbnf)
            return self.exclusive.each(self._decode(logits, generation, grammar, self.turn, scores))
        return self.exclusive.each(self._search(logits, generation, self.turn))

    def end_ids(self, generation: Generation) -> frozenset[int]:
        """The ids that end an answer: EOS, unless it is to be ignored."""
        return frozenset() if generation.ignore_eos else self.eos

    @exclusively
    def feed(self, ids: Sequence[int], every: bool = False) -> Floats:
        """Append ids: logits [1, vocab] of the last, or [len(ids), vocab] of every one (to check a draft)."""
        rows: list[Floats] = []
        for chunk in batches(len(ids), self.context.n_batch):
            part = ids[chunk]
            first = 0 if every else len(part) - (chunk.stop == len(ids))
            rows.append(self.context.decode_ids(part, *self._places(len(part)), range(first, len(part))))
            self.read += part
        return rows[0] if len(rows) == 1 else np.concatenate([np.zeros((0, self.spec.vocab), np.float32), *rows])

    @exclusively
    def feed_audio(self, audio_tokens: Floats) -> None:
        """Append embeddings [n, hidden]."""
        for chunk in batches(len(audio_tokens), self.context.n_batch):
            part = audio_tokens[chunk]
            self.context.decode_embeddings(part, *self._places(len(part)))
            self.read += [AUDIO] * len(part)

    @exclusively
    def rewind(self, n_past: int) -> None:
        """Forget every position from n_past on, and the beams of the last answer, which is over."""
        self.turn += 1
        for sequence in range(1, self.context.n_sequences):
            self.context.drop(sequence)
        self._drop(n_past)

    def _drop(self, n_past: int) -> None:
        """Forget every position from n_past on."""
        self.context.drop(0, n_past)
        del self.read[n_past:]

    @property
    def n_past(self) -> int:
        """Positions in use: where the next token goes."""
        return len(self.read)

    @exclusively
    def set_lora_scale(self, scale: float) -> None:
        """Use the adapter at another scale from the next question on: as it was trained, or 0 for the base alone.

        Raises InputError when the bundle has no adapter.
        """
        self.require_adapter(scale)
        self._lora.scale = scale
        self.turn += 1  # what is kept was computed at the old scale

    def require_adapter(self, scale: float) -> None:
        """Raises InputError when the LoRA cannot be used at this scale. Any thread may ask."""
        self._lora.require(scale)

    @property
    def lora_scale(self) -> float:
        """At which the LoRA works now."""
        return self._lora.scale

    def _work_at(self, scale: float) -> None:
        """The LoRA's scale for what is read next; at another one than before nothing that is kept is of use."""
        if self._lora.apply(self.context, scale):
            self._prefix.clear()

    @property
    def context(self) -> Context:
        """The KV cache. Raises RunError after close()."""
        if self._context is None:
            raise RunError("the language model is closed: open the bundle again")
        return self._context

    def share_cores(self, n_sessions: int) -> None:
        """So many sessions on these weights are at work from the next pass on: threads as llm_threads, same answers."""
        if self._context is not None:
            self._context.use_threads(self.weights.n_threads(self.options.n_threads, n_sessions))

    @exclusively
    def close(self) -> None:
        """Free cache, adapter and weights. Closing twice is fine."""
        self.turn += 1
        if self._context is not None:
            self._context.close()
            self._context = None
        self._grammars.close()
        if self._own_weights:
            self.weights.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _places(self, n: int) -> tuple[range, list[int]]:
        return range(self.n_past, self.n_past + n), [0] * n

    def _checked(self, audio_tokens: Floats) -> Floats:
        if audio_tokens.ndim != 2 or audio_tokens.shape[1] != self.spec.hidden:
            hidden = self.spec.hidden
            raise InputError(f"audio tokens have shape {audio_tokens.shape}, but this model reads [n, {hidden}]")
        return audio_tokens

    def _keep(self, ids: Sequence[int], n_more: int = 0) -> None:
        """These ids stand at the beginning, and n_more positions behind them; what stood there is not read again."""
        self._logits = None
        n_same = self._prefix.n_ids_kept(ids)
        anything = bool(self._prefix)
        self._prefix.clear()  # until all of it was read
        if anything:
            self.rewind(n_same + n_more)
        else:
            self.turn += 1
            self.context.clear()  # whatever an interruption may have left behind
            self.read.clear()
        self.feed(ids[n_same:])
        self._prefix.hold(ids, n_more)

    def _reserve(self, n_prompt: int, generation: Generation) -> None:
        """Check that a question and its answer fit, and grow the context when it may."""
        require_room(n_prompt, generation, self.spec.max_positions, beams=1)
        if self.options.n_ctx is not None:
            require_room(n_prompt, generation, self.context.n_ctx)
        self.grow(required_positions(n_prompt, generation), required_sequences(generation.beams))

    @exclusively
    def grow(self, n_positions: int, n_sequences: int) -> None:
        """See that the cache has so many cells and sequences. What it holds is lost when it grows.

        Raises InputError when n_ctx was given and is less, RunError when memory is.
        """
        context = self.context
        if self.options.n_ctx is not None and n_positions > context.n_ctx:
            raise InputError(f"{n_positions} positions are needed at once, but n_ctx is {context.n_ctx}: raise it")
        if n_positions > context.n_ctx or n_sequences > context.n_sequences:
            old = context.n_ctx, context.n_sequences
            try:
                self._open_context(max(n_positions, old[0]), max(n_sequences, old[1]))
            except RunError:
                self._open_context(*old)  # a smaller question can still be asked
                raise

    def _open_context(self, n_ctx: int, n_sequences: int) -> None:
        if self._context is not None:
            self._context.close()  # before the new one is made: the two need not fit side by side
            self._context = None
        n_threads = self.weights.n_threads(self.options.n_threads)
        self._context = self._model.context(n_ctx, n_sequences, n_threads, self.options.kv_type)
        self._context.before_pass = lambda: self.before_pass and self.before_pass()
        self.turn += 1
        self.read.clear()
        self._prefix.clear()
        self._lora.renew(self._context)

    def _decode(
        self,
        logits: Floats,
        generation: Generation,
        grammar: Grammar | None,
        turn: int,
        scores: TokenScores | None,
    ) -> Iterator[int]:
        def step(token: int) -> Floats:
            self._check_turn(turn)
            return lookup.step(token)

        self._check_turn(turn)
        most, end = self.options.prompt_lookup, self.n_past + generation.max_new_tokens - 1
        lookup = PromptLookup(self.read, lambda ids: self.allowed(self.feed(ids, every=True)), self._drop, most, end)
        first, eos = self.allowed(logits), self.end_ids(generation)
        yield from decode(first, step, generation, eos, grammar, scores, self._boost)

    def _search(self, logits: Floats, generation: Generation, turn: int) -> Iterator[int]:
        beams = BeamSequences(self.context, self.n_past, generation.beams)

        def step(tokens: Sequence[int], parents: Sequence[int]) -> Floats:
            self._check_turn(turn)
            return self.allowed(beams.step(tokens, parents))

        return search(self.allowed(logits), step, generation, self.end_ids(generation), self._boost)

    def allowed(self, logits: Floats) -> Floats:
        """The same array, the ids that may not be chosen at -inf. Raises RunError when there are no numbers."""
        if not np.isfinite(logits.max()):
            raise RunError("the language model computed no numbers: try --n-gpu-layers 0, or verify the bundle")
        return forbid(logits, self._forbidden, self.spec.vocab)

    def _check_turn(self, turn: int) -> None:
        if turn != self.turn:
            raise RunError("this answer ended when another question was read or the model was closed: ask again")
