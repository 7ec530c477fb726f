"""`auricle-bench demo-live`: held-out sentences, captioned while they are spoken -> cost and word error by option.

Every way of reading hears the same clips in the same run, clip by clip in turn, so that their times can be compared on
a machine that is shared. Audio comes as fast as it is read: the times are those of the work, not of the waiting.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import nan
from statistics import median

from ...models.corpus import examples
from ...models.errors import InputError
from ...runtime.engine import Engine, load
from ...runtime.events import Caption, Final
from ...runtime.live.captions import LiveOptions, captions
from ...runtime.sources.playback import FilePlayback
from ..word_errors import WordErrors, word_errors

Progress = Callable[[str, int, int], None]

WAYS: Mapping[str, LiveOptions] = {
    "full": LiveOptions(),
    "no draft": LiveOptions(draft=False),
    "short": LiveOptions(context="short"),
    "settle 1 s": LiveOptions(settle_s=1.0),
    "short, settle 1 s": LiveOptions(context="short", settle_s=1.0),
    "two more questions": LiveOptions(also=("audiocaption", "slot_filling:room")),
}
"""The default first; the others change one thing, or two."""


@dataclass
class Tally:
    """What one way of reading did, over all clips."""

    errors: WordErrors = field(default_factory=lambda: WordErrors(0, 0))
    update_ms: list[float] = field(default_factory=list[float])
    final_ms: list[float] = field(default_factory=list[float])
    n_steps: int = 0
    n_tokens: int = 0
    """In all hypotheses together."""
    n_drafted: int = 0
    n_accepted: int = 0
    n_prefilled: int = 0
    """Audio tokens that were not kept."""
    n_words: int = 0
    n_revised: int = 0
    n_erased: int = 0
    """Words of a hypothesis that the next one did not have in their place: normalized erasure's numerator."""

    def row(self) -> dict[str, float]:
        """One line of the table."""
        updates = max(1, len(self.update_ms))
        return {
            "wer": self.errors.rate,
            "update_ms_p50": median(self.update_ms or [nan]),
            "update_ms_p95": sorted(self.update_ms or [nan])[int(0.95 * (updates - 1))],
            "final_ms_p50": median(self.final_ms or [nan]),
            "steps_per_update": self.n_steps / updates,
            "tokens_per_update": self.n_tokens / updates,
            "audio_tokens_prefilled": self.n_prefilled / updates,
            "draft_accepted": self.n_accepted / max(1, self.n_drafted),
            "words_erased_per_word": self.n_erased / max(1, self.n_words),
            "stable_words_revised": self.n_revised / max(1, self.n_words),
        }


def run(arguments: argparse.Namespace, tell: Progress) -> None:
    """The command: prints a table of the ways of reading, then one JSON object as the last line."""
    with load(arguments.bundle) as engine:
        rows = measure(engine, arguments.clips, arguments.seed, tell)
        print(f"{engine.bundle.manifest.name}, {arguments.clips} sentences, seed {arguments.seed}")
    width = max(map(len, rows))
    names = next(iter(rows.values()))
    for name in names:
        print(f"{name:<24}" + "".join(f"{row[name]:>{width + 2}.3g}" for row in rows.values()))
    print(" " * 24 + "".join(f"{way:>{width + 2}}" for way in rows))
    print(json.dumps({way: {name: round(value, 4) for name, value in row.items()} for way, row in rows.items()}))


def measure(engine: Engine, n: int, seed: int, progress: Progress) -> dict[str, dict[str, float]]:
    """A row for each of WAYS over n held-out sentences by voices of training."""
    if n < 1:
        raise InputError(f"{n} clips are nothing to measure: give --clips at least 1")
    tallies = {name: Tally() for name in WAYS}
    for done, example in enumerate(examples.held_out("seen", n, seed), 1):
        for name, options in WAYS.items():
            _read(engine, example, options, tallies[name])
        progress("live", done, n)
    return {name: tally.row() for name, tally in tallies.items()}


def _read(engine: Engine, example: examples.Example, options: LiveOptions, tally: Tally) -> None:
    texts: list[str] = []
    shown: list[str] = []
    for event in captions(FilePlayback(example.clip.waveform, "fast"), engine, options):
        if isinstance(event, Caption):
            work = event.work
            tally.update_ms.append(work.latency_ms)
            tally.n_steps += work.n_steps
            tally.n_tokens += work.n_new_tokens
            tally.n_drafted += work.n_drafted
            tally.n_accepted += work.n_accepted
            tally.n_prefilled += work.n_audio_tokens - work.n_kept
            shown = _erase(shown, f"{event.stable} {event.unstable}".split(), tally)
        elif isinstance(event, Final):
            texts.append(event.text)
            tally.final_ms.append(event.timings.total_ms)
            tally.n_words += len(event.text.split())
            tally.n_revised += event.n_revised
            _erase(shown, event.text.split(), tally)
            shown = []
    tally.errors += word_errors(example.expected, " ".join(texts), str.split)


def _erase(before: list[str], after: list[str], tally: Tally) -> list[str]:
    kept = next((at for at, word in enumerate(before) if after[at : at + 1] != [word]), len(before))
    tally.n_erased += len(before) - kept
    return after
