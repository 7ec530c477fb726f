"""What the bench takes for the truth about word times: phones and their ends -> words."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from auricle.bench.__main__ import main
from auricle.bench.quality.support_texts import drawn
from auricle.bench.quality.word_times import word_spans
from auricle.models.corpus.wordnet import WORDNET
from auricle.models.errors import InputError

PHONES = [("pau", 0.2), ("t", 0.3), ("ax", 0.4), ("pau", 1.4), ("b", 1.5), ("iy", 1.75), ("pau", 2.0)]


def test_words_are_their_phones_without_the_pauses_between_them() -> None:
    assert word_spans(PHONES, [2, 2]) == [(pytest.approx(0.2), 0.4), (1.4, 1.75)]


@pytest.mark.parametrize("counts", [[2, 1], [2, 3], [4, 0]])
def test_other_numbers_of_phones_are_no_truth(counts: list[int]) -> None:
    assert word_spans(PHONES, counts) is None


@pytest.mark.parametrize("command", ["word-times", "support"])
def test_what_cannot_be_done_is_said_before_anything_is_heard(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--picture", str(tmp_path / "none" / "plot.png")]) == 2
    told = capsys.readouterr().err
    assert "give a file in a directory that is there" in told and told.count("\n") == 1


@pytest.mark.skipif(not WORDNET.is_dir(), reason="WordNet is not installed: wordnet-base")
def test_more_sentences_than_there_are_is_a_sentence() -> None:
    with pytest.raises(InputError, match="give a smaller --clips"):
        drawn(10**6, random.Random(1))
