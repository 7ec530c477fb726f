"""Jobs: clips and a pool of workers -> every clip captioned once, or named with the reason why not.

waiting ─► give ─► worker ─► Captioned ─► kept; of a part: when all parts of its clip are there, joined in their order
   ▲                  ├────► Long: its parts, before all that waits
   ├──────────────────┘
   └───────────────── Lost, with its worker or without: tried again behind the others, MAX_TRIES in all
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..output.subtitles import TimedText
from .parts import Part

MAX_TRIES = 3
"""Of a clip with which workers end or fail; what is wrong with the clip itself is told at once."""


@dataclass(frozen=True)
class Task:
    """What a worker is given."""

    clip: Path
    part: Part | None = None
    """None: the whole clip, or its parts where it is long."""


@dataclass(frozen=True)
class Long:
    """A clip that is more than one worker's."""

    clip: Path
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Captioned:
    """What a worker made of a clip, or of a part of one."""

    task: Task
    rows: tuple[TimedText, ...]
    audio_s: float
    """Up to the end of the last segment that is not silent; of a part from its beginning."""
    error: str | None = None
    """Why the clip cannot be heard to its end."""
    remarks: tuple[str, ...] = ()
    """What its reader must know about single answers."""
    cut: bool = False
    """Some answer is not the JSON that its schema asks for."""


@dataclass(frozen=True)
class Lost:
    """What a worker was given, and did not answer for."""

    task: Task
    reason: str


class Pool(Protocol):
    """Workers, each with one task at a time."""

    @property
    def idle(self) -> int:
        """How many wait for a task."""
        ...

    def give(self, task: Task) -> None:
        """To an idle one."""
        ...

    def wait(self) -> Sequence[Captioned | Long | Lost]:
        """Until something happens: a task is done, or a worker became idle. Raises RunError when no worker is left."""
        ...


@dataclass
class Tally:
    """How far a job is."""

    n_clips: int
    n_skipped: int = 0
    """Their captions were there already."""
    n_written: int = 0
    n_lost: int = 0
    """Tries that ended without an answer."""
    n_cut: int = 0
    audio_s: float = 0.0
    failed: dict[Path, str] = field(default_factory=dict[Path, str])

    @property
    def n_done(self) -> int:
        """Clips that nothing more will happen to in this run."""
        return self.n_skipped + self.n_written + len(self.failed)


def work_through(
    clips: Sequence[Path],
    pool: Pool,
    keep: Callable[[Captioned], None],
    tally: Tally,
    show: Callable[[], None] = lambda: None,
) -> None:
    """Gives every clip to a worker until each is kept or failed. keep: writes captions; what it raises ends the job."""
    waiting = deque(Task(clip) for clip in clips)
    tries: Counter[Task] = Counter()
    joins: dict[Path, _Join] = {}
    n_given = 0

    def done(result: Captioned) -> None:
        tally.audio_s += result.audio_s
        if result.task.part is None:
            _keep(result, keep, tally)
        elif joined := joins[result.task.clip].add(result):
            _keep(joined, keep, tally)

    while waiting or n_given:
        while waiting and pool.idle:
            pool.give(waiting.popleft())
            n_given += 1
        for result in pool.wait():
            n_given -= 1
            if isinstance(result, Captioned):
                done(result)
            elif isinstance(result, Long):
                joins[result.clip] = _Join(result)
                waiting.extendleft(Task(result.clip, part) for part in reversed(result.parts))
            else:
                tally.n_lost += 1
                tries[result.task] += 1
                if tries[result.task] < MAX_TRIES:
                    waiting.append(result.task)
                else:
                    done(Captioned(result.task, (), 0.0, f"{result.reason}, {MAX_TRIES} times"))
        show()


class _Join:
    """The parts of a clip that are done."""

    def __init__(self, long: Long) -> None:
        self._long = long
        self._done: dict[Part, Captioned] = {}

    def add(self, result: Captioned) -> Captioned | None:
        """One more; the whole clip with the last of them."""
        assert result.task.part is not None
        self._done[result.task.part] = result
        if len(self._done) < len(self._long.parts):
            return None
        parts = [self._done[part] for part in self._long.parts]
        return Captioned(
            Task(self._long.clip),
            tuple(row for part in parts for row in part.rows),
            sum(part.audio_s for part in parts),
            next((part.error for part in parts if part.error is not None), None),
            tuple(remark for part in parts for remark in part.remarks),
            any(part.cut for part in parts),
        )


def _keep(result: Captioned, keep: Callable[[Captioned], None], tally: Tally) -> None:
    if result.error is None or result.rows or result.remarks:
        keep(result)
    tally.n_cut += result.cut
    if result.error is None:
        tally.n_written += 1
    else:
        tally.failed[result.task.clip] = result.error
