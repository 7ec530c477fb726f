"""SALMONN's encoders: a waveform -> audio tokens, by Whisper and BEATs side by side and the Q-Former behind them.

log_mel -> whisper ┐
fbank   -> beats   ┴-> qformer -> audio tokens
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...models.audio import Waveform
from ...models.encoders import beats, qformer, whisper
from ...models.families.salmonn import SalmonnSpec
from ..encoders.base import EncodedSegment, timed
from ..encoders.beats import BeatsEncoder
from ..encoders.qformer import QFormer
from ..encoders.whisper import WhisperEncoder
from ..system.ort import Session

if TYPE_CHECKING:
    from onnxruntime import OrtValue


class SalmonnEncoders:
    """See Encoders."""

    def __init__(self, sessions: Mapping[str, Session], spec: SalmonnSpec, _directory: Path) -> None:
        self.spec = spec
        self.whisper = WhisperEncoder(sessions["whisper"], spec.whisper)
        self.beats = BeatsEncoder(sessions["beats"])
        self.qformer = QFormer(sessions["qformer"])
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="auricle-beats")

    def encode(self, waveform: Waveform, short: bool | None = None) -> EncodedSegment:
        """short: Whisper encodes as many windows as the segment fills, not its own padded one; None: as trained."""
        n_positions = self.spec.heard_positions(len(waveform), short)
        start = time.perf_counter()
        (speech, whisper_ms), (audio, beats_ms) = self._speech_and_audio(waveform, n_positions)
        tokens, qformer_ms = timed(lambda: self.qformer.audio_tokens(speech, audio))
        encoders_ms = (time.perf_counter() - start) * 1e3
        return EncodedSegment(tokens, {"whisper": whisper_ms, "beats": beats_ms, "qformer": qformer_ms}, encoders_ms)

    def stages(self, waveform: Waveform) -> dict[str, NDArray[np.float32]]:
        """speech, audio and audio_tokens."""
        speech = self.whisper.encode(waveform, self.spec.heard_positions(len(waveform)))
        audio = self.beats.encode(waveform)
        tokens = self.qformer.audio_tokens(speech, audio)
        return {whisper.OUTPUT: speech.numpy(), beats.OUTPUT: audio.numpy(), qformer.OUTPUT: tokens}

    def close(self) -> None:
        """Ends the second thread."""
        self._pool.shutdown()

    def _speech_and_audio(
        self, waveform: Waveform, n_positions: int | None
    ) -> tuple[tuple[OrtValue, float], tuple[OrtValue, float]]:
        """Speech and audio, and the milliseconds each took: side by side on a GPU, on a CPU in turn with all cores.

        There each graph fills the cores by itself, and its threads wait for each other at every node: two at once take
        up to a fifth longer than one after the other.
        """
        if self.whisper.session.provider == "cpu":
            speech = timed(lambda: self.whisper.encode(waveform, n_positions))
            return speech, timed(lambda: self.beats.encode(waveform))
        beside = self._pool.submit(timed, lambda: self.beats.encode(waveform))
        return timed(lambda: self.whisper.encode(waveform, n_positions)), beside.result()
