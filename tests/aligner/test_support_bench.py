"""The bench of support: its wrong texts, its regression, the area under its curve."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from auricle.bench.quality.support import Judged, area, fit
from auricle.bench.quality.support_texts import RIGHT, WRONG, sentences, wrong_texts
from auricle.models.errors import InputError
from auricle.runtime.aligner.support import Evidence
from hypothesis import given
from hypothesis import strategies as st

SAID = "the weather will be cold until thursday"
OTHER = "she wrote three letters and sent none"


@given(seed=st.integers(0, 999))
def test_wrong_texts_are_wrong_and_begin_or_end_right(seed: int) -> None:
    texts = wrong_texts(SAID, OTHER, random.Random(seed))
    assert tuple(texts) == WRONG and texts["other"] == OTHER
    assert len({SAID, *texts.values()}) == 1 + len(WRONG)
    assert texts["loop"].startswith(f"{SAID} ") and {*texts["loop"].split()} == {*SAID.split()}
    assert texts["added"].startswith(f"{SAID} she wrote")
    exchanged = texts["exchanged"].split()
    assert (exchanged[0] == "the") != (exchanged[-1] == "thursday")


def test_sentences_are_wordnets_examples(tmp_path: Path) -> None:
    gloss = '00 | to speak; "Don\'t say a word, please!"; "he said 3 words to her"; "too short"\n'
    (tmp_path / "data.verb").write_text(gloss, encoding="ascii")
    assert sentences(tmp_path) == ["don't say a word please"]
    with pytest.raises(InputError, match="wordnet-base"):
        sentences(tmp_path / "nowhere")


def test_the_regression_finds_what_tells_right_from_wrong() -> None:
    rng = np.random.default_rng(0)
    rows = [
        Judged("calibrated", n, RIGHT if n % 4 == 0 else "loop", Evidence(float(mean), float(worst)))
        for n in range(400)
        for worst, mean in [rng.normal((-2, -0.5) if n % 4 == 0 else (-8, -0.5), 1)]
    ]
    mean_weight, worst_weight, bias = fit(rows)
    assert worst_weight > 1 > abs(mean_weight)
    assert -6 < -(bias - 0.5 * mean_weight) / worst_weight < -4  # as likely one as the other between the two


def test_the_area_is_how_often_right_stands_above_wrong() -> None:
    assert area([3.0, 2.0], [1.0, 0.0]) == 1
    assert area([1.0], [1.0, 0.0, 2.0, 3.0]) == pytest.approx(0.375)
