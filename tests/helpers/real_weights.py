"""Trained weights that `make real-weights` fetched, for tests that say by name what they are skipped for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

PLACE = Path(__file__).parents[2] / "build" / "real-weights"


@dataclass(frozen=True)
class RealWeights:
    """One model directory."""

    name: str

    @property
    def folder(self) -> Path:
        return PLACE / self.name

    @property
    def needed(self) -> pytest.MarkDecorator:
        """Skips a test where the weights are not there."""
        return pytest.mark.skipif(not self.folder.is_dir(), reason=f"{self.name} is not there: make real-weights")


TINY_EN = RealWeights("whisper-tiny.en")
BASE = RealWeights("whisper-base")
SMOLLM2 = RealWeights("smollm2-135m-instruct")
