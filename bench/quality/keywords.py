"""`auricle-bench keywords`: held-out names, or words of recordings, listed or not -> recall, precision and word error.

recall: of the clips that say a name, those whose answer has it as its speaker meant it. precision: of the listed words
in the answers, those that were said. One list is one prefill more (docs/demo-salm.md).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from ...models.corpus.keyword_cases import (
    ARRANGEMENTS,
    LEAST_LETTERS,
    Arrangement,
    Case,
    Mark,
    cases,
    mark,
    recorded_cases,
    word_list,
)
from ...models.errors import InputError
from ...runtime.bundle import Bundle, open_bundle
from ...runtime.cli.commands import engine_options
from ...runtime.engine import Engine, EngineOptions
from ..datasets import load_clip, table_items
from ..result import Measure, Record, make_record, subject
from ..word_errors import WordErrors, bootstrap_interval, normalized, total

Progress = Callable[[str, int, int], None]
DEMO = "demo-salm"
TASK = "asr"
N_CLIPS = 200


def run(arguments: argparse.Namespace, progress: Progress) -> Record:
    """The command. Raises AuricleError."""
    bundle = open_bundle(arguments.bundle or DEMO)
    table, n_clips, seed = arguments.data, arguments.clips, arguments.seed
    if table is None:
        clips, origin = synthetic_clips(N_CLIPS if n_clips is None else n_clips, seed), DEMO
    else:
        clips, origin = {True: _recorded(table, bundle, n_clips, seed), False: []}, table.name
    return measure(bundle, clips, seed, progress, engine_options(arguments), origin)


def synthetic_clips(n: int, seed: int) -> dict[bool, list[Case]]:
    """n that say a name of demo-salm, and n that say none."""
    return {named: list(cases(named, n, seed)) for named in (True, False)}


def _recorded(table: Path, bundle: Bundle, n_clips: int | None, seed: int) -> list[Case]:
    items = table_items(table, bundle.manifest.prompt, TASK, n_clips, seed)
    found = recorded_cases([(load_clip(item), " ".join(normalized(item.reference))) for item in items])
    if not found:
        raise InputError(f"{table} says no word of {LEAST_LETTERS} letters that could be listed: give other recordings")
    return found


def measure(
    bundle: Bundle,
    clips: Mapping[bool, Sequence[Case]],
    seed: int,
    progress: Progress,
    options: EngineOptions | None = None,
    origin: str = DEMO,
) -> Record:
    """Every arrangement of lists over clips that say a name (True) and clips that say none."""
    measures: list[Measure] = []
    plain: dict[int, list[WordErrors]] = {}
    impossible: dict[int, str] = {}
    """Why, by the length of a list."""
    with Engine(bundle, options or EngineOptions()) as engine:
        for arrangement in ARRANGEMENTS:
            if arrangement.size in impossible or not clips[arrangement.named]:
                continue
            try:
                marks = _marks(engine, clips[arrangement.named], arrangement, seed, progress)
            except InputError as error:
                if not arrangement.size:
                    raise
                impossible[arrangement.size] = str(error)
                plain.pop(arrangement.size, None)
                continue
            errors = [WordErrors(mark.edits, mark.words) for mark in marks]
            if arrangement.named and (arrangement.with_name or not arrangement.size):
                measures.append(Measure(arrangement.title, "listed", "", (float(arrangement.size),)))
            measures += _measures(arrangement.title, marks, errors, seed)
            if not arrangement.with_name:
                plain.setdefault(arrangement.size, []).extend(errors)
    for size, errors in plain.items():
        measures += _errors("all, no list" if size == 0 else f"all, {size} others listed", errors, seed)
    synthetic = "names, sentences and spellings are held out of training; voices are those of training"
    recorded = "of each recording its rarest word is listed, among words of the others"
    notes = [
        *(f"lists of {size} words were left out: {error}" for size, error in impossible.items()),
        synthetic if clips[False] else recorded,
        "WER counts a name in another spelling as an error; interval: 95 % bootstrap over clips",
    ]
    boost = (options or EngineOptions()).llm.keyword_boost
    settings = {"data": origin, "clips": str(len(clips[True])), "seed": str(seed)}
    settings["keyword_boost"] = "as the model needs" if boost is None else f"{boost:g}"
    return make_record("keywords", [subject(bundle.manifest)], settings, measures, notes)


def lines(record: Record) -> list[str]:
    """A row for each arrangement."""
    columns = ("recall", "precision", "inserted", "wer", "wer_low", "wer_high")
    titles = ("recall %", "precision %", "inserted", "WER %", "from", "to")
    rows = [" " * 28 + "".join(f"{title:>12}" for title in titles)]
    for group in record.groups:
        found = (record.find(group, name) for name in columns)
        cells = ("" if measure is None else f"{measure.value:.4g}" for measure in found)
        rows.append(f"{group:<28}" + "".join(f"{cell:>12}" for cell in cells))
    return [*rows, *record.notes]


def _marks(
    engine: Engine, cases: Sequence[Case], arrangement: Arrangement, seed: int, progress: Progress
) -> list[Mark]:
    """Of every clip. Raises InputError for a list that the bundle cannot take."""
    marks: list[Mark] = []
    for n, case in enumerate(cases):
        marks.append(_mark(engine, case, arrangement, f"{seed} {arrangement.size} {n}"))
        progress(arrangement.title, n + 1, len(cases))
    return marks


def _mark(engine: Engine, case: Case, arrangement: Arrangement, seed: str) -> Mark:
    listed = word_list(case, arrangement.size, arrangement.with_name, seed)
    engine.keywords = listed
    return mark(case, listed, " ".join(normalized(engine.ask(case.waveform, TASK).text)))


def _measures(title: str, marks: Sequence[Mark], errors: Sequence[WordErrors], seed: int) -> list[Measure]:
    found: list[Measure] = []
    recalled = [mark.recalled for mark in marks if mark.recalled is not None]
    right = sum(mark.right for mark in marks)
    wrong = sum(mark.wrong for mark in marks)
    if recalled:
        found.append(Measure(title, "recall", "%", (100 * fmean(recalled),), "higher"))
    if right + wrong:
        found.append(Measure(title, "precision", "%", (100 * right / (right + wrong),), "higher"))
    found.append(Measure(title, "inserted", "", (wrong / len(marks),), "lower"))
    return found + _errors(title, errors, seed)


def _errors(title: str, errors: Sequence[WordErrors], seed: int) -> list[Measure]:
    low, high = bootstrap_interval(errors, seed)
    return [
        Measure(title, "wer", "%", (100 * total(errors).rate,), "lower"),
        Measure(title, "wer_low", "%", (100 * low,)),
        Measure(title, "wer_high", "%", (100 * high,)),
    ]
