"""The tables of `auricle-bench quality`: a record -> what each bundle weighs, takes and gets right."""

from __future__ import annotations

from collections.abc import Sequence

from ..result import Measure, Record

_COLUMNS = (
    ("size GB", "size", "{:.3g}"),
    ("encoders MB", "encoders_size", "{:.3g}"),
    ("memory GB", "memory", "{:.3g}"),
    ("encoders ms", "encoders", "{:.3g}"),
    ("TTFT ms", "ttft", "{:.3g}"),
    ("TPOT ms", "tpot", "{:.3g}"),
    ("tokens/s", "speed", "{:.0f}"),
    ("RTF", "rtf", "{:.3g}"),
    ("sounds %", "sounds", "{:.1f}"),
    ("caption %", "caption", "{:.1f}"),
    ("exact %", "exact", "{:.1f}"),
)
_N_ALWAYS = 8  # of them; the others only where something has a value
ERROR = "error_"
"""Before a stage's name: how far its output is from the reference's."""
_DIFFERENCES = (
    ("LLM: KL", "kl", "{:.3f}"),
    ("p95", "kl_p95", "{:.3f}"),
    ("same %", "agreement", "{:.2f}"),
    ("all: KL", "audio_kl", "{:.3f}"),
    ("p95", "audio_kl_p95", "{:.3f}"),
    ("same %", "audio_agreement", "{:.2f}"),
)
_CACHE = ("cache MB", "cache", "{:.3g}")
_Columns = Sequence[tuple[str, str, str]]


def lines(record: Record) -> list[str]:
    """Tables, notes, and one summary line per bundle at the end."""
    settings = record.settings
    out = [f"quality on {settings['data']}: {settings['clips']} clips, seed {settings['seed']}", ""]
    first = [_CACHE, *_COLUMNS[2:_N_ALWAYS]] if "kv types" in settings else _COLUMNS[:_N_ALWAYS]
    scores = [(name, [*_cells(record, name, first), wer(record, name)]) for name in record.groups]
    more = [column for column in _COLUMNS[_N_ALWAYS:] if any(record.find(name, column[1]) for name in record.groups)]
    rows = [(name, [*cells, *_cells(record, name, more)]) for name, cells in scores]
    corner = "" if "kv types" in settings else "bundle"
    out += _table([title for title, _, _ in first] + ["WER %"] + [title for title, _, _ in more], rows, corner)
    if "reference" in settings:
        out += ["", *_against(record, settings["reference"], corner)]
    out += ["", *(f"- {note}" for note in record.notes), ""]
    return out + [summary(record, name) for name in record.groups]


def _against(record: Record, reference: str, corner: str) -> list[str]:
    """What each differs in from the reference; of a cache, the language model alone."""
    stages = dict.fromkeys(m.name for m in record.measures if m.name.startswith(ERROR))
    errors = [(f"{name.removeprefix(ERROR).replace('_', ' ')} %", name, "{:.2f}") for name in stages]
    whose = ["error of each stage's output; then of the next token, by the language", "model alone and by all: "]
    how = "KL divergence in thousandths of a nat, and how many tokens stay the same"
    heading = [f"against {reference}: {whose[0]}", f"{whose[1]}{how}"] if stages else [f"against {reference}: {how}"]
    columns = [*errors, *(column for column in _DIFFERENCES if stages or not column[1].startswith("audio_"))]
    rows = [(name, [*_cells(record, name, columns), _more_errors(record, name)]) for name in record.groups]
    return heading + _table([*(title for title, _, _ in columns), "WER points (95 %)"], rows, corner)


def summary(record: Record, name: str) -> str:
    """What this model's users compare, on one line."""
    values = {column: _cells(record, name, [(title, column, form)])[0] for title, column, form in _COLUMNS}
    parts = [
        f"peak memory {values['memory']} GB",
        f"TTFT {values['ttft']} ms",
        f"TPOT {values['tpot']} ms",
        f"WER {wer(record, name)} %",
        *(f"{title} {values[key]} %" for title, key in _CAPTIONS if values[key] != "-"),
    ]
    return f"{name}: " + ", ".join(part for part in parts if "-" not in part.split())


_CAPTIONS = (("sounds named", "sounds"), ("caption F1", "caption"), ("exact answers", "exact"))


def wer(record: Record, name: str) -> str:
    """Word error and its interval."""
    return _with_interval(record, name, "wer", "{:.1f} ({:.1f} to {:.1f})")


def _more_errors(record: Record, name: str) -> str:
    """By how many points of word error it is worse than the reference on the same clips."""
    return _with_interval(record, name, "wer_difference", "{:+.2f} ({:+.2f} to {:+.2f})")


def _with_interval(record: Record, name: str, measure: str, form: str) -> str:
    found = [record.find(name, measure + part) for part in ("", "_low", "_high")]
    values = [part.value for part in found if part]
    return form.format(*values) if len(values) == len(found) else "-"


def _cells(record: Record, name: str, columns: _Columns) -> list[str]:
    """A value each, the median of its samples; "-" for what was not measured."""
    found = [(record.find(name, measure), form) for _, measure, form in columns]
    return [form.format(_scaled(measure)) if measure else "-" for measure, form in found]


def _scaled(measure: Measure) -> float:
    """Divergences in thousandths: of a good quantization they are so small."""
    return measure.value * (1000 if measure.unit == "nats" else 1)


def _table(titles: Sequence[str], rows: Sequence[tuple[str, list[str]]], corner: str) -> list[str]:
    """Columns as wide as they need, right-aligned behind the bundle's name."""
    first = max(len(corner), *(len(name) for name, _ in rows))
    widths = [max(map(len, column)) for column in zip(titles, *(cells for _, cells in rows), strict=True)]
    return [
        f"{name:<{first}}" + "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        for name, cells in [(corner, list(titles)), *rows]
    ]
