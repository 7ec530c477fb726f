"""The kept KV prefix: what of the next question the cache holds already."""

from __future__ import annotations

import pytest
from auricle.runtime.llm.kv_prefix import KvPrefix


def test_leading_ids_are_kept_and_audio_behind_the_same_ids_alone() -> None:
    prefix = KvPrefix()
    assert not prefix and prefix.n_ids_kept((1, 2)) == 0 and prefix.n_audio_kept((), 5) == 0
    prefix.hold([1, 2, 3], n_audio_tokens=4)
    assert prefix
    assert [prefix.n_ids_kept(ids) for ids in ((1, 2, 3), (1, 2), (1, 2, 3, 4), (1, 9, 3), (9,), ())] == [
        3,
        2,
        3,
        1,
        0,
        0,
    ]
    assert prefix.n_audio_kept([1, 2, 3], 3) == 3


@pytest.mark.parametrize(("ids", "n_same", "n_kept"), [((1, 2), 9, 4), ((1,), 9, 0), ((1, 2, 3), 9, 0), ((1, 2), 0, 0)])
def test_audio_tokens_are_kept_as_far_as_they_are_there_and_the_same(
    ids: tuple[int, ...], n_same: int, n_kept: int
) -> None:
    prefix = KvPrefix()
    prefix.hold((1, 2), n_audio_tokens=4)
    assert prefix.n_audio_kept(ids, n_same) == n_kept
    prefix.clear()
    assert not prefix and prefix.n_audio_kept(ids, n_same) == 0 and prefix.n_ids_kept(ids) == 0
