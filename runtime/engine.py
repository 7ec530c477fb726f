"""One model, opened: waveform -> encoders -> audio tokens -> language model -> words.

segment (no longer than the model's window)
  -> log_mel -> whisper ┐
  -> fbank   -> beats   ┴-> qformer -> audio tokens -> llm -> Piece, Piece, ... Final
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..models.audio import SAMPLE_RATE, Waveform
from ..models.errors import AudioError, RunError
from ..models.salmonn import prompt_for, token_budget
from .audio import as_waveform, open_audio
from .beats import BeatsEncoder
from .bundle import Bundle, open_bundle
from .events import AnswerEvent, Final, Piece, SegmentStarted, Timings
from .llm import Llm, LlmOptions
from .loops import sound_length
from .ort import OrtOptions, open_session
from .qformer import QFormer
from .sampling import Generation
from .segments import Segment, split_at_pauses
from .whisper import WhisperEncoder

if TYPE_CHECKING:
    from onnxruntime import OrtValue

T = TypeVar("T")
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


@dataclass(frozen=True)
class Heard:
    """A segment as the language model hears it: float32 [n_audio_tokens, d_llm]."""

    audio_tokens: NDArray[np.float32]
    whisper_ms: float
    beats_ms: float
    encoders_ms: float
    """Wall time until both encoders were done."""
    qformer_ms: float

    def timings(self, prefill_ms: float, decode_ms: float, n_new_tokens: int) -> Timings:
        """With what the language model took."""
        return Timings(
            whisper_ms=self.whisper_ms,
            beats_ms=self.beats_ms,
            encoders_ms=self.encoders_ms,
            qformer_ms=self.qformer_ms,
            prefill_ms=prefill_ms,
            decode_ms=decode_ms,
            n_audio_tokens=len(self.audio_tokens),
            n_new_tokens=n_new_tokens,
        )


class Engine:
    """An opened bundle. Close it, or use it as a context manager; one thread at a time."""

    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        manifest = bundle.manifest
        self.bundle, self.spec = bundle, manifest.spec
        self.defaults = Generation(max_new_tokens=manifest.generation.max_new_tokens, beams=manifest.generation.beams)
        cache = options.ort.engine_cache or _engine_cache(bundle.directory)
        cached = replace(options.ort, engine_cache=cache, longest_s=self.spec.whisper.seconds)
        sessions = {
            name: open_session(bundle.path(graph.file), graph.inputs, graph.outputs, cached)
            for name, graph in manifest.graphs.items()
        }
        self.whisper = WhisperEncoder(sessions["whisper"], self.spec.whisper)
        self.beats = BeatsEncoder(sessions["beats"])
        self.qformer = QFormer(sessions["qformer"])
        self.llm = _open_llm(bundle, options.llm)
        self._sessions = tuple(sessions.values())
        self._closed = False
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="earshot-beats")

    def hear(self, waveform: Waveform, short: bool = False) -> Heard:
        """Encodes one segment of at most `spec.whisper.seconds`.

        short: Whisper hears only as many windows as the segment fills, not its own padded one; less work, and less
        like what it was trained on.
        """
        n_positions = self.spec.positions_for(len(waveform)) if short else None
        if self._closed:
            raise RunError("the engine is closed: open the bundle again")
        start = time.perf_counter()
        (speech, whisper_ms), (audio, beats_ms) = self._encode(waveform, n_positions)
        encoders_ms = (time.perf_counter() - start) * 1e3
        tokens, qformer_ms = _timed(lambda: self.qformer.audio_tokens(speech, audio))
        return Heard(tokens, whisper_ms, beats_ms, encoders_ms, qformer_ms)

    def _encode(
        self, waveform: Waveform, n_positions: int | None
    ) -> tuple[tuple[OrtValue, float], tuple[OrtValue, float]]:
        """Speech and audio, and the milliseconds each took: side by side on a GPU, on a CPU in turn with all cores.

        There each graph fills the cores by itself, and its threads wait for each other at every node: two at once take
        up to a fifth longer than one after the other.
        """
        if self.whisper.session.provider == "cpu":
            heard = _timed(lambda: self.whisper.encode(waveform, n_positions))
            return heard, _timed(lambda: self.beats.encode(waveform))
        beside = self._pool.submit(_timed, lambda: self.beats.encode(waveform))
        return _timed(lambda: self.whisper.encode(waveform, n_positions)), beside.result()

    def segments(self, audio: Audio, mix: bool = False) -> Iterator[Segment]:
        """The clip in segments the model can hear, cut at pauses. Raises AudioError."""
        if isinstance(audio, Path | str):
            chunks = open_audio(audio, mix)
        elif isinstance(audio, tuple):
            chunks = iter((as_waveform(*audio, mix),))
        else:
            chunks = iter((as_waveform(audio, SAMPLE_RATE, mix),))
        return split_at_pauses(chunks, self.spec.whisper.seconds)

    def stream(
        self, audio: Audio, prompt_or_task: str, generation: Generation | None = None, mix: bool = False
    ) -> Iterator[AnswerEvent]:
        """Each segment's start, its text as it is decoded, a Final at its end. Raises InputError, RunError."""
        prompt = prompt_for(prompt_or_task)
        audible = False
        for segment in self.segments(audio, mix):
            if not segment.silent:
                audible = True
                alone = segment.last and segment.start_s == 0
                yield SegmentStarted(segment.start_s, segment.end_s, alone)
                yield from self._answer(segment, prompt, generation or self.defaults)
        if not audible:
            raise AudioError(f"{_name(audio)} is silent: check the recording, or the microphone that made it")

    def ask(self, audio: Audio, prompt_or_task: str, generation: Generation | None = None, mix: bool = False) -> Answer:
        """The whole answer. Raises InputError, RunError."""
        events = self.stream(audio, prompt_or_task, generation, mix)
        finals = tuple(event for event in events if isinstance(event, Final))
        return Answer("\n".join(f.text for f in finals if f.text), prompt_for(prompt_or_task), finals)

    def _answer(self, segment: Segment, prompt: str, generation: Generation) -> Iterator[Piece | Final]:
        heard = self.hear(segment.waveform)
        start = time.perf_counter()
        budget = token_budget(prompt, segment.end_s - segment.start_s) if generation.guard else None
        if budget is not None:
            generation = replace(generation, max_new_tokens=min(budget, generation.max_new_tokens))
        self.llm.prefill(heard.audio_tokens, prompt, generation)
        prefilled = time.perf_counter()
        ids: list[int] = []
        text = self.llm.detokenizer()
        stopped = None
        for token in self.llm.generate(generation):
            ids.append(token)
            if piece := text.add(token):
                yield Piece(piece)
            if generation.guard and (n_sound := sound_length(ids)) < len(ids):
                stopped = "loop"
                del ids[n_sound:]
                break
        else:
            stopped = "length" if len(ids) == generation.max_new_tokens else None
        if rest := text.finish():
            yield Piece(rest)
        decode_ms = (time.perf_counter() - prefilled) * 1e3
        prefill_ms = (prefilled - start) * 1e3
        timings = heard.timings(prefill_ms, decode_ms, len(ids))
        yield Final(segment.start_s, segment.end_s, self.llm.text(ids).strip(), tuple(ids), timings, prompt, stopped)

    def close(self) -> None:
        """Frees sessions, context and threads. Closing twice is fine."""
        self._closed = True
        self._pool.shutdown()
        self.llm.close()
        for session in self._sessions:
            session.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def load(bundle: Path | str | None = None, options: EngineOptions | None = None) -> Engine:
    """Opens a bundle, the demo by default. Raises BundleError, InputError, RunError."""
    return Engine(open_bundle(bundle), options or EngineOptions())


def _open_llm(bundle: Bundle, options: LlmOptions) -> Llm:
    info = bundle.manifest.llm
    adapter = bundle.path(info.adapter) if info.adapter else None
    return Llm(bundle.path(info.file), bundle.manifest, adapter, options)


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    """What the work gives, and the milliseconds it took."""
    start = time.perf_counter()
    result = work()
    return result, (time.perf_counter() - start) * 1e3


def _engine_cache(directory: Path) -> Path | None:
    """Where TensorRT keeps its engines: in the bundle, when it can be written."""
    return directory / "engines" if os.access(directory, os.W_OK) else None


def _name(audio: Audio) -> str:
    return str(audio) if isinstance(audio, Path | str) else "the clip"
