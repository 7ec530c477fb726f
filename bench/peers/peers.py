"""`auricle-bench peers`: ours beside what would be used instead, alternating, each in a process of its own.

    round 1   A  B  C     one timed run each, the others asleep
    round 2   A  B  C     so that whatever else this machine does falls on all of them alike

The ratios are taken within a round, ours / peer: below 1 we are faster. What a contestant loads or writes beforehand,
and its first run, are not timed. Memory is the most that was resident while it ran, weights included.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from ...models.bundle import read_manifest
from ...models.errors import AuricleError, InputError
from ...runtime.system.machine import usable_cores
from ..result import OURS, Record
from . import recordings
from .race import Progress, Race, Worker, leave_out, race
from .table import lines, to_record
from .task import Contestant, Task, no_progress
from .worker import PARTS, contestants

__all__ = ["PARTS", "lines", "measure", "run"]


def run(arguments: argparse.Namespace, progress: Progress = no_progress) -> Record:
    """The handler of the command. Raises InputError, RunError."""
    bundle = _bundle(arguments.part, arguments.bundle)
    given = (
        tempfile.TemporaryDirectory(prefix="auricle-peers-") if arguments.work is None else nullcontext(arguments.work)
    )
    with given as directory:
        task = Task(
            part=arguments.part,
            work=Path(directory).resolve(),
            threads=arguments.threads or usable_cores(),
            own_threads=arguments.threads is None,
            layers=arguments.layers,
            tokens=arguments.tokens,
            n_gpu_layers=arguments.n_gpu_layers,
            bundle=bundle,
            graph=_absolute(arguments.graph),
            checkpoint=_absolute(arguments.checkpoint),
            whisper=_absolute(arguments.whisper),
            recording=_absolute(arguments.recording),
            data=_absolute(arguments.data),
            recognizers=tuple(path.resolve() for path in arguments.recognizer if _absolute(path)),
        )
        if task.part == "recordings":
            recordings.items(task)
        team = chosen(contestants(task), arguments.only)
        return measure(task, team, arguments.rounds, arguments.peer_python or sys.executable, progress)


def measure(
    task: Task,
    team: Mapping[str, Contestant],
    rounds: int,
    python: str = sys.executable,
    progress: Progress = no_progress,
) -> Record:
    """Prepares everybody, then races them. `python` runs the peers. Raises RunError when ours cannot run."""
    before = Race()
    workers: list[Worker] = []
    for at, (name, contestant) in enumerate(team.items()):
        worker = Worker(name, contestant, task, sys.executable if name.startswith(OURS) else python)
        progress(f"prepare {name}", at, len(team))
        try:
            worker.prepare()
        except AuricleError as error:
            leave_out(worker, before, error)
        else:
            workers.append(worker)
    found = race(workers, rounds, progress)
    return to_record(task, team, replace(found, notes=[*before.notes, *found.notes]), rounds)


def chosen(known: Mapping[str, Contestant], only: str | None) -> dict[str, Contestant]:
    """Those of `only`, names with commas between; ours is always there. Raises InputError."""
    if only is None:
        return dict(known)
    names = [name.strip() for name in only.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise InputError(f"nobody is called {name!r} in this part: choose among {', '.join(known)}")
    return {name: known[name] for name in known if name in names or name == OURS}


def _bundle(part: str, given: Path | None) -> Path | None:
    """The bundle's absolute path; the demo's where a part cannot do without. Raises BundleError."""
    if given is None:
        if part not in ("decode", "prefill", "answer"):
            return None
        from ...models.bundle import shipped_bundle

        return shipped_bundle()
    read_manifest(given)
    return given.resolve()


def _absolute(path: Path | None) -> Path | None:
    if path is not None and not path.exists():
        raise InputError(f"{path} does not exist: give a file or directory that does")
    return path.resolve() if path else None
