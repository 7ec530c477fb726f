"""SALM's encoders: a waveform -> audio tokens, by one graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...models.audio import Waveform
from ...models.encoders.fastconformer import FEATURIZER, OUTPUT, read_featurizer
from ...models.families.salm import SalmSpec
from ..encoders.base import EncodedSegment, timed
from ..encoders.fastconformer import FastConformerEncoder
from ..system.ort import Session


class SalmEncoders:
    """See Encoders."""

    def __init__(self, sessions: Mapping[str, Session], spec: SalmSpec, directory: Path) -> None:
        featurizer = read_featurizer(directory / FEATURIZER, spec.fastconformer.n_mels)
        self.fastconformer = FastConformerEncoder(sessions["fastconformer"], spec.fastconformer, featurizer)

    def encode(self, waveform: Waveform, short: bool | None = None) -> EncodedSegment:
        """A segment is never padded here: `short` changes nothing."""
        tokens, ms = timed(lambda: self.fastconformer.audio_tokens(waveform))
        return EncodedSegment(tokens, {"fastconformer": ms}, ms)

    def stages(self, waveform: Waveform) -> dict[str, NDArray[np.float32]]:
        """audio_tokens alone."""
        return {OUTPUT: self.fastconformer.audio_tokens(waveform)}

    def close(self) -> None:
        """Has nothing of its own to free."""
