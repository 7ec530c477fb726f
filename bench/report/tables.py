"""Tables of the report: records -> HTML; whatever comes from a record is escaped here."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from statistics import median

from ..result import OURS, Measure, Record, Subject
from .comparison import Change, Comparison, notable, spread, word
from .numbers import COUNTED, number, quantity, spoken

ALIKE = 0.7
"""Groups stand in one table, a row each, when they share this much of the measures of the one that has fewer."""
HEADLINES = (
    *((OURS, "wall"), (OURS, "cpu"), (OURS, "memory"), ("", "ratio_wall"), ("", "ratio_memory")),
    *(("update", "latency"), ("speech_end", "first_token"), ("speech_end", "final"), ("words", "lag_stable")),
    *(("", "memory"), ("", "ttft"), ("", "tpot"), ("", "wer"), ("", "caption"), ("", "speed")),
    *(("hear", "wall"), ("prefill", "wall"), ("decode", "wall"), ("live update", "draft"), ("open", "wall")),
    *(("", "peak"), ("session", "rtf")),
)
"""Group and name of what is said first, the most wanted first; "" is any, then a name comes once."""
N_HEADLINES = 6
_ARROWS = {"lower": "↓", "higher": "↑", "neither": ""}


def cell(text: object, tag: str = "td", extra: str = "") -> str:
    """One escaped cell."""
    return f"<{tag}{extra}>{html.escape(str(text))}</{tag}>"


def table(head: Sequence[str], kinds: Sequence[str], rows: Iterable[str], caption: str = "") -> str:
    """In a box of its own that scrolls sideways where the page is narrow; kind "n" is a column of numbers."""
    found = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    top = "".join(cell(name, "th", f' scope="col" class="{kind}"') for name, kind in zip(head, kinds, strict=True))
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    inside = f"<table>{found}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll" tabindex="0">{inside}</div>'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and values."""
    return "<dl>" + "".join(cell(name, "dt") + cell(value, "dd") for name, value in pairs if value) + "</dl>"


def machine(record: Record) -> str:
    """Where, with what, and how it was measured."""
    where = record.machine
    packages = ", ".join(f"{name} {version}" for name, version in where.packages.items())
    return facts(
        [
            ("processor", f"{where.cpu}, {where.cores} core{'s' if where.cores != 1 else ''} used"),
            ("memory", f"{number(where.memory_gb)} GB"),
            ("GPU", where.gpu or "none used"),
            ("system", where.system),
            ("packages", packages),
            *((f"bundle {s.name}", _bundle(s)) for s in record.subjects),
            *record.settings.items(),
        ]
    )


def _bundle(subject: Subject) -> str:
    precision = f"encoders {subject.encoders}, language model {subject.llm}"
    return f"{subject.family}, {precision}, {number(subject.size_gb)} GB"


def tiles(record: Record) -> str:
    """The few numbers that are wanted first."""
    found: list[str] = []
    for label, measure in headlines(record):
        digits, _, unit = quantity(median(measure.samples), measure.unit).partition(" ")
        more = f"95 % ≤ {quantity(measure.percentile(0.95), measure.unit)}" if len(measure.samples) > 4 else ""
        number_and_unit = f"{html.escape(digits)}<small> {html.escape(unit)}</small>"
        below = f"<span>{html.escape(label)}</span><small>{html.escape(more)}</small>"
        found.append(f'<div class="tile"><b>{number_and_unit}</b>{below}</div>')
    return f'<div class="tiles">{"".join(found)}</div>' if found else ""


def headlines(record: Record) -> list[tuple[str, Measure]]:
    """At most N_HEADLINES, each with what it is. Of several bundles the best, of several peers the strongest."""
    real = [m for m in record.measures if _real(m)]
    judged = [m for m in real if m.better != "neither"] or real
    found: list[tuple[str, Measure]] = []
    for group, name in HEADLINES:
        fits = [m for m in judged if group in ("", m.group) and name == m.name]
        if not fits or (not group and any(name == chosen.name for _, chosen in found)):
            continue
        highest = (fits[0].better == "higher") != name.startswith("ratio")
        chosen = (max if highest else min)(fits, key=lambda m: m.value)
        label = f"{spoken(name)}, {'highest' if highest else 'lowest'}: {chosen.group}"
        found.append((label if len(fits) > 1 else _said(chosen), chosen))
    found = found or [(_said(measure), measure) for measure in judged]
    return found[:N_HEADLINES]


def _said(measure: Measure) -> str:
    return f"{spoken(measure.group)}: {spoken(measure.name)}"


def measures(record: Record) -> str:
    """Every measure: groups that are alike as rows of one table, the others listed one measure a row."""
    by_group = {group: {m.name: m for m in record.measures if m.group == group} for group in record.groups}
    found: list[str] = []
    rest: list[str] = []
    for together in _alike(by_group):
        if len(together) > 1:
            found.append(_wide([(group, by_group[group]) for group in together]))
        else:
            rest += together
    if rest:
        rows = [row for group in rest for row in _long(group, [m for m in record.measures if m.group == group])]
        head = ("", "measure", "median", "95 % ≤", "unit", "samples")
        found.append(table(head, ("", "", "n", "n", "", "n"), rows))
    return "".join(found)


def comparison(compared: Comparison) -> str:
    """What `compare` found."""
    first, second = compared.sides
    head = ("", "measure", first, second, "unit", "ratio", "noise", "")
    found = facts([(first, compared.before), (second, compared.after)])
    if compared.circumstances:
        found += f"<p>Not the same, compared all the same: {html.escape('; '.join(compared.circumstances))}.</p>"
    only = [(f"only {first}", name) for name in compared.only_before]
    only += [(f"only {second}", name) for name in compared.only_after]
    kinds = ("", "", "n", "n", "", "n", "n", "")
    return found + table(head, kinds, map(_change, notable(compared))) + facts(only)


def _change(change: Change) -> str:
    ratio = f"{change.ratio:.3f}" if change.ratio else "-"
    kind = {"better": "good", "worse": "bad", "the work differs": "odd"}.get(change.verdict, "")
    texts = number(change.before), number(change.after), change.unit, ratio, spread(change)
    names = cell(change.group, "th", ' scope="row"') + cell(change.name)
    return names + _cells(texts, "nn-nn") + cell(word(change), extra=f' class="{kind}"')


def _alike(by_group: dict[str, dict[str, Measure]]) -> list[list[str]]:
    """Groups in clusters: each joins the first whose leader has mostly the same measures."""
    clusters: list[list[str]] = []
    for group, own in by_group.items():
        for cluster in clusters:
            other = by_group[cluster[0]]
            if len(own.keys() & other.keys()) >= ALIKE * min(len(own), len(other)):
                cluster.append(group)
                break
        else:
            clusters.append([group])
    return clusters


def _wide(groups: Sequence[tuple[str, dict[str, Measure]]]) -> str:
    names = dict.fromkeys(name for _, own in groups for name in own)
    units = {name: {own[name].unit for _, own in groups if name in own} for name in names}
    shared = {name: next(iter(found)) for name, found in units.items() if len(found) == 1}
    head = ["", *(f"{name}, {unit}" if (unit := _in_head(shared.get(name))) else name for name in names)]
    rows: list[str] = []
    for group, own in groups:
        cells = [_value(own.get(name), not _in_head(shared.get(name))) for name in names]
        rows.append(cell(group, "th", ' scope="row"') + "".join(cells))
    many = any(len(m.samples) > 1 for _, own in groups for m in own.values())
    return table(
        head,
        ["", *("n" for _ in names)],
        rows,
        "medians; small: what 95 % of the samples do not exceed" if many else "",
    )


def _in_head(unit: str | None) -> str:
    """The unit, when a column's head can say it for all."""
    return "" if unit is None or unit in COUNTED else unit


def _value(measure: Measure | None, with_unit: bool) -> str:
    if measure is None or not _real(measure):
        return cell("", extra=' class="n"')
    unit = measure.unit if with_unit else ""
    text = html.escape(quantity(median(measure.samples), unit))
    if len(measure.samples) > 1:
        text += f"<small>{html.escape(quantity(measure.percentile(0.95), unit))}</small>"
    return f'<td class="n">{text}</td>'


def _long(group: str, own: Sequence[Measure]) -> list[str]:
    rows: list[str] = []
    for measure in own:
        head = cell(group, "th", f' scope="rowgroup" rowspan="{len(own)}"') if not rows else ""
        real = _real(measure)
        way = _ARROWS[measure.better]
        own_unit = measure.unit if measure.unit in COUNTED else ""
        value = quantity(median(measure.samples), own_unit) if real else "-"
        tail = quantity(measure.percentile(0.95), own_unit) if real and len(measure.samples) > 1 else ""
        name = cell(f"{measure.name} {way}".strip())
        cells = _cells((value, tail, "" if own_unit else measure.unit, len(measure.samples)), "nn-n")
        rows.append(head + name + cells)
    return rows


def _cells(texts: Sequence[object], kinds: str) -> str:
    return "".join(cell(text, extra=f' class="{kind}"') for text, kind in zip(texts, kinds, strict=True))


def _real(measure: Measure) -> bool:
    return bool(measure.samples) and all(math.isfinite(sample) for sample in measure.samples)
