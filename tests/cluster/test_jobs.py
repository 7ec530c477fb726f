"""A job on workers that end, fail and come back: every clip is kept once, or named; nothing is tried for ever."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from auricle.models.errors import RunError
from auricle.runtime.cluster.jobs import MAX_TRIES, Captioned, Long, Lost, Tally, Task, work_through
from auricle.runtime.cluster.parts import Part
from auricle.runtime.output.subtitles import TimedText

CLIPS = [Path(f"{number:03}.wav") for number in range(40)]


class FakePool:
    """So many workers; `answer` says what becomes of the n-th try of a clip. Later clips end before earlier ones."""

    def __init__(self, n_workers: int, answer: Callable[[Task, int], Captioned | Long | Lost]) -> None:
        self.idle = n_workers
        self.given: Counter[Task] = Counter()
        self._answer = answer
        self._busy: deque[Task] = deque()

    def give(self, task: Task) -> None:
        assert self.idle > 0
        self.idle -= 1
        self.given[task] += 1
        self._busy.append(task)

    def wait(self) -> Sequence[Captioned | Long | Lost]:
        if not self._busy:
            raise RunError("no worker is left: of none")
        self.idle += 1
        task = self._busy.pop()
        return [self._answer(task, self.given[task])]


def done(task: Task, _try: int = 1) -> Captioned:
    return Captioned(task, (), 2.0)


def worked(pool: FakePool) -> tuple[Tally, list[Path]]:
    """The tally, and the clips in the order in which they were kept."""
    tally = Tally(len(CLIPS))
    kept: list[Path] = []
    work_through(CLIPS, pool, lambda result: kept.append(result.task.clip), tally)
    return tally, kept


@pytest.mark.parametrize("n_workers", [1, 3, 100])
def test_every_clip_is_kept_once(n_workers: int) -> None:
    pool = FakePool(n_workers, done)
    tally, kept = worked(pool)
    assert sorted(kept) == CLIPS and set(pool.given.values()) == {1}
    assert (tally.n_written, tally.n_done, tally.audio_s, tally.failed) == (40, 40, 80.0, {})


def test_a_clip_whose_worker_ended_is_tried_again() -> None:
    def answer(task: Task, n: int) -> Captioned | Lost:
        return Lost(task, "its worker ended") if task.clip == CLIPS[7] and n < MAX_TRIES else done(task)

    pool = FakePool(2, answer)
    tally, kept = worked(pool)
    assert sorted(kept) == CLIPS and pool.given[Task(CLIPS[7])] == MAX_TRIES
    assert (tally.n_written, tally.n_lost, tally.failed) == (40, MAX_TRIES - 1, {})


def test_a_clip_with_which_workers_always_end_is_named_and_left() -> None:
    def answer(task: Task, _n: int) -> Captioned | Lost:
        return Lost(task, "its worker ended") if task.clip == CLIPS[0] else done(task)

    pool = FakePool(2, answer)
    tally, kept = worked(pool)
    assert sorted(kept) == CLIPS[1:] and pool.given[Task(CLIPS[0])] == MAX_TRIES
    assert tally.failed == {CLIPS[0]: "its worker ended, 3 times"} and tally.n_done == 40


def test_a_faulty_clip_is_told_at_once() -> None:
    def answer(task: Task, _n: int) -> Captioned:
        return Captioned(task, (), 1.0, "there is nothing but silence") if task.clip == CLIPS[3] else done(task)

    pool = FakePool(2, answer)
    tally, _ = worked(pool)
    assert pool.given[Task(CLIPS[3])] == 1 and tally.failed == {CLIPS[3]: "there is nothing but silence"}
    assert tally.n_written == 39


PARTS = tuple(Part(10 * n, 10 * n + 10 if n < 3 else None, 600.0 * n) for n in range(4))


def test_a_long_clips_parts_are_joined_in_their_order() -> None:
    """They end in any order, one is tried again, and the clip is kept once, when all are there."""

    def answer(task: Task, n: int) -> Captioned | Long | Lost:
        if task.clip != CLIPS[4]:
            return done(task)
        if task.part is None:
            return Long(task.clip, PARTS)
        if task.part == PARTS[1] and n == 1:
            return Lost(task, "its worker ended")
        row = TimedText(task.part.start_s, task.part.start_s + 1, f"part {task.part.first}")
        return Captioned(task, (row,), 600.0, remarks=(f"{task.part.first}",))

    pool = FakePool(3, answer)
    tally = Tally(len(CLIPS))
    kept: dict[Path, Captioned] = {}
    work_through(CLIPS, pool, lambda result: kept.setdefault(result.task.clip, result) and None, tally)
    assert [row.text for row in kept[CLIPS[4]].rows] == [f"part {part.first}" for part in PARTS]
    assert kept[CLIPS[4]].remarks == ("0", "10", "20", "30") and kept[CLIPS[4]].error is None
    assert len(kept) == 40 and pool.given[Task(CLIPS[4], PARTS[1])] == 2 and pool.given[Task(CLIPS[4], PARTS[2])] == 1
    assert (tally.n_written, tally.n_lost, tally.audio_s) == (40, 1, 39 * 2.0 + 4 * 600.0)


def test_of_a_long_clip_with_a_part_that_fails_the_others_are_kept_and_it_is_named() -> None:
    def answer(task: Task, _n: int) -> Captioned | Long | Lost:
        if task.part is None:
            return Long(task.clip, PARTS)
        if task.part == PARTS[2]:
            return Lost(task, "its worker ended")
        return Captioned(task, (TimedText(task.part.start_s, task.part.start_s + 1, "heard"),), 600.0)

    tally = Tally(1)
    kept: list[Captioned] = []
    work_through(CLIPS[:1], FakePool(2, answer), kept.append, tally)
    (result,) = kept
    assert [row.start_s for row in result.rows] == [0.0, 600.0, 1800.0]
    assert tally.failed == {CLIPS[0]: "its worker ended, 3 times"} and tally.n_written == 0 and tally.n_done == 1


def test_what_cannot_be_written_ends_the_job_and_the_tally_says_how_far_it_came() -> None:
    tally = Tally(len(CLIPS))
    kept: list[Path] = []

    def keep(result: Captioned) -> None:
        if len(kept) == 5:
            raise RunError("no room")
        kept.append(result.task.clip)

    with pytest.raises(RunError, match="no room"):
        work_through(CLIPS, FakePool(2, done), keep, tally)
    assert tally.n_written == 5 == tally.n_done


def test_without_workers_it_ends() -> None:
    with pytest.raises(RunError, match="no worker is left"):
        worked(FakePool(0, done))
