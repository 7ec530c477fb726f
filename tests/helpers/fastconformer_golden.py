"""The golden SALM's FastConformer, for the tests of its front end, its graph and its export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from auricle.models.encoders.fastconformer import FastConformerSpec, Featurizer

CHECKPOINT = Path(__file__).parents[1] / "golden" / "salm-tiny" / "checkpoint"
CLIPS = ("jfk_11s", "noise_1s", "tone_40s")
TINY = FastConformerSpec(64, 2, 4, 256, 9, 16, d_llm=64)
TABLES = Featurizer(
    np.random.default_rng(0).uniform(0, 0.1, (128, 257)).astype(np.float32),
    np.hanning(400).astype(np.float32),
)


def golden_clip(golden: Path, name: str) -> dict[str, np.ndarray]:
    """One golden clip: name -> array; `features` without the frame that NeMo masks."""
    with np.load(golden / "salm-tiny" / f"{name}.npz") as arrays:
        found = {name: arrays[name] for name in arrays.files}
    return {**found, "features": found["features"][:, : int(found["n_features"])]}


def load(directory: Path) -> Any:
    from auricle.export.encoders.fastconformer import load_fastconformer
    from auricle.export.formats.checkpoint import Weights, read_json

    return load_fastconformer(read_json(directory / "config.json"), Weights(directory), directory)
