"""The table of `auricle-bench streams`: a record -> lines of text."""

from __future__ import annotations

from collections.abc import Mapping

from ..result import Measure, Record

_MANY = (("final, ms", "final"), ("waited", "final_waited"), ("interval, s", "interval"), ("latency, ms", "latency"))
"""Columns of median and 95 %."""
_ONE = (("load", "load"), ("after", "load_after"), ("refused", "refused"))
_BEHIND = (
    ("rtf", "rtf"),
    ("engine %", "engine"),
    ("cpu %", "cpu"),
    ("lost s", "dropped"),
    ("given up", "given_up"),
    ("MB each", "memory"),
)


def lines(record: Record) -> list[str]:
    """A row per number of streams and order; of what has several samples the median and how bad it gets."""
    s = record.settings
    bundle = record.subjects[0]
    out = [
        f"streams: {bundle.name}, {bundle.encoders}/{bundle.llm}, everybody speaks {s['recordings']} half of the time,"
        f" {s['minutes']} min each",
        f"{s['task']}, hop {s['hop_ms']} ms, admission {s['admission']}{_lanes(s)}; median and 95 %",
        "",
        f"{'':<24}"
        + "".join(f"{title:>9}" for title, _ in _ONE)
        + "".join(f"{title:>14}" for title, _ in _MANY)
        + "".join(f"{title:>9}" for title, _ in _BEHIND),
    ]
    for group in record.groups:
        one = "".join(f"{_shown(record.find(group, name)):>9}" for _, name in _ONE)
        many = "".join(f"{_spread(record.find(group, name)):>14}" for _, name in _MANY)
        behind = "".join(f"{_shown(record.find(group, name)):>9}" for _, name in _BEHIND)
        out.append(f"{group:<24}{one}{many}{behind}".rstrip())
    return [*out, "", *(f"- {note}" for note in record.notes)]


def _lanes(settings: Mapping[str, str]) -> str:
    return f", lanes {settings['lanes']}" if "lanes" in settings else ""  # records of before have none


def _shown(measure: Measure | None) -> str:
    return "" if measure is None else _number(measure.value)


def _spread(measure: Measure | None) -> str:
    return "" if measure is None else f"{_number(measure.value)} {_number(measure.percentile(0.95))}"


def _number(value: float) -> str:
    """Three digits, never in powers of ten."""
    return f"{value:.0f}" if abs(value) >= 100 or value == 0 else f"{value:.3g}"
