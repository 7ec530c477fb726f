"""`auricle-cluster caption`: clips and a cluster -> a caption file for each clip, and a summary as JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...models.errors import InputError
from ...models.interruption import interrupt, on_signals
from ...models.program import tell
from ..bundle import open_bundle
from ..cli.caption import CaptionCommand
from ..output.subtitles import write_captions
from ..output.targets import partial_of, require_targets
from ..output.terminal import waiting
from .bundle_cache import CachedBundle, digest_of
from .connection import LOCAL, connected
from .jobs import Captioned, Tally, work_through
from .parts import most_parts
from .pool import RayPool, WorkerOptions
from .worker import on_nodes

LINE_EVERY_S = 60.0
"""Where standard error is no terminal."""


@dataclass(frozen=True)
class ClusterOptions:
    """Where the workers are, and how many."""

    address: str = LOCAL
    workers: int | None = None  # None: one on each node
    gpus: float = 0.0  # of each worker
    cache: Path | None = None  # where nodes keep bundles; None: in their user's cache
    again: bool = False  # caption what has captions already


def caption_on_cluster(command: CaptionCommand, out: Path, options: ClusterOptions) -> int:
    """1: some clip has no captions, or no whole ones; each is named. Raises InputError, BundleError, RunError."""
    if options.workers is not None and options.workers < 1:
        raise InputError(f"{options.workers} workers caption nothing: give --workers 1 or more")
    if not 0 <= options.gpus < float("inf"):
        raise InputError(f"--gpus {options.gpus} is no share of a GPU: give a number such as 1 or 0.5")
    command.check()
    targets = {clip: out.absolute() / f"{clip.stem}.{command.format}" for clip in command.clips}
    require_targets([*targets.values()], command.clips)
    todo = [clip for clip in command.clips if options.again or not targets[clip].exists()]
    tally = Tally(len(command.clips), n_skipped=len(command.clips) - len(todo))
    progress = _Progress(tally)
    if not todo:
        progress.end(0)
        return 0
    cpus = command.options.model.engine.llm.n_threads or 1
    with connected(options.address, (options.workers or 1) * cpus) as ray, on_signals(interrupt):
        pool = _start_pool(ray, command, options, cpus, most_parts(todo))
        try:
            with progress:
                work_through(todo, pool, _writer(command, targets), tally, progress.show)
        finally:
            progress.end(pool.n_ended)
    return 1 if tally.failed or tally.n_cut else 0


def _start_pool(ray: Any, command: CaptionCommand, options: ClusterOptions, cpus: int, n_tasks: int) -> RayPool:
    bundle = open_bundle(command.options.model.bundle)
    local = options.address == LOCAL
    cached = None if local else CachedBundle(digest_of(bundle), options.cache)
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    n = options.workers or len(nodes) or 1
    return RayPool(ray, on_nodes(command, bundle), bundle, cached, WorkerOptions(min(n, n_tasks), cpus, options.gpus))


def _writer(command: CaptionCommand, targets: dict[Path, Path]) -> Callable[[Captioned], None]:
    """Writes a clip's captions whole; half of them to a name that is not taken for whole ones. Raises as it does."""

    def keep(result: Captioned) -> None:
        for remark in result.remarks:
            tell(f"auricle-cluster: {result.task.clip}: {remark}")
        target = targets[result.task.clip]
        if result.error is None or result.rows:
            named = target if result.error is None else partial_of(target)
            write_captions(named, result.rows, command.format, command.by_word, result.task.clip)

    return keep


class _Progress:
    """How far a job is, on standard error. A context manager."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._out = sys.stdout  # as it is before Ray prints there
        self._spinner = waiting("starting workers")
        self._started = time.monotonic()
        self._told = self._started

    def show(self) -> None:
        """The line, now."""
        self._spinner.update(self._line())
        now = time.monotonic()
        if not sys.stderr.isatty() and now - self._told >= LINE_EVERY_S:
            self._told = now
            tell(f"auricle-cluster: {self._line()}")

    def end(self, n_workers_lost: int) -> None:
        """The clips that failed on standard error, a summary on standard output."""
        tally = self._tally
        elapsed_s = time.monotonic() - self._started
        for clip, reason in tally.failed.items():
            tell(f"auricle-cluster: {clip}: {reason}")
        summary = {
            "files": tally.n_clips,
            "written": tally.n_written,
            "skipped": tally.n_skipped,
            "failed": {str(clip): reason for clip, reason in tally.failed.items()},
            "left": tally.n_clips - tally.n_done,
            "tries_lost": tally.n_lost,
            "workers_lost": n_workers_lost,
            "audio_s": round(tally.audio_s, 1),
            "elapsed_s": round(elapsed_s, 1),
            "times_real_time": round(tally.audio_s / max(1e-9, elapsed_s), 2),
        }
        print(json.dumps(summary, ensure_ascii=False), file=self._out, flush=True)

    def _line(self) -> str:
        tally = self._tally
        speed = tally.audio_s / max(1e-9, time.monotonic() - self._started)
        n_errors = len(tally.failed)
        errors = "1 error" if n_errors == 1 else f"{n_errors} errors"
        hours = f"{tally.audio_s / 3600:.2f} h of audio"
        return f"{tally.n_done} of {tally.n_clips} files, {hours}, {speed:.1f} x real time, {errors}"

    def __enter__(self) -> _Progress:
        self._spinner.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._spinner.stop()
