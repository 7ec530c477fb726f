"""`auricle-bench demo-eval`: where it sets the threshold of avg_logprob."""

from __future__ import annotations

import pytest

pytest.importorskip("jiwer", reason="the bench is not installed")
from auricle.bench.quality.demo_eval import threshold


def test_the_threshold_is_passed_by_19_of_20_right_transcripts() -> None:
    sure = [-n / 100 for n in range(100)]
    assert sum(each >= threshold(sure) for each in sure) == 95
    assert threshold([]) == 0.0
