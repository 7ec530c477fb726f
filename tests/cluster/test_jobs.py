"""A job on workers that end, fail and come back: every clip is kept once, or named; nothing is tried for ever."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from auricle.models.errors import RunError
from auricle.runtime.cluster.jobs import MAX_TRIES, Captioned, Lost, Tally, work_through

CLIPS = [Path(f"{number:03}.wav") for number in range(40)]


class FakePool:
    """So many workers; `answer` says what becomes of the n-th try of a clip. Later clips end before earlier ones."""

    def __init__(self, n_workers: int, answer: Callable[[Path, int], Captioned | Lost]) -> None:
        self.idle = n_workers
        self.given: Counter[Path] = Counter()
        self._answer = answer
        self._busy: deque[Path] = deque()

    def give(self, clip: Path) -> None:
        assert self.idle > 0
        self.idle -= 1
        self.given[clip] += 1
        self._busy.append(clip)

    def wait(self) -> Sequence[Captioned | Lost]:
        if not self._busy:
            raise RunError("no worker is left: of none")
        self.idle += 1
        clip = self._busy.pop()
        return [self._answer(clip, self.given[clip])]


def done(clip: Path, _try: int = 1) -> Captioned:
    return Captioned(clip, (), 2.0)


def worked(pool: FakePool) -> tuple[Tally, list[Path]]:
    """The tally, and the clips in the order in which they were kept."""
    tally = Tally(len(CLIPS))
    kept: list[Path] = []
    work_through(CLIPS, pool, lambda result: kept.append(result.clip), tally)
    return tally, kept


@pytest.mark.parametrize("n_workers", [1, 3, 100])
def test_every_clip_is_kept_once(n_workers: int) -> None:
    pool = FakePool(n_workers, done)
    tally, kept = worked(pool)
    assert sorted(kept) == CLIPS and set(pool.given.values()) == {1}
    assert (tally.n_written, tally.n_done, tally.audio_s, tally.failed) == (40, 40, 80.0, {})


def test_a_clip_whose_worker_ended_is_tried_again() -> None:
    def answer(clip: Path, n: int) -> Captioned | Lost:
        return Lost(clip, "its worker ended") if clip == CLIPS[7] and n < MAX_TRIES else done(clip)

    pool = FakePool(2, answer)
    tally, kept = worked(pool)
    assert sorted(kept) == CLIPS and pool.given[CLIPS[7]] == MAX_TRIES
    assert (tally.n_written, tally.n_lost, tally.failed) == (40, MAX_TRIES - 1, {})


def test_a_clip_with_which_workers_always_end_is_named_and_left() -> None:
    def answer(clip: Path, _n: int) -> Captioned | Lost:
        return Lost(clip, "its worker ended") if clip == CLIPS[0] else done(clip)

    pool = FakePool(2, answer)
    tally, kept = worked(pool)
    assert sorted(kept) == CLIPS[1:] and pool.given[CLIPS[0]] == MAX_TRIES
    assert tally.failed == {CLIPS[0]: "its worker ended, 3 times"} and tally.n_done == 40


def test_a_faulty_clip_is_told_at_once() -> None:
    def answer(clip: Path, _n: int) -> Captioned:
        return Captioned(clip, (), 1.0, "there is nothing but silence") if clip == CLIPS[3] else done(clip)

    pool = FakePool(2, answer)
    tally, _ = worked(pool)
    assert pool.given[CLIPS[3]] == 1 and tally.failed == {CLIPS[3]: "there is nothing but silence"}
    assert tally.n_written == 39


def test_what_cannot_be_written_ends_the_job_and_the_tally_says_how_far_it_came() -> None:
    tally = Tally(len(CLIPS))
    kept: list[Path] = []

    def keep(result: Captioned) -> None:
        if len(kept) == 5:
            raise RunError("no room")
        kept.append(result.clip)

    with pytest.raises(RunError, match="no room"):
        work_through(CLIPS, FakePool(2, done), keep, tally)
    assert tally.n_written == 5 == tally.n_done


def test_without_workers_it_ends() -> None:
    with pytest.raises(RunError, match="no worker is left"):
        worked(FakePool(0, done))
