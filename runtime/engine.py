"""One model, opened: waveform -> encoders side by side -> audio tokens -> language model -> words.

segment (no longer than the model's window)
  -> log_mel -> whisper ┐
  -> fbank   -> beats   ┴-> qformer -> audio tokens -> llm -> Piece, Piece, ... Final
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..models.audio import SAMPLE_RATE, Waveform
from ..models.errors import AudioError
from ..models.salmonn import prompt_for
from .audio import as_waveform, open_audio
from .beats import BeatsEncoder
from .bundle import Bundle, open_bundle
from .events import Final, Piece, Timings
from .llm import Llm, LlmOptions
from .ort import OrtOptions, open_session
from .qformer import QFormer
from .sampling import Generation
from .segments import Segment, split_at_pauses
from .whisper import WhisperEncoder

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
    encoders_ms: float
    qformer_ms: float


class Engine:
    """An opened bundle. Close it, or use it as a context manager; one thread at a time."""

    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        manifest = bundle.manifest
        self.bundle, self.spec = bundle, manifest.spec
        self.defaults = Generation(max_new_tokens=manifest.generation.max_new_tokens, beams=manifest.generation.beams)
        cached = replace(options.ort, engine_cache=options.ort.engine_cache or _engine_cache(bundle.directory))
        sessions = {
            name: open_session(bundle.path(graph.file), graph.inputs, graph.outputs, cached)
            for name, graph in manifest.graphs.items()
        }
        self.whisper = WhisperEncoder(sessions["whisper"], self.spec.whisper)
        self.beats = BeatsEncoder(sessions["beats"])
        self.qformer = QFormer(sessions["qformer"])
        self.llm = _open_llm(bundle, options.llm)
        self._sessions = tuple(sessions.values())
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="earshot-beats")

    def hear(self, waveform: Waveform) -> Heard:
        """Encodes one segment of at most `spec.whisper.seconds`; the two encoders run side by side."""
        start = time.perf_counter()
        audio = self._pool.submit(self.beats.encode, waveform)
        speech = self.whisper.encode(waveform)
        heard = audio.result()
        encoded = time.perf_counter()
        tokens = self.qformer.audio_tokens(speech, heard)
        return Heard(tokens, (encoded - start) * 1e3, (time.perf_counter() - encoded) * 1e3)

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
    ) -> Iterator[Piece | Final]:
        """Pieces of text as they are decoded, a Final at each segment's end. Raises InputError, RunError."""
        prompt = prompt_for(prompt_or_task)
        audible = False
        for segment in self.segments(audio, mix):
            if not segment.silent:
                audible = True
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
        self.llm.prefill(heard.audio_tokens, prompt, generation)
        prefilled = time.perf_counter()
        ids: list[int] = []
        text = self.llm.detokenizer()
        said = ""
        for token in self.llm.generate(generation):
            ids.append(token)
            if piece := text.add(token):
                said += piece
                yield Piece(piece)
        if rest := text.finish():
            said += rest
            yield Piece(rest)
        decode_ms = (time.perf_counter() - prefilled) * 1e3
        prefill_ms = (prefilled - start) * 1e3
        timings = Timings(heard.encoders_ms, heard.qformer_ms, prefill_ms, decode_ms, len(heard.audio_tokens), len(ids))
        yield Final(segment.start_s, segment.end_s, said.strip(), tuple(ids), timings)

    def close(self) -> None:
        """Frees sessions, context and threads. Closing twice is fine."""
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


def _engine_cache(directory: Path) -> Path | None:
    """Where TensorRT keeps its engines: in the bundle, when it can be written."""
    return directory / "engines" if os.access(directory, os.W_OK) else None


def _name(audio: Audio) -> str:
    return str(audio) if isinstance(audio, Path | str) else "the clip"
