"""FastConformer of a SALM: waveform -> NeMo's log-mel features in numpy -> audio tokens.

Source: NeMo asr/parts/preprocessing/features.py (docs/reference.md §7.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...models.audio import SAMPLE_RATE, Waveform
from ...models.encoders.fastconformer import (
    INPUT,
    LEAST_SAMPLES,
    FastConformerSpec,
    Featurizer,
    features,
)
from ...models.errors import AudioError

if TYPE_CHECKING:
    from ..system.ort import Session


class FastConformerEncoder:
    """waveform -> audio_tokens [n_tokens, d_llm]."""

    def __init__(self, session: Session, spec: FastConformerSpec, featurizer: Featurizer) -> None:
        self.session = session
        self.spec = spec
        self.featurizer = featurizer

    def audio_tokens(self, waveform: Waveform) -> NDArray[np.float32]:
        """Encode a clip of at most spec.seconds and the tail that joined it, less than LEAST_SAMPLES.

        A clip of less than LEAST_SAMPLES is padded with silence to that. Raises AudioError for one that is too long,
        RunError when the graph fails.
        """
        if len(waveform) >= self.spec.n_samples + LEAST_SAMPLES:
            raise AudioError(
                f"the clip lasts {len(waveform) / SAMPLE_RATE:.1f} s where one pass takes {self.spec.seconds:g} s: "
                "cut it into segments"
            )
        return self.session.run(**{INPUT: features(waveform, self.featurizer)}).numpy()[0]
