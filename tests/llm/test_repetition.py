"""The repetition guard: loops end, speech that repeats itself does not."""

from __future__ import annotations

import pytest
from auricle.models.families.salmonn import TASKS, TRANSCRIPTIONS
from auricle.models.prompt import token_budget
from auricle.runtime.llm.stopping import sound_length
from hypothesis import given
from hypothesis import strategies as st

IDS = st.lists(st.integers(3, 500), min_size=1, max_size=24)


@given(st.lists(st.integers(3, 500), max_size=30), IDS)
def test_a_loop_is_cut_behind_its_first_copy(start: list[int], unit: list[int]) -> None:
    """Whatever was said before, and whatever is repeated: the first copy stays, once the loop is long enough."""
    ids = [*start, *unit * 24]
    kept = sound_length(ids)
    assert kept < len(ids)
    assert ids[:kept] == [*start, *unit * 24][:kept] and kept <= len(start) + len(unit) * 24 - 18 + len(unit)


@given(st.lists(st.integers(3, 500), unique=True, max_size=200))
def test_what_does_not_repeat_is_kept(ids: list[int]) -> None:
    assert sound_length(ids) == len(ids)


@pytest.mark.parametrize("said", ["seven seven seven seven", "no no no no no no", "very very very good"])
def test_speech_that_repeats_words_is_no_loop(said: str) -> None:
    ids = [len(word) for word in said.split()]
    assert sound_length(ids) == len(ids)


SPEECH = [TASKS[name] for name in TRANSCRIPTIONS]


def test_a_transcript_has_no_more_words_than_can_be_spoken() -> None:
    assert token_budget(TASKS["asr"], SPEECH, 1.0) == 28
    assert token_budget(TASKS["asr"], SPEECH, 30.0) == 376
    assert token_budget(TASKS["audiocaption"], SPEECH, 1.0) is None
