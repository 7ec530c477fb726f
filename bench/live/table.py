"""The table of `auricle-bench live`: a record -> lines of text."""

from __future__ import annotations

from ..result import Measure, Record

_ROWS = (
    ("update: newest sample to text", "update", "latency"),
    ("  encoders", "update", "encoders"),
    ("  language model", "update", "llm"),
    ("  audio tokens", "update", "audio_tokens"),
    ("  of them kept (--settle)", "update", "kept"),
    ("  passes after the prefill", "update", "passes"),
    ("  passes without the draft (tokens)", "update", "tokens"),
    ("  draft tokens accepted", "update", "acceptance"),
    ("  slower than the hop", "update", "late"),
    ("  backlog at its start", "update", "backlog"),
    ("end of speech to first token", "speech_end", "first_token"),
    ("  of it, waiting for the pause", "speech_end", "waited"),
    ("  of it, the model's work", "speech_end", "ttft"),
    ("end of speech to final", "speech_end", "final"),
    ("finals ready when the pause was over", "speech_end", "ready"),
    ("word's end to unstable text", "words", "lag_unstable"),
    ("word's end to stable text", "words", "lag_stable"),
    ("LAAL of stable text", "words", "laal"),
    ("were computing free: to unstable text", "words", "heard_unstable"),
    ("were computing free: to stable text", "words", "heard_stable"),
    ("were computing free: LAAL", "words", "laal_unaware"),
    ("word error of the captions", "words", "caption_wer"),
    ("word error of the finals", "words", "wer"),
    ("words taken back per word shown", "session", "erasure"),
    ("real-time factor", "session", "rtf"),
    ("processor time", "session", "cpu"),
    ("work that was in vain, of all", "session", "wasted"),
    ("peak resident memory", "session", "memory"),
    ("GPU memory", "session", "gpu_memory"),
)


def lines(record: Record) -> list[str]:
    """A row per measure: its median, and where it has several samples how bad it gets."""
    s = record.settings
    bundle = record.subjects[0]
    out = [
        f"live: {bundle.name}, {bundle.encoders}/{bundle.llm}, hears {s['source']}, {s['seconds']} s, pace {s['pace']}",
        f"{s['task']}, hop {s['hop_ms']} ms, context {s['context']}, settle {s['settle_s']}, draft {s['draft']},"
        f" speculation {s.get('speculation', 'no')}:"
        f" {_count(record, 'speech_end', 'final')} segments, {_count(record, 'update', 'latency')} updates",
        "",
        f"{'':<38}{'median':>9}{'95 %':>9}{'99 %':>9}  unit",
    ]
    rows = [(title, record.find(group, name)) for title, group, name in _ROWS]
    out += [_row(title, measure) for title, measure in rows if measure is not None]
    return [*out, "", *(f"- {note}" for note in record.notes)]


def _count(record: Record, group: str, name: str) -> int:
    measure = record.find(group, name)
    return len(measure.samples) if measure else 0


def _row(title: str, measure: Measure) -> str:
    values = [measure.value]
    if len(measure.samples) > 1:
        values += [measure.percentile(0.95), measure.percentile(0.99)]
    cells = "".join(f"{_shown(value):>9}" for value in values)
    return f"{title:<38}{cells:<27}  {measure.unit}".rstrip()


def _shown(value: float) -> str:
    """Three digits, never in powers of ten."""
    if abs(value) >= 100 or value == 0:
        return f"{value:.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.4f}"
