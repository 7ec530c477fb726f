"""Parts of a long clip: what several workers caption side by side, cut where `auricle caption` cuts it anyway."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ...models.errors import AuricleError
from ..audio.selection import Selection
from ..audio.split import Segment
from ..engine import Engine

SHORTEST_S = 600.0
"""Of sound in a part, at least: each reads its clip from the beginning (docs/scale.md says how long that takes)."""
PARTS = 2
"""Of a clip for each worker, at most: one that begins late still finds something to do."""
_LEAST_BYTES = 2000
"""Of a second of sound in a file, by the most frugal codecs for speech."""


@dataclass(frozen=True)
class Part:
    """Consecutive segments of a clip."""

    first: int
    """By their numbers, from 0."""
    behind: int | None
    """The one after the last; None: all that follow."""
    start_s: float
    """Where the first begins."""


def parts_of(engine: Engine, clip: Path, selection: Selection, n_workers: int) -> tuple[Part, ...]:
    """A long clip's, in order; none of a short, a silent or a faulty one, which is one worker's.

    It is read once, unless it is too small a file to be long, or there is nobody to share it with.
    """
    if n_workers < 2 or most_parts([clip]) < 2:
        return ()
    starts: list[float] = []
    end_s, audible = 0.0, False
    try:
        for segment in engine.segments(clip, selection):
            starts.append(segment.start_s)
            end_s = segment.end_s
            audible = audible or not segment.silent
    except AuricleError:
        return ()
    n = min(PARTS * n_workers, int(end_s / SHORTEST_S))
    if n < 2 or not audible:
        return ()
    firsts = sorted({next(i for i, at in enumerate(starts) if at >= k * starts[-1] / n) for k in range(n)})
    return tuple(Part(i, j, starts[i]) for i, j in zip(firsts, [*firsts[1:], None], strict=True))


def most_parts(clips: Sequence[Path]) -> int:
    """Of all clips together, judged by the sizes of their files: more workers have nothing to do."""
    return sum(max(1, int(clip.stat().st_size / _LEAST_BYTES / SHORTEST_S)) for clip in clips)


def part_segments(engine: Engine, clip: Path, part: Part, selection: Selection) -> Iterator[Segment]:
    """The clip's segments that belong to a part and in which there is sound. Raises InputError."""
    segments = islice(engine.segments(clip, selection), part.first, part.behind)
    return (segment for segment in segments if not segment.silent)
