"""Comparison: two records -> what changed between them, and whether it is more than noise.

Only the records' own samples say how noisy a measure is. For each measure that both have, the medians differ beyond
noise when their distance exceeds

  five samples or more on both sides   3.5 standard errors of the difference of medians (bootstrap, the two sides'
                                       added in squares), and at least 3 % of the smaller median;
  fewer on either side                 10 % of the smaller median, and the two sides' ranges do not overlap. A single
                                       sample has no spread: the 10 % is an assumption then, not a measurement.

On samples drawn twice from one distribution (normal, log-normal, with outliers; spreads of 2 to 10 %) the first rule
cried wolf in less than 0.4 % of 3000 trials, so a table of fifty lines does in about one of ten; it found a slowdown of
20 % at a spread of 5 % in 73 % of trials with 5 samples and in 99 % with 10. The floor of 3 % is there because two
starts of one program differ by more than the runs within one: where its code and memory came to lie, how warm the
machine is. With 40 samples or more on both sides the 95th percentile is compared in the same way, with a floor of 5 %:
a tail can grow while the median stays.

A measure that brings its own interval (wer with wer_low and wer_high) differs when the distance exceeds the two sides'
half intervals, added in squares.

Two records of `device` are of two machines, neither of them before the other: the same rules, other names.

A measure without a better direction describes the work: if it changed, times of the two records are not like for like.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ...models.errors import InputError
from ..result import Measure, Record
from .numbers import number

SCHEMA = "auricle-compare 1"
DEVICE = "device"
"""The command whose records are of machines; of all others, of one machine at two times."""
ERRORS = 3.5
FLOOR, TAIL_FLOOR, TOLERANCE = 0.03, 0.05, 0.10
"""Shares of the smaller value."""
ENOUGH, ENOUGH_FOR_TAIL = 5, 40
ROUNDING = 1e-4
"""Records keep six digits: what describes the work and differs by less is the same."""
SMALLEST = {"%": 0.05, "nats": 1e-6, "nat": 1e-6}
"""Differences below are nothing, whatever their share: what was 0 before would otherwise be infinitely worse."""
RESAMPLES = 500

Key = tuple[str, str, str]
"""Group, name, unit."""
Samples = npt.NDArray[np.float64]
Statistic = Callable[[Samples], Samples]
Verdict = Literal["better", "worse", "within noise", "the work differs"]


@dataclass(frozen=True)
class Change:
    """One measure, before and after."""

    group: str
    name: str
    unit: str
    before: float
    after: float
    """Medians, or the percentile that `name` ends with."""
    ratio: float | None
    """after / before; None unless both are above 0."""
    noise: float
    """How far apart the two may be without meaning anything, in the unit."""
    better: Literal["lower", "higher", "neither"]
    verdict: Verdict


@dataclass(frozen=True)
class Comparison:
    """Two records side by side."""

    schema: str
    command: str
    before: str
    after: str
    """What was measured and when."""
    circumstances: tuple[str, ...]
    """What else is not the same: machine, packages, bundles, settings; each as "cores 2 before, 4 after"."""
    changes: tuple[Change, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    """Measures that the other record lacks, as "group: name, unit"."""

    @property
    def sides(self) -> tuple[str, str]:
        """What the two records are called."""
        return ("first", "second") if self.command == DEVICE else ("before", "after")

    def with_verdict(self, verdict: Verdict) -> tuple[Change, ...]:
        """The changes that were judged so."""
        return tuple(change for change in self.changes if change.verdict == verdict)


def compare(before: Record, after: Record) -> Comparison:
    """Judge every measure that both records have. Raises InputError when there is none."""
    old = _by_key(before)
    new = _by_key(after)
    if not old.keys() & new.keys():
        raise InputError(
            f"a record of {before.command} and one of {after.command} have no measure in common: give two records of "
            "the same command"
        )
    changes: list[Change] = []
    for key in [key for key in old if key in new and not _is_end(new, key)]:
        intervals = (*_interval(old, key), *_interval(new, key))
        changes += _changes(old[key], new[key], math.hypot(*intervals) if len(intervals) == 2 else None)
    return Comparison(
        SCHEMA,
        after.command,
        _title(before),
        _title(after),
        tuple(_circumstances(before, after)),
        tuple(changes),
        tuple(_name(measure) for key, measure in old.items() if key not in new),
        tuple(_name(measure) for key, measure in new.items() if key not in old),
    )


def lines(comparison: Comparison) -> list[str]:
    """The table, what is on top of it and what came out."""
    first, second = comparison.sides
    head = ("", "", first, second, "unit", "ratio", "noise", "")
    rows = [head, *(_row(change) for change in notable(comparison))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    width = len(second) + 1
    found = [f"{first + ':':<{width}} {comparison.before}", f"{second + ':':<{width}} {comparison.after}"]
    if comparison.circumstances:
        found.append(f"Not the same, compared all the same: {'; '.join(comparison.circumstances)}.")
    found.append("")
    left = {0, 1, 4, 7}
    for row in rows:
        cells = (f"{c:<{w}}" if i in left else f"{c:>{w}}" for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        found.append("  ".join(cells).rstrip())
    found += [f"only {first}: {name}" for name in comparison.only_before]
    found += [f"only {second}: {name}" for name in comparison.only_after]
    return [*found, "", summary(comparison)]


def notable(comparison: Comparison) -> list[Change]:
    """All but the descriptions of the work that did not change."""
    return [c for c in comparison.changes if c.better != "neither" or c.verdict == "the work differs"]


def summary(comparison: Comparison) -> str:
    """How many changed which way, in one sentence."""
    worse = len(comparison.with_verdict("worse"))
    better = len(comparison.with_verdict("better"))
    same = sum(change.verdict == "within noise" for change in notable(comparison))
    who = "the second: " if comparison.command == DEVICE else ""
    text = f"{who}{worse} worse, {better} better, {same} within noise"
    if differs := len(comparison.with_verdict("the work differs")):
        text += f"; the work itself differs in {differs}, so times cannot be compared like for like"
    return text


def word(change: Change) -> str:
    """The verdict, as one says it of a time."""
    if change.verdict in ("better", "worse") and change.better == "lower" and change.unit in ("s", "ms"):
        return {"better": "faster", "worse": "slower"}[change.verdict]
    return change.verdict


def spread(change: Change) -> str:
    """The noise as a share of the smaller value, or in the unit where that is 0."""
    scale = min(abs(change.before), abs(change.after))
    return f"±{change.noise / scale:.1%}" if scale else f"±{number(change.noise)}"


def _by_key(record: Record) -> dict[Key, Measure]:
    """Measures that have samples. One whose unit changed is another one; a record's only bundle goes without name."""
    only = record.subjects[0].name if len(record.subjects) == 1 else None
    return {
        ("" if m.group == only else m.group, m.name, m.unit): m
        for m in record.measures
        if m.samples and all(math.isfinite(sample) for sample in m.samples)
    }


def _interval(measures: Mapping[Key, Measure], key: Key) -> tuple[float, ...]:
    """Half of the interval that a measure brings with it: (), or one number."""
    ends = [measures.get((key[0], f"{key[1]}_{end}", key[2])) for end in ("low", "high")]
    return ((ends[1].value - ends[0].value) / 2,) if ends[0] and ends[1] else ()


def _is_end(measures: Mapping[Key, Measure], key: Key) -> bool:
    """Whether this is an end of another measure's interval."""
    name, _, end = key[1].rpartition("_")
    return end in ("low", "high") and (key[0], name, key[2]) in measures


def _changes(before: Measure, after: Measure, interval: float | None) -> list[Change]:
    found = [_change(before, after, after.name, _median, FLOOR, interval)]
    if min(len(before.samples), len(after.samples)) >= ENOUGH_FOR_TAIL and after.better == "lower":
        found.append(_change(before, after, f"{after.name} p95", _tail, TAIL_FLOOR))
    return found


def _change(
    before: Measure, after: Measure, name: str, statistic: Statistic, floor: float, interval: float | None = None
) -> Change:
    sides = np.asarray(before.samples), np.asarray(after.samples)
    old, new = (float(statistic(side[None])[0]) for side in sides)
    scale = min(abs(old), abs(new))
    apart = True
    few = min(map(len, sides)) < ENOUGH
    if after.better == "neither":
        floor = ROUNDING
    elif interval is not None:
        floor = 0.0
    elif few:
        floor = TOLERANCE
    noise = max(floor * scale, interval or 0.0, SMALLEST.get(after.unit, 0.0) if floor else 0.0)
    if few:
        apart = bool(sides[0].max() < sides[1].min() or sides[1].max() < sides[0].min())
    else:
        noise = max(noise, ERRORS * math.hypot(*(_standard_error(side, statistic) for side in sides)))
    beyond = apart and abs(new - old) > noise
    verdict = _verdict(new - old, after.better) if beyond else "within noise"
    ratio = new / old if old > 0 and new > 0 else None
    return Change(after.group, name, after.unit, old, new, ratio, noise, after.better, verdict)


def _verdict(difference: float, better: Literal["lower", "higher", "neither"]) -> Verdict:
    if better == "neither":
        return "the work differs"
    return "better" if (difference < 0) == (better == "lower") else "worse"


def _median(samples: Samples) -> Samples:
    return np.median(samples, axis=1)


def _tail(samples: Samples) -> Samples:
    return np.quantile(samples, 0.95, axis=1, method="inverted_cdf")


def _standard_error(samples: Samples, statistic: Statistic) -> float:
    """Of a statistic, by bootstrap; always the same answer for the same samples."""
    drawn = np.random.default_rng(0).integers(0, len(samples), (RESAMPLES, len(samples)))
    return float(statistic(samples[drawn]).std())


def _circumstances(before: Record, after: Record) -> list[str]:
    differences: list[str] = []
    for name in ("cpu", "cores", "memory_gb", "gpu", "system"):
        differences += _differs(name, getattr(before.machine, name), getattr(after.machine, name))
    if after.command == before.command == DEVICE:
        differences = []  # they are what is compared
    differences += _maps("", before.machine.packages, after.machine.packages)
    differences += _differs("bundles", _subjects(before), _subjects(after))
    differences += _maps("setting ", before.settings, after.settings)
    return [*_differs("command", before.command, after.command), *differences]


def _maps(what: str, before: dict[str, str], after: dict[str, str]) -> list[str]:
    differences: list[str] = []
    for name in dict.fromkeys([*before, *after]):
        differences += _differs(f"{what}{name}", before.get(name), after.get(name))
    return differences


def _differs(what: str, before: object, after: object) -> list[str]:
    if isinstance(before, float) and isinstance(after, float):
        before = number(before)
        after = number(after)
    return [] if before == after else [f"{what} {before or 'none'} before, {after or 'none'} after"]


def _subjects(record: Record) -> str:
    return ", ".join(f"{s.name} ({s.family}, {s.encoders}/{s.llm})" for s in record.subjects)


def _title(record: Record) -> str:
    where = record.machine
    if record.command == DEVICE:
        parts = (where.cpu, f"{where.cores} cores", f"{number(where.memory_gb)} GB", where.gpu, where.system)
        return ", ".join(part for part in (*parts, record.created) if part)
    return ", ".join((record.command, *(s.name for s in record.subjects), record.created))


def _name(measure: Measure) -> str:
    return f"{measure.group}: {measure.name}" + (f", {measure.unit}" if measure.unit else "")


def _row(change: Change) -> Sequence[str]:
    ratio = f"{change.ratio:.3f}" if change.ratio else "-"
    values = number(change.before), number(change.after)
    return change.group, change.name, *values, change.unit, ratio, spread(change), word(change)
