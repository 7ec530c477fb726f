"""What the bench takes for the truth about word times: phones and their ends -> words."""

from __future__ import annotations

import pytest
from auricle.bench.quality.word_times import word_spans

PHONES = [("pau", 0.2), ("t", 0.3), ("ax", 0.4), ("pau", 1.4), ("b", 1.5), ("iy", 1.75), ("pau", 2.0)]


def test_words_are_their_phones_without_the_pauses_between_them() -> None:
    assert word_spans(PHONES, [2, 2]) == [(pytest.approx(0.2), 0.4), (1.4, 1.75)]


@pytest.mark.parametrize("counts", [[2, 1], [2, 3], [4, 0]])
def test_other_numbers_of_phones_are_no_truth(counts: list[int]) -> None:
    assert word_spans(PHONES, counts) is None
