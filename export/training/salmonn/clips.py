"""Clips of the demo on a real encoder: its own, its sentences by a neural voice, open English, which it is to doubt.

The same voices speak both, so that what tells them apart is what is said.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ....models.corpus.examples import Clip, training_clip
from ..small.corpus import ClipMaker, Texts
from ..small.voices import Piper

_OWN = 0.68  # of the clips; half of the others are the demo's sentences, half open English
_KINDS = {"commands": 0.5, "open": 0.5}


@dataclass(frozen=True)
class WiderClips:
    """Draws clip number n: the same every time."""

    piper: Path
    """The neural voice's .onnx."""

    def __call__(self, number: int) -> Clip:
        if random.Random(f"wider {number}").random() < _OWN:
            return training_clip(number)
        made = _maker(self.piper).clip(number)
        return Clip(made.waveform, made.utterance, sound=made.sound)


@cache
def _maker(piper: Path) -> ClipMaker:
    return ClipMaker(Texts.load(None, held_out=False), Piper(piper), _KINDS)
