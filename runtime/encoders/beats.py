"""BEATs: waveform -> filter bank in numpy -> audio frames. Source: torchaudio's kaldi.py (docs/reference.md §1.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...models.audio import MIN_MODEL_SECONDS, SAMPLE_RATE, Waveform
from ...models.encoders.beats import (
    INPUT,
    fbank,
)

if TYPE_CHECKING:
    from onnxruntime import OrtValue

    from ..system.ort import Session


class BeatsEncoder:
    """waveform -> audio [1, n_tokens, d_model]."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def encode(self, waveform: Waveform) -> OrtValue:
        """Encode a clip, zero-padded to one second as SALMONN does; the result stays on the device.

        Raises RunError.
        """
        missing = int(MIN_MODEL_SECONDS * SAMPLE_RATE) - len(waveform)
        padded = np.pad(waveform, (0, missing)) if missing > 0 else waveform
        return self.session.run(**{INPUT: fbank(padded)})
