"""`auricle-bench lora-sweep`: scales of the LoRA -> word error and length of the answers at each.

What instruction tuning hid comes back at a lower scale, and transcription gets worse: SALMONN's paper (section 5.2,
figure 3) turns this knob at test time. Every scale answers the same clips, one scale after the other.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from ...models.audio import Waveform
from ...models.errors import InputError
from ...models.prompt import ResolvedPrompt
from ...runtime.cli.commands import engine_options
from ...runtime.engine import Engine, load
from ..datasets import Item, Progress, demo_items, load_clip, quiet, table_items
from ..result import Measure, Record, make_record, subject
from ..word_errors import WordErrors, bootstrap_interval, normalized, total, word_errors

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
"""Of the scale that the LoRA was trained at, where none are asked for."""
N_CLIPS = 50
_COLUMNS = (
    ("WER %", "wer", ".1f"),
    ("95 % from", "wer_low", ".1f"),
    ("to", "wer_high", ".1f"),
    ("words", "said", ".1f"),
    ("tokens", "tokens", ".1f"),
    ("cut %", "cut", ".0f"),
)


@dataclass(frozen=True)
class SweepOptions:
    """What is asked. Raises InputError for values that make no sense."""

    scales: tuple[float, ...] | None = None
    """None: SHARES of the trained one."""
    clips: int | None = None
    """None: N_CLIPS of the demo's, or the whole table."""
    data: Path | None = None
    """A table of recordings; None: the demo's held-out sentences."""
    task: str = "asr"
    """Where a line of the table names none."""
    seed: int = 1

    def __post_init__(self) -> None:
        if self.scales is not None and not self.scales:
            raise InputError("--scales is empty: give numbers with commas between, for example 0,1,2,4")
        if self.clips is not None and self.clips < 1:
            raise InputError(f"{self.clips} clips are nothing to measure: give --clips at least 1")


def parse_scales(text: str) -> tuple[float, ...]:
    """ "0,1,2" -> numbers, each once. Raises InputError."""
    try:
        return tuple(dict.fromkeys(float(part) for part in text.split(",") if part.strip()))
    except ValueError:
        raise InputError(
            f"--scales {text!r} are no numbers: give some with commas between, for example 0,1,2"
        ) from None


def run(arguments: argparse.Namespace, progress: Progress = quiet) -> Record:
    """The command."""
    scales = None if arguments.scales is None else parse_scales(arguments.scales)
    options = SweepOptions(scales, arguments.clips, arguments.data, arguments.task, arguments.seed)
    with load(arguments.bundle, engine_options(arguments)) as engine:
        return measure(engine, options, progress)


def measure(engine: Engine, options: SweepOptions, progress: Progress = quiet) -> Record:
    """A group of measures per scale. Raises InputError for a bundle without an adapter, RunError."""
    trained = engine.spec.lora.scale
    scales = options.scales or tuple(share * trained for share in SHARES)
    for scale in scales:
        engine.llm.require_adapter(scale)
    found: list[Measure] = []
    with tempfile.TemporaryDirectory(prefix="auricle-sweep-") as folder:
        items = _items(engine, options, Path(folder), progress)
        waveforms = [load_clip(item) for item in items]
    before = engine.llm.lora_scale
    try:
        for at, scale in enumerate(scales):
            engine.llm.set_lora_scale(scale)
            found += _at(engine, scale, items, waveforms, options.seed)
            progress(f"scale {scale:g}", at + 1, len(scales))
    finally:
        engine.llm.set_lora_scale(before)
    settings = {
        "data": str(options.data) if options.data else "demo, held-out sentences",
        "clips": str(len(items)),
        "seed": str(options.seed),
        "trained scale": f"{trained:g}",
        "most tokens": str(engine.defaults.max_new_tokens),
    }
    notes = [
        "WER: lower case, punctuation dropped, numbers as they are; interval: 95 % bootstrap over clips",
        "cut: answers that ended at the most tokens that so much audio is given, or in a loop",
    ]
    return make_record("lora-sweep", [subject(engine.bundle.manifest)], settings, found, notes)


def _items(engine: Engine, options: SweepOptions, folder: Path, progress: Progress) -> list[Item]:
    if options.data is None:
        found = demo_items(engine.prompt, options.clips or N_CLIPS, options.seed, folder, progress)
    else:
        found = table_items(options.data, engine.prompt, options.task, options.clips, options.seed)
    items = [item for item in found if item.kind == "words"]
    if not items:
        raise InputError(f"{options.data} asks for no transcription, whose word error could be swept: add asr clips")
    return items


def _at(engine: Engine, scale: float, items: Sequence[Item], waveforms: Sequence[Waveform], seed: int) -> list[Measure]:
    """All measures at the scale that is set."""
    errors: list[WordErrors] = []
    tokens = list[float]()
    lengths = list[float]()
    cut = list[float]()
    for item, waveform in zip(items, waveforms, strict=True):
        answer = engine.ask(waveform, ResolvedPrompt(item.prompt))
        errors.append(word_errors(item.reference, answer.text))
        tokens.append(float(sum(len(final.token_ids) for final in answer.segments)))
        lengths.append(float(len(normalized(answer.text))))
        cut.append(float(any(final.finish_reason != "eos" for final in answer.segments)))
    low, high = bootstrap_interval(errors, seed)
    group = f"scale {scale:g}"
    return [
        Measure(group, "scale", "", (scale,)),
        Measure(group, "wer", "%", (100 * total(errors).rate,), "lower"),
        Measure(group, "wer_low", "%", (100 * low,), "lower"),
        Measure(group, "wer_high", "%", (100 * high,), "lower"),
        Measure(group, "said", "words", (fmean(lengths),)),
        Measure(group, "tokens", "tokens", (fmean(tokens),)),
        Measure(group, "cut", "%", (100 * fmean(cut),), "lower"),
        Measure(group, "spoken", "words", (fmean(each.words for each in errors),)),
    ]


def lines(record: Record) -> list[str]:
    """The table of a record that `lora-sweep` made."""
    s = record.settings
    bundle = record.subjects[0]
    spoken = record.find(record.groups[0], "spoken")
    titles = "".join(f"{title:>11}" for title, _, _ in _COLUMNS)
    rows: list[str] = []
    for group in record.groups:
        found = [(record.find(group, name), form) for _, name, form in _COLUMNS]
        cells = "".join(f"{format(measure.value, form) if measure else '-':>11}" for measure, form in found)
        trained = "  <- as trained" if group == f"scale {s['trained scale']}" else ""
        rows.append(f"{group.removeprefix('scale '):<8}{cells}{trained}")
    return [
        f"{bundle.name} (encoders {bundle.encoders}, llm {bundle.llm}) on {s['data']}: {s['clips']} clips, "
        f"seed {s['seed']}",
        f"means per answer; {spoken.value if spoken else 0:.1f} words were spoken",
        f"{'scale':<8}{titles}",
        *rows,
        "",
        *(f"- {note}" for note in record.notes),
    ]
