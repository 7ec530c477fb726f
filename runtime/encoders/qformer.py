"""Window-level Q-Former: the frames of two encoders -> audio tokens for the language model (docs/reference.md §3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...models.encoders.qformer import AUDIO_INPUT, SPEECH_INPUT

if TYPE_CHECKING:
    from onnxruntime import OrtValue

    from ..system.ort import Session


class QFormer:
    """speech [1, n_positions, d] and audio [1, n_tokens, d] -> audio_tokens [n_windows, d_llm]."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def audio_tokens(
        self, speech: OrtValue | NDArray[np.float32], audio: OrtValue | NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """One token per window of speech, whatever the clip's length: the only values to leave the device."""
        return self.session.run(**{SPEECH_INPUT: speech, AUDIO_INPUT: audio}).numpy()[0]
