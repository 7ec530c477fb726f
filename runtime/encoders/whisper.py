"""Whisper: waveform -> log-mel in numpy -> speech frames. Source: openai/whisper audio.py (docs/reference.md §1.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...models.audio import Waveform
from ...models.encoders.whisper import INPUT, WhisperSpec, log_mel

if TYPE_CHECKING:
    from onnxruntime import OrtValue

    from ..system.ort import Session


class WhisperEncoder:
    """waveform -> speech [1, n_positions, d_model]."""

    def __init__(self, session: Session, spec: WhisperSpec) -> None:
        self.session = session
        self.spec = spec

    def encode(self, waveform: Waveform, n_positions: int | None = None) -> OrtValue:
        """Encode at most spec.seconds; the result stays on the session's device. Raises RunError.

        n_positions: how much of the window to encode, in frames of 20 ms; all of it when None, as Whisper was trained.
        """
        n_frames = None if n_positions is None else 2 * n_positions
        return self.session.run(**{INPUT: log_mel(waveform, self.spec, n_frames)})
