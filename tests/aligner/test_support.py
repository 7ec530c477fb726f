"""Support: what tells a text that was said from one that nobody said, and what each command makes of it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from auricle.models.aligner import VOCABULARY_FILE
from auricle.runtime.aligner.aligner import Aligner
from auricle.runtime.aligner.support import LEAST_OWN, Evidence, as_sentence, evidence, support_of
from auricle.runtime.audio.decode import read_audio
from auricle.runtime.system.ort import OrtOptions
from real_weights import TINY_EN


def test_evidence_is_the_mean_against_the_own_text_and_the_worst_word() -> None:
    """Words of two tokens and one, and the end."""
    given = np.array([-0.5, -1.5, -9.0, -1.0])
    likeliest = np.array([-0.5, -0.5, -1.0, -0.2])
    found = evidence(given, likeliest, [2, 1], [-0.25, -0.75])
    assert (found.mean, found.worst) == (pytest.approx(-2.5), pytest.approx(-8.0))
    assert evidence(given[2:], likeliest[2:], [1], [-1.0]).worst == pytest.approx(-8.0)


def test_a_guess_at_noise_is_no_measure() -> None:
    given = np.array([-5.0, -5.0, -5.0])
    assert evidence(given, given, [1, 1], [-4.5, -5.5]).mean == pytest.approx(-5 - LEAST_OWN)


def test_support_lies_between_0_and_1_and_rises_with_both() -> None:
    means = (-1e6, -8.0, -2.0, -0.5, 0.0)
    for first, second in pairwise(means):
        assert 0 <= support_of(Evidence(first, -2.0)) <= support_of(Evidence(second, -2.0)) <= 1
        assert 0 <= support_of(Evidence(-0.5, first)) <= support_of(Evidence(-0.5, second)) <= 1
    assert support_of(Evidence(0.0, -1.0)) > 0.9 and support_of(Evidence(-6.0, -11.0)) < 0.01


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("turn on  the light", "Turn on the light."),
        ("TURN ON THE LIGHT", "Turn on the light."),
        ("Where is Anna?", "Where is Anna?"),
        ("I", "I."),
        ("it is 3 o'clock...", "It is 3 o'clock..."),
    ],
)
def test_spelling_is_not_counted_against_a_text(text: str, sentence: str) -> None:
    assert as_sentence(text) == sentence


@TINY_EN.needed
def test_trained_weights_tell_what_was_said(tmp_path: Path, golden: Path) -> None:
    """A president's sentence; its end looped, a clause exchanged, one added behind, and another text."""
    pytest.importorskip("torch")
    from auricle.export.aligner.part import AlignerPart

    part = AlignerPart(TINY_EN.folder)
    for name in part.spec.graphs:
        part.write(name, tmp_path / f"{name}.onnx")
    part.write_vocabulary(tmp_path / VOCABULARY_FILE)
    bundle: Any = SimpleNamespace(manifest=SimpleNamespace(aligner=part.spec), path=lambda name: tmp_path / name)
    aligner = Aligner(bundle, OrtOptions())
    clip = read_audio(golden / "jfk.wav")
    said = "and so my fellow americans ask not what your country can do for you ask what you can do for your country"
    wrong = (
        f"{said} for your country for your country",
        said.replace("ask what you can do for your country", "and the train leaves at seven"),
        f"{said} thank you for watching",
        "turn off the lamp in the kitchen and lock the front door",
    )
    right, *others = (support_of(found) for found in aligner.evidence(clip, [said, *wrong]) if found is not None)
    assert right > 0.8 and len(others) == len(wrong) and max(others) < 0.4
    assert aligner.support(clip, said) == pytest.approx(right, abs=0.02)
    assert aligner.support(clip, " ") is None and aligner.support(clip, "word " * 500) == 0
    aligner.close()
