"""Choice of charts: a record -> the charts it is worth, by what it holds, not by which command wrote it."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise, zip_longest

from ..result import OURS, Measure, Record
from .numbers import number, quantity, spoken
from .plots import BLUE, GREEN, GREY, INK, ORANGE, SKY, Bar, Chart, Point, bars, histogram, in_unit, scatter

TITLES = {
    "log_mel": "log-mel",
    "fbank": "filter bank",
    "features": "log-mel",
    "whisper": "Whisper encoder",
    "beats": "BEATs encoder",
    "fastconformer": "FastConformer",
    "qformer": "Q-Former",
    "prefill": "reading (prefill)",
    "decode": "writing",
}
"""Of stages; another is called by its name."""
IN_TURN = {"encoders": "encoders", "prefill": TITLES["prefill"], "decode": TITLES["decode"], "llm": "language model"}
"""Parts of one piece of work, as a live session counts them."""
SPEECH_END = {"waited": "waiting for its turn", "first_token": "hearing and reading", "final": "writing"}
"""Each as what has passed since the end of speech when it is done."""
_SPEECH_COLORS = {SPEECH_END["waited"]: GREY, SPEECH_END["first_token"]: BLUE}
ALONE = "Each encoder's own bar is what it takes alone; in use they work side by side."
MANY = 30
"""Samples that make a histogram."""
MAX_CHARTS, MAX_BARS = 8, 24
SECONDS = {"s": 1.0, "ms": 1e-3}
QUALITY = (
    (("wer",), "word error rate"),
    (("audio_kl", "kl"), "KL divergence from the reference"),
)
"""Measures, the first that there is, and what they are."""
BEFORE_LLM = (("error_audio_tokens",), "error of the audio tokens")
"""The same, where bundles differ in their encoders."""
COSTS = (("size", "size", "lower and further left"), ("speed", "speed", "lower and further right"))
ENCODER_COSTS = (
    ("encoders_size", "size of the encoders", "lower and further left"),
    ("encoders", "time of the encoders", "lower and further left"),
)
"""Measures, what they are, and where the best bundle stands."""
SWEPT = {
    "recall": "names recalled",
    "precision": "listed words that were said",
    "wer": "word error rate",
    "tokens": "length of an answer",
}
"""What a sweep draws."""
ALONG = {"scale": "LoRA's scale", "listed": "number of listed words"}
"""Measures that say where in a sweep a group stands."""
PEERS = {"wall": "wall time", "cpu": "processor time", "memory": "peak memory"}
RATIO = "Left of the dashed line Auricle needs less. Thin lines reach from the lowest to the highest round."
SIDE_BY_SIDE = "Orange is Auricle; shorter is better. Thin lines reach from the lowest to the highest round."
WANTED = ("latency", "lag_unstable", "lag_stable")
"""Names whose histograms come first."""
DULL = {"cpu", "rate", "share", "rtf"}
"""Names whose spread is not worth a picture of its own."""

Row = tuple[str, str, float, float]
"""A bar of a waterfall: label, colour, start and length in seconds."""


def charts(record: Record) -> list[Chart]:
    """At most MAX_CHARTS, the telling ones first; a bar chart of what there is when nothing else fits."""
    record = replace(record, measures=tuple(_finite(record.measures)))
    found = [*_ratios(record), *_sweeps(record), *_waterfalls(record), *_shares(record)]
    found += [*_scatters(record), *_histograms(record)]
    return (found or _plain_bars(record))[:MAX_CHARTS]


def _finite(measures: Iterable[Measure]) -> Iterable[Measure]:
    for measure in measures:
        samples = tuple(sample for sample in measure.samples if math.isfinite(sample))
        if samples:
            yield replace(measure, samples=samples)


def _waterfalls(record: Record) -> list[Chart]:
    """One answer and one live update laid out in time, from stages measured one by one; or a group that has parts."""
    walls = {_key(m.group): _seconds(m) for m in record.measures if m.name == "wall" and m.unit in SECONDS}
    found: list[Chart] = []
    encoder_rows, at, remark = _hearing(record, walls)
    if encoder_rows and "prefill" in walls:
        tokens = record.settings.get("new tokens", "")
        n_tokens = int(tokens) if tokens.isdecimal() else 1
        writing = TITLES["decode"] + (f", {n_tokens} tokens" if n_tokens > 1 else "")
        after = [(TITLES["prefill"], walls["prefill"]), (writing, walls.get("decode", 0.0) * n_tokens)]
        found.append(
            _waterfall("One answer, from audio to the last word", [*encoder_rows, *_in_turn(after, at)], remark)
        )
        updates = {m.name: _seconds(m) for m in record.measures if m.group == "live update" and m.unit in SECONDS}
        if {"draft", "no draft"} <= updates.keys():
            rows = [*encoder_rows, ("without a draft", GREY, at, updates["no draft"])]
            rows.append(("reading and checking the draft", ORANGE, at, updates["draft"]))
            more = "The grey bar is what the language model would take without its last words as a draft."
            found.append(_waterfall("One live update", rows, f"{remark} {more}".strip()))
    for group in record.groups:
        times = {_key(m.name): _seconds(m) for m in record.measures if m.group == group and m.unit in SECONDS}
        parts = [(label, times[name]) for name, label in IN_TURN.items() if times.get(name, 0) > 0]
        if len(parts) > 1:
            hop = _hop(record) if group == "update" else None
            rows = [(r[0], BLUE if r[0] == IN_TURN["encoders"] else r[1], *r[2:]) for r in _in_turn(parts, 0.0)]
            found.append(_waterfall(f"Where the time of one {group} goes", rows, "", hop))
        if times.keys() >= SPEECH_END.keys():
            steps = [0.0, *(times[name] for name in SPEECH_END)]
            lengths = [max(b - a, 0.0) for a, b in pairwise(steps)]
            rows = _in_turn(zip(SPEECH_END.values(), lengths, strict=True), 0.0)
            found += [_waterfall("From the end of speech to the final words", rows, "")] if rows else []
    return found


def _hearing(record: Record, walls: Mapping[str, float]) -> tuple[list[Row], float, str]:
    """Every stage before the language model, when they are done, and what must be said: on a GPU encoders run at once.

    A front end reads no weights; each has an encoder, in the same order; what comes behind them waits for all.
    """
    names = [name for name in dict.fromkeys(map(_key, record.groups)) if name in walls]
    stages = names[: next((at for at, name in enumerate(names) if name in ("hear", "prefill")), 0)]
    weights = {_key(m.group): m.value for m in record.measures if m.name == "bytes"}
    fronts = [name for name in stages if weights.get(name) == 0]
    rest = [name for name in stages if name not in fronts]
    encoders = rest[: max(1, len(fronts))]
    behind = rest[max(1, len(fronts)) :]
    beside = record.machine.gpu is not None and len(encoders) > 1
    rows: list[Row] = []
    ends = [0.0]
    for front, encoder in zip_longest(fronts, encoders):
        at = 0.0 if beside else ends[-1]
        for name, color in ((front, SKY), (encoder, BLUE)):
            if name and walls[name] > 0:
                rows.append((TITLES.get(name, spoken(name)), color, at, walls[name]))
                at += walls[name]
        ends.append(at)
    last = sum(walls[name] for name in behind)
    at = max(ends)
    if beside and "hear" in walls:
        at = max(walls["hear"] - last, 0.0)
        rows.append(("encoders side by side", GREY, 0.0, at))
    for name in behind:
        rows.append((TITLES.get(name, spoken(name)), GREEN, at, walls[name]))
        at += walls[name]
    return rows, at, ALONE if beside else ""


def _in_turn(stages: Iterable[tuple[str, float]], at: float) -> list[Row]:
    rows: list[Row] = []
    for label, length in stages:
        if length > 0:
            rows.append((label, _SPEECH_COLORS.get(label, ORANGE), at, length))
            at += length
    return rows


def _portion(length: float, whole: float) -> str:
    share = length / whole
    share_text = f" ({share:.0%})" if 0.005 <= share <= 1 else " (< 1%)" if share < 1 else ""
    return in_unit(length, "s") + share_text


def _waterfall(title: str, rows: Sequence[Row], remark: str, hop_s: float | None = None) -> Chart:
    """The last row ends the whole."""
    whole = rows[-1][2] + rows[-1][3]
    scale, unit = (1e3, "ms") if whole < 2 else (1.0, "s")
    drawn = [
        Bar(label, length * scale, start * scale, color, note=_portion(length, whole))
        for label, color, start, length in rows
    ]
    caption = f"{in_unit(whole, 's')} from end to end; medians, and their shares of that whole. {remark}".strip()
    mark = (hop_s * scale, f"the next one is due after {in_unit(hop_s, 's')}") if hop_s else None
    return bars(title, caption, drawn, f"time since the start, {unit}", mark)


def _histograms(record: Record) -> list[Chart]:
    many = [m for m in record.measures if len(m.samples) >= MANY and m.better == "lower" and m.name not in DULL]
    names = Counter(m.name for m in many)
    rare = [m for m in many if names[m.name] < 3]
    rare.sort(key=lambda m: WANTED.index(m.name) if m.name in WANTED else len(WANTED))
    found = [_histogram(measure, _hop(record)) for measure in rare[:3]]
    for name, n in names.items():  # a picture each would be too many
        if n > 2 and record.command != "peers":
            same = [m for m in many if m.name == name]
            found.append(_bar_chart(name, same[0].unit, same, [m.group for m in same]))
    return found


def _histogram(measure: Measure, hop_s: float | None) -> Chart:
    marks: list[tuple[str, float, str, str]] = []
    for share, label, dash in ((0.5, "half", "-"), (0.95, "95 %", "--"), (0.99, "99 %", ":")):
        value = measure.value if share == 0.5 else measure.percentile(share)
        marks.append((f"{label} ≤ {quantity(value, measure.unit)}", value, INK, dash))
    caption = f"{len(measure.samples)} samples; the lines are what half, 95 % and 99 % of them do not exceed."
    if hop_s and measure.group == "update" and measure.name == "latency" and measure.unit in SECONDS:
        hop = hop_s / SECONDS[measure.unit]
        late = sum(sample > hop for sample in measure.samples) / len(measure.samples)
        marks.append((f"hop {quantity(hop, measure.unit)}", hop, ORANGE, "-"))
        caption += f" Updates that take longer than the hop fall behind: {late:.1%} did."
    title = f"Spread of {_title(measure)}"
    axis = _axis(spoken(measure.name), measure)
    return histogram(title, caption, measure.samples, axis, marks)


def _hop(record: Record) -> float | None:
    """Seconds of audio between two updates, from a measure or from the settings."""
    measure = next((m for m in record.measures if _key(m.name) == "hop" and m.unit in SECONDS), None)
    if measure:
        return _seconds(measure)
    for name, value in record.settings.items():
        found = re.match(r"\s*([\d.]+)\s*(ms|s)?\s*$", value) if name.lower().startswith("hop") else None
        if found:
            return float(found[1]) * SECONDS[found[2] or ("ms" if "ms" in name.lower() else "s")]
    return None


def _scatters(record: Record) -> list[Chart]:
    """Quality of each bundle against its size, and against its speed; or its encoders', where these differ most."""
    found: list[Chart] = []
    with_encoders = len({s.encoders for s in record.subjects}) > len({s.llm for s in record.subjects})
    costs = ENCODER_COSTS if with_encoders else COSTS
    for names, label in (*QUALITY, BEFORE_LLM) if with_encoders else QUALITY:
        name = next((name for name in names if any(record.find(group, name) for group in record.groups)), names[0])
        for x, cost, better in costs:
            pairs = [(group, record.find(group, x), record.find(group, name)) for group in record.groups]
            points = [(group, a, b) for group, a, b in pairs if a and b]
            if len(points) < 2:
                continue
            title = f"{label[:1].upper() + label[1:]} against {cost}"
            caption = f"A point per bundle; {better} is better."
            drawn = [Point(group, a.value, b.value, _interval(record, b)) for group, a, b in points]
            if any(point.spread for point in drawn):
                caption += " Upright lines are 95 % intervals."
            found.append(scatter(title, caption, drawn, _axis(cost, points[0][1]), _axis(label, points[0][2])))
    return found


def _sweeps(record: Record) -> list[Chart]:
    """What was measured along one quantity, such as the LoRA's scale or how many words are listed, against it."""
    return [chart for along, axis in ALONG.items() for chart in _sweep(record, along, axis)]


def _sweep(record: Record, along: str, axis: str) -> list[Chart]:
    found: list[Chart] = []
    places = {group: place.value for group in record.groups if (place := record.find(group, along))}
    trained = record.settings.get("trained scale")
    for name, label in SWEPT.items() if len(places) > 1 else ():
        measures = {group: record.find(group, name) for group in sorted(places, key=places.__getitem__)}
        drawn = [
            Point(f"{places[g]:g}, as trained" if f"{places[g]:g}" == trained else "", places[g], m.value, spread)
            for g, m in measures.items()
            if m
            for spread in [_interval(record, m)]
        ]
        if not drawn:
            continue
        unit = next(m.unit for m in measures.values() if m)
        caption = "A point for each." + (" Upright lines are 95 % intervals." if any(p.spread for p in drawn) else "")
        title = f"{label[:1].upper() + label[1:]} against the {axis}"
        found.append(scatter(title, caption, drawn, axis, f"{label}, {unit}", joined=True))
    return found


def _axis(label: str, measure: Measure) -> str:
    return f"{label}, {measure.unit}" if measure.unit else label


def _interval(record: Record, measure: Measure) -> tuple[float, float] | None:
    """From two measures beside it whose names end in low and high, if there are."""
    low, high = (record.find(measure.group, f"{measure.name}_{end}") for end in ("low", "high"))
    return (low.value, high.value) if low and high else None


def _shares(record: Record) -> list[Chart]:
    shares = [m for m in record.measures if _key(m.name).split("_")[0] == "share"]
    if not shares:
        return []
    rows: list[Bar] = []
    for measure in shares[:MAX_BARS]:
        times = 1 if measure.unit == "%" else 100
        rows.append(Bar(measure.group, measure.value * times, note=f"{measure.value * times:.0f} %"))
    caption = (
        "How much of what this machine can do at best (arithmetic for the encoders and prefill, reading memory for "
        "decode; both measured in the same run) each stage reaches."
    )
    return [bars("How close to the machine's limit", caption, rows, "share of the limit, %", (100, "the limit"))]


def _ratios(record: Record) -> list[Chart]:
    """Ours beside what one would use instead."""
    if record.command != "peers":
        return []
    named: dict[tuple[str, str], list[Measure]] = {}
    for measure in record.measures:
        named.setdefault((measure.name, measure.unit), []).append(measure)
    found: list[Chart] = []
    for (name, unit), measures in named.items():
        rows = [_bar(measure, measure.group) for measure in sorted(measures, key=lambda m: m.value)[:MAX_BARS]]
        what = PEERS.get(name.removeprefix("ratio_"), spoken(name))
        if name.startswith("ratio"):
            mark = (1.0, "as much as the other")
            axis = f"Auricle's {what} ÷ the other's"
            found.append(bars(f"Auricle ÷ other: {what}", RATIO, rows, axis, mark))
        elif name in PEERS:
            found.append(bars(f"Side by side: {what}", SIDE_BY_SIDE, rows, f"{what}, {unit}"))
    return sorted(found, key=lambda chart: chart.caption != RATIO)


def _plain_bars(record: Record) -> list[Chart]:
    """What several groups have in common; failing that, what one group has several of in the same unit."""
    measures = [m for m in record.measures if m.better != "neither"] or list(record.measures)
    shared: dict[tuple[str, str], list[Measure]] = {}
    for measure in measures:
        shared.setdefault((measure.name, measure.unit), []).append(measure)
    found = [
        _bar_chart(name, unit, same, [m.group for m in same])
        for (name, unit), same in shared.items()
        if len(same) > 1 and len({m.group for m in same}) > 1
    ]
    if found:
        return found
    units: dict[str, list[Measure]] = {}
    for measure in measures:
        units.setdefault(measure.unit, []).append(measure)
    return [
        _bar_chart(f"measured in {unit}" if unit else "plain numbers", unit, same, [_title(m) for m in same])
        for unit, same in units.items()
    ]


def _bar_chart(name: str, unit: str, measures: Sequence[Measure], labels: Sequence[str]) -> Chart:
    rows = [_bar(measure, label) for measure, label in zip(measures, labels, strict=True)][:MAX_BARS]
    way = {"lower": " Shorter is better.", "higher": " Longer is better.", "neither": ""}[measures[0].better]
    spread = " Lines reach from the lowest to the highest sample." if any(len(m.samples) > 1 for m in measures) else ""
    title = spoken(name)[:1].upper() + spoken(name)[1:]
    return bars(title, f"Medians.{way}{spread}", rows, unit or "number")


def _bar(measure: Measure, label: str) -> Bar:
    low = min(measure.samples)
    high = max(measure.samples)
    color = ORANGE if label.startswith(OURS) else BLUE
    return Bar(label, measure.value, color=color, low=low, high=high, note=number(measure.value))


def _seconds(measure: Measure) -> float:
    return measure.value * SECONDS[measure.unit]


def _title(measure: Measure) -> str:
    return f"{spoken(measure.group)}: {spoken(measure.name)}"


def _key(name: str) -> str:
    """Q-Former, qformer -> qformer; "log mel", log_mel_ms -> log_mel."""
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower().replace("-", "")).strip("_")
    return re.sub(r"_(s|ms)$", "", plain)
