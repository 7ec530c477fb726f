"""`auricle-bench keywords`: held-out names, with lists and without -> recall, precision and word error.

recall: of the clips that say a name, those whose answer has it as its speaker meant it. precision: of the listed words
in the answers, those that were said. One list is one prefill more (docs/demo-salm.md).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from statistics import fmean

from ...models.corpus.keyword_cases import ARRANGEMENTS, Arrangement, Case, Mark, cases, mark, word_list
from ...models.errors import InputError
from ...runtime.bundle import Bundle, open_bundle
from ...runtime.cli.commands import engine_options
from ...runtime.engine import Engine, EngineOptions
from ..result import Measure, Record, make_record, subject
from ..word_errors import WordErrors, bootstrap_interval, total

Progress = Callable[[str, int, int], None]
TASK = "asr"


def run(arguments: argparse.Namespace, progress: Progress) -> Record:
    """The command. Raises AuricleError."""
    bundle = open_bundle(arguments.bundle or "demo-salm")
    return measure(bundle, arguments.clips, arguments.seed, progress, engine_options(arguments))


def measure(
    bundle: Bundle, n_clips: int, seed: int, progress: Progress, options: EngineOptions | None = None
) -> Record:
    """Every arrangement of lists over n_clips that say a name and n_clips that say none."""
    clips = {named: list(cases(named, n_clips, seed)) for named in (True, False)}
    measures: list[Measure] = []
    plain: dict[int, list[WordErrors]] = {}
    impossible: dict[int, str] = {}
    """Why, by the length of a list."""
    with Engine(bundle, options or EngineOptions()) as engine:
        for arrangement in ARRANGEMENTS:
            if arrangement.size in impossible:
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
    notes = [
        *(f"lists of {size} words were left out: {error}" for size, error in impossible.items()),
        "names, sentences and spellings are held out of training; voices are those of training",
        "WER counts a name in another spelling as an error; interval: 95 % bootstrap over clips",
    ]
    settings = {"clips": str(n_clips), "seed": str(seed)}
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
    return mark(case, listed, engine.ask(case.waveform, TASK).text)


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
