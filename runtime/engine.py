"""The engine, one opened bundle: a waveform and a prompt in, an answer's text as it is decoded and a Final out.

segment (no longer than the model's window) -> the family's encoders -> llm -> Piece, Piece, ... Final
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..models.audio import SAMPLE_RATE, Waveform
from ..models.errors import AudioError, InputError, RunError
from .aligner.aligner import Aligner
from .audio.decode import as_waveform, open_audio
from .audio.selection import MAIN, Selection
from .audio.silence import silent_array, silent_file
from .audio.split import Segment, split_at_pauses
from .bundle import Bundle, open_bundle
from .encoders.base import EncodedSegment
from .events import AnswerEvent, Decoded, Final, FinishReason, Piece, SegmentStarted
from .graphs import ALIGNER_REMEDY, Graphs
from .llm.llama import can_offload
from .llm.options import LlmOptions
from .llm.sampling import Generation, TokenScores
from .llm.session import Llm
from .llm.stopping import StoppingCriteria, cut_at
from .llm.weights import Weights
from .system.exclusive import exclusively
from .system.heap import trim_heap
from .system.machine import usual_lanes
from .system.ort import OrtOptions

Audio = Path | str | Waveform | tuple[NDArray[np.generic], int]
"""A file, a 16 kHz waveform, or (samples [n] or [n, channels], sample rate in Hz)."""


@dataclass(frozen=True)
class EngineOptions:
    """Where the parts run; the defaults use what this machine has."""

    ort: OrtOptions = field(default_factory=OrtOptions)
    llm: LlmOptions = field(default_factory=LlmOptions)


@dataclass(frozen=True)
class Answer:
    """What the model said about a clip; a clip longer than the model's window has several segments."""

    text: str
    prompt: str
    segments: tuple[Final, ...]


class Engine:
    """An opened bundle. Close it, or use it as a context manager.

    Any thread may use it, one at a time: while one is at work every other gets RunError at once, nothing waits. What
    `stream` gives may be left between two events while something else is asked, from any thread. That ends its answer:
    gone on with, it raises RunError.
    """

    def __init__(self, bundle: Bundle, options: EngineOptions, beside: Engine | None = None) -> None:
        """beside: an opened one of the same bundle and options, whose graphs and weights are used; see `lanes`."""
        manifest = bundle.manifest
        self.bundle = bundle
        self.spec = manifest.spec
        self.prompt = manifest.prompt
        self.defaults = Generation(max_new_tokens=manifest.generation.max_new_tokens, beams=manifest.generation.beams)
        self.greedy_defaults = replace(self.defaults, beams=1)
        """Those of whoever shows an answer as it is decoded."""
        self._options = options
        self._own_graphs = beside is None
        self._graphs = Graphs(bundle, options.ort) if beside is None else beside._graphs
        self.encoders = self._graphs.encoders
        self.llm = _open_llm(bundle, options.llm, None if beside is None else beside.llm.weights)
        self.exclusive = self.llm.exclusive
        self._lanes: list[Engine] = [self]
        trim_heap()  # of what opening the graphs has left

    def lanes(self, n: int) -> tuple[Engine, ...]:
        """This engine and n - 1 others, for as many threads at once: each has a KV cache, the weights are the same.

        They are opened once, and closed with this one. Raises RunError when memory is too small.
        """
        while len(self._lanes) < n:
            try:
                self._lanes.append(Engine(self.bundle, self._options, beside=self))
            except RunError as error:
                raise RunError(
                    f"only {len(self._lanes)} of {n} lanes can be opened, ask for no more: {error}"
                ) from None
        return tuple(self._lanes[:n])

    @property
    def usual_lanes(self) -> int:
        """How many a server opens where nobody says. A GPU, and a large language model, are filled by one."""
        on_gpu = not self._graphs.on_cpu or (self._options.llm.n_gpu_layers != 0 and can_offload())
        return 1 if on_gpu else usual_lanes(self.llm.weights.n_bytes, self._options.ort.threads)

    @property
    def keywords(self) -> tuple[str, ...]:
        """Words that may occur in the audio; set them to be listened for from the next question on.

        At most `prompt.max_keywords`. InputError for more, or for one that spells a control token.
        """
        return self.llm.prompts.keywords

    @keywords.setter
    @exclusively
    def keywords(self, words: Sequence[str]) -> None:
        self.llm.prompts.keywords = words

    @exclusively
    def encode(self, waveform: Waveform, short: bool | None = None) -> EncodedSegment:
        """Encodes one segment of at most `spec.seconds`.

        short: no more is encoded than the segment, where the family could pad it to its window; False: the window;
        None: what the model was trained on.
        """
        if self._graphs.closed:
            raise RunError("the engine is closed: open the bundle again")
        encoded = self.encoders.encode(waveform, short)
        if not np.isfinite(encoded.audio_tokens).all():
            raise self._no_numbers(waveform)
        return encoded

    @property
    def times_words(self) -> bool:
        """Whether the bundle has an aligner."""
        return self.bundle.manifest.aligner is not None

    @property
    def aligner(self) -> Aligner:
        """Opened when it is first needed. Raises InputError for a bundle without one."""
        return self._graphs.aligner

    def judges(self, prompt: str, generation: Generation) -> bool:
        """Whether the support of an answer to this prompt, so decoded, can be told: it is what was said, in words."""
        return self.times_words and self.prompt.transcribes(prompt) and generation.gbnf is None

    def require_aligner(self, prompt: str, generation: Generation) -> None:
        """Raises InputError where an answer to this prompt cannot have the words or the support asked for."""
        supported = generation.min_support is not None
        if not generation.words and not supported:
            return
        if not self.times_words:
            what = "time words" if generation.words else "tell what was said from what was not"
            raise InputError(f"{self.bundle.manifest.name} cannot {what}: {ALIGNER_REMEDY}")
        tasks = " or ".join(self.prompt.transcriptions)
        if generation.words and not self.prompt.transcribes(prompt):
            raise InputError(f"only words that were said have times: ask {tasks}")
        if supported and not self.judges(prompt, generation):
            raise InputError(f"only what was said, in words and not JSON, has support: ask {tasks}")

    def aligned(self, final: Final, waveform: Waveform, generation: Generation) -> Final:
        """A segment's transcription with its words' times and its support, as far as they are asked for.

        One whose support is too low is marked by its finish_reason. Raises InputError, RunError.
        """
        least = generation.min_support
        words, support = self.aligner.align(waveform, final.text, generation.words, least is not None)
        if generation.words:
            final = replace(final, words=tuple(word.moved(final.start_s) for word in words))
        if support is None or least is None:
            return final
        return replace(final, support=support, finish_reason="unsupported" if support < least else final.finish_reason)

    def stages(self, waveform: Waveform) -> dict[str, NDArray[np.float32]]:
        """Every graph's output on one segment, the aligner's behind the encoders'."""
        aligned = self.aligner.stages(waveform) if self.times_words else {}
        return self.encoders.stages(waveform) | aligned

    def segments(self, audio: Audio, selection: Selection = MAIN) -> Iterator[Segment]:
        """The clip in segments the model can hear, cut at pauses. Raises AudioError."""
        if isinstance(audio, Path | str):
            chunks = open_audio(audio, selection)
        else:
            chunks = iter((as_waveform(*_with_rate(audio), selection),))
        return split_at_pauses(chunks, self.spec.seconds)

    def audible_segments(self, audio: Audio, selection: Selection = MAIN) -> Iterator[Segment]:
        """Those in which there is sound. Raises AudioError, also at the end of a clip without any."""
        audible = False
        for segment in self.segments(audio, selection):
            if not segment.silent:
                audible = True
                yield segment
        if not audible:
            raise _silent(audio, selection)

    def stream(
        self,
        audio: Audio | list[Audio],
        prompt_or_task: str,
        generation: Generation | None = None,
        selection: Selection = MAIN,
    ) -> Iterator[AnswerEvent]:
        """Each segment's start, its text as it is decoded, a Final at its end. Raises InputError, RunError.

        prompt_or_task: what `prompt.prompt_for` gives is taken as it is, so that a prompt is resolved once.
        A list of clips is heard in one question, at the places that the prompt names them.
        selection: the track and the channel of each that are heard.
        """
        prompt = self.prompt.prompt_for(prompt_or_task)
        generation = generation or self.defaults
        self.require_aligner(prompt, generation)
        clips = audio if isinstance(audio, list) else [audio]
        if (n := self.prompt.n_audios(prompt)) != len(clips):
            given = f"{_clips(len(clips))} {'was' if len(clips) == 1 else 'were'} given"
            raise InputError(f"the prompt asks about {_clips(n)}, but {given}: {self._how_many()}")
        if n > 1:
            segments = [self.whole(clip, selection) for clip in clips]
            yield SegmentStarted(0.0, sum(segment.end_s for segment in segments), alone=True)
            yield from self.answer(segments, prompt, generation)
            return
        for segment in self.audible_segments(clips[0], selection):
            alone = segment.last and segment.start_s == 0
            yield SegmentStarted(segment.start_s, segment.end_s, alone)
            yield from self.answer([segment], prompt, generation)

    @exclusively
    def ask(
        self,
        audio: Audio | list[Audio],
        prompt_or_task: str,
        generation: Generation | None = None,
        selection: Selection = MAIN,
    ) -> Answer:
        """The whole answer. Raises InputError, RunError."""
        prompt = self.prompt.prompt_for(prompt_or_task)
        events = self.stream(audio, prompt, generation, selection)
        finals = tuple(event for event in events if isinstance(event, Final))
        return Answer("\n".join(f.text for f in finals if f.text and f.supported), prompt, finals)

    def whole(self, audio: Audio, selection: Selection = MAIN) -> Segment:
        """A clip that cannot be cut. Raises InputError when it is too long, AudioError when it is silent."""
        first, *more = islice(self.segments(audio, selection), 2)
        if more:
            raise InputError(
                f"{_name(audio)} is longer than the {self.spec.seconds:g} s that fit here: give a part of it"
            )
        if first.silent:
            raise _silent(audio, selection)
        return first

    def _no_numbers(self, waveform: Waveform) -> RunError:
        """Names the graph that a NaN or an infinity comes from, found by running them once more."""
        graphs = {graph.outputs[0].name: graph.file for graph in self.bundle.manifest.graphs.values()}
        stages = self.encoders.stages(waveform)
        first = next((name for name, output in stages.items() if not np.isfinite(output).all()), [*stages][-1])
        return RunError(f"{graphs[first]} computed no numbers: try --provider cpu, or verify the bundle")

    def _how_many(self) -> str:
        tag = self.prompt.audio_tag
        return "give one" if tag is None else f"write {tag} in the prompt where each is heard"

    def answer(self, segments: list[Segment], prompt: str, generation: Generation) -> Iterator[Piece | Final]:
        """One segment's answer as it is decoded, or that to all the clips that a prompt names, each whole.

        Raises InputError, RunError.
        """
        started = time.monotonic()
        encoded = [self.encode(segment.waveform) for segment in segments]
        seconds = sum(segment.end_s - segment.start_s for segment in segments)
        generation = replace(generation, max_new_tokens=self.most_tokens(prompt, seconds, generation))
        tokens = [each.audio_tokens for each in encoded]
        span = segments[0].start_s, segments[0].start_s + seconds
        prefill = partial(self.llm.prefill, tokens, prompt, generation)
        decoded = yield from self.decode(_together(encoded), prefill, self.llm.generate, generation, started)
        final = decoded.final(*span, prompt)
        asked = generation.words or generation.min_support is not None
        yield self.aligned(final, segments[0].waveform, generation) if asked else final

    def most_tokens(self, prompt: str, seconds: float, generation: Generation) -> int:
        """Of an answer about so much sound: no more than can be spoken in it, where it says what was said."""
        guarded = generation.guard and generation.gbnf is None
        budget = self.prompt.token_budget(prompt, seconds) if guarded else None
        return generation.max_new_tokens if budget is None else min(budget, generation.max_new_tokens)

    def stream_text(self, prompt: str, generation: Generation | None = None) -> Iterator[Piece | Final]:
        """An answer of the language model as it was before it learnt to hear: no audio, its LoRA switched off.

        Raises InputError when the LoRA is merged and no adapter can take it out.
        """
        generation = generation or self.defaults
        started = time.monotonic()
        nothing = EncodedSegment(np.zeros((0, self.spec.llm.hidden), np.float32), {}, 0.0)
        prefill = partial(self.llm.prefill_text, prompt, generation)
        decoded = yield from self.decode(nothing, prefill, self.llm.generate, generation, started)
        yield decoded.final(0.0, 0.0, prompt)

    def decode(
        self,
        encoded: EncodedSegment,
        prefill: Callable[[], object],
        generate: Callable[[Generation, TokenScores], Iterator[int]],
        generation: Generation,
        started: float,
        interrupted: Callable[[], FinishReason | None] = lambda: None,
    ) -> Generator[Piece, None, Decoded]:
        """One answer: prefill, then the text as it is decoded; returns it whole, with what it took.

        generate: gives the ids of the question that prefill read; started: time.monotonic() when it was put;
        interrupted: asked before every token whether the answer must end here, and why.
        """
        start = time.perf_counter()
        with self.exclusive:  # or another question might come between the two
            prefill()
            scores = TokenScores()
            tokens = generate(generation, scores)
        prefilled = time.perf_counter()
        criteria = StoppingCriteria(generation, started, self.llm.detokenizer())
        while (reason := interrupted()) is None and criteria.finish_reason is None:
            if (token := next(tokens, None)) is None:
                break
            piece = criteria.add(token)
            criteria.check_time()
            if piece:
                yield Piece(piece)
        if rest := criteria.finish(reason or "eos"):
            yield Piece(rest)
        decode_ms = (time.perf_counter() - prefilled) * 1e3
        timings = encoded.timings((prefilled - start) * 1e3, decode_ms, len(criteria.ids))
        text = cut_at(self.llm.text(criteria.ids), generation.stop).strip()
        finish_reason = reason or criteria.finish_reason or "eos"
        sure = self.bundle.manifest.generation.is_sure(scores.mean)
        return Decoded(text, tuple(criteria.ids), timings, finish_reason, scores.mean, confident=sure)

    @exclusively
    def close(self) -> None:
        """Frees sessions, contexts and threads, of its lanes too. Closing twice is fine."""
        for lane in self._lanes[1:]:
            lane.close()
        self.llm.close()
        if self._own_graphs:
            self._graphs.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def load(bundle: Path | str | None = None, options: EngineOptions | None = None) -> Engine:
    """Opens a bundle, the demo by default. Raises BundleError, InputError, RunError."""
    return Engine(open_bundle(bundle), options or EngineOptions())


def _open_llm(bundle: Bundle, options: LlmOptions, weights: Weights | None) -> Llm:
    info = bundle.manifest.llm
    adapter = bundle.path(info.adapter) if info.adapter else None
    return Llm(bundle.path(info.file), bundle.manifest, adapter, options, weights)


def _together(encoded: list[EncodedSegment]) -> EncodedSegment:
    """Several clips' audio tokens one after the other, their times summed."""
    stages = {name: sum(each.stages[name] for each in encoded) for name in encoded[0].stages}
    tokens = np.concatenate([each.audio_tokens for each in encoded])
    return EncodedSegment(tokens, stages, sum(each.encoders_ms for each in encoded))


def _clips(n: int) -> str:
    return "1 clip" if n == 1 else f"{n} clips"


def _with_rate(audio: Waveform | tuple[NDArray[np.generic], int]) -> tuple[NDArray[np.generic], int]:
    return audio if isinstance(audio, tuple) else (audio, SAMPLE_RATE)


def _silent(audio: Audio, selection: Selection) -> AudioError:
    if isinstance(audio, Path | str):
        return silent_file(audio, selection, _name(audio))
    return silent_array(*_with_rate(audio), selection, _name(audio))


def _name(audio: Audio) -> str:
    return str(audio) if isinstance(audio, Path | str) else "the clip"
