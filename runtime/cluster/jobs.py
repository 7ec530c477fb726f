"""Jobs: clips and a pool of workers -> every clip captioned once, or named with the reason why not.

waiting ─► give ─► worker ─► Captioned ─► kept
   ▲                  └────► Lost, with its worker or without: tried again behind the others, MAX_TRIES in all
   └─────────────────────────┘
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..output.subtitles import TimedText

MAX_TRIES = 3
"""Of a clip with which workers end or fail; what is wrong with the clip itself is told at once."""


@dataclass(frozen=True)
class Captioned:
    """What a worker made of a clip."""

    clip: Path
    rows: tuple[TimedText, ...]
    audio_s: float
    """Up to the end of the last segment that is not silent."""
    error: str | None = None
    """Why the clip cannot be heard to its end."""
    remarks: tuple[str, ...] = ()
    """What its reader must know about single answers."""
    cut: bool = False
    """Some answer is not the JSON that its schema asks for."""


@dataclass(frozen=True)
class Lost:
    """A clip that a worker was given, and did not answer for."""

    clip: Path
    reason: str


class Pool(Protocol):
    """Workers, each with one clip at a time."""

    @property
    def idle(self) -> int:
        """How many wait for a clip."""
        ...

    def give(self, clip: Path) -> None:
        """To an idle one."""
        ...

    def wait(self) -> Sequence[Captioned | Lost]:
        """Until something happens: a clip is done, or a worker became idle. Raises RunError when no worker is left."""
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
    waiting = deque(clips)
    tries: Counter[Path] = Counter()
    n_given = 0
    while waiting or n_given:
        while waiting and pool.idle:
            pool.give(waiting.popleft())
            n_given += 1
        for result in pool.wait():
            n_given -= 1
            if isinstance(result, Captioned):
                _keep(result, keep, tally)
                continue
            tally.n_lost += 1
            tries[result.clip] += 1
            if tries[result.clip] < MAX_TRIES:
                waiting.append(result.clip)
            else:
                tally.failed[result.clip] = f"{result.reason}, {MAX_TRIES} times"
        show()


def _keep(result: Captioned, keep: Callable[[Captioned], None], tally: Tally) -> None:
    keep(result)
    tally.audio_s += result.audio_s
    tally.n_cut += result.cut
    if result.error is None:
        tally.n_written += 1
    else:
        tally.failed[result.clip] = result.error
