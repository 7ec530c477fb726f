"""Task and contestant: what is asked in a race and who does it; shared by `peers` (the parent) and its workers.

Nothing heavy is imported here: each contestant imports its own package when it prepares or opens.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SEED = 0
"""All contestants of a part draw the same weights, so that their outputs can be compared."""


@dataclass(frozen=True)
class Task:
    """One contest, as every worker hears it on its command line."""

    part: str
    work: Path
    """Where weights written for the peers are kept."""
    threads: int = 2
    own_threads: bool = True
    """Whether a whole answer of ours takes the threads that Auricle chooses by itself."""
    layers: int = 32
    """Of the Whisper encoder."""
    tokens: int = 32
    positions: int = 110
    """Of the prompt."""
    n_gpu_layers: int = 0
    """Of the language model, for prefill and decode alone; -1: all."""
    bundle: Path | None = None
    graph: Path | None = None
    checkpoint: Path | None = None
    whisper: Path | None = None
    """Trained weights for the Whisper encoder; None: random ones."""
    recording: Path | None = None
    """What the Whisper encoder hears; None: the exporter's speech."""
    data: Path | None = None
    """Recordings with their texts."""
    recognizers: tuple[Path, ...] = ()
    """Directories of faster-whisper's."""

    def as_json(self) -> str:
        """For a command line."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> Task:
        """Inverse of as_json."""
        raw: dict[str, Any] = json.loads(text)
        paths: dict[str, Any] = {
            name: Path(raw[name])
            for name in ("work", "bundle", "graph", "checkpoint", "whisper", "recording", "data")
            if raw[name] is not None
        }
        raw["recognizers"] = tuple(map(Path, raw["recognizers"]))
        return cls(**{**raw, **paths})


@dataclass(frozen=True)
class Outcome:
    """What one run computed: the proof that work was done."""

    shape: tuple[int, ...] = ()
    tokens: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()
    """Of all recordings, in order."""
    values: Any = None
    """The output as a float32 array, for comparing; None where there is none."""
    seconds: float | None = None
    """Wall seconds of the part that counts, when the library cannot run it alone and says itself how long it took."""


@dataclass(frozen=True)
class Work:
    """What an opened contestant does."""

    timed: Callable[[], Outcome]
    """One run, which returns when its result is in host memory."""
    before: Callable[[], object] | None = None
    """What must come before each run and is not timed."""


@dataclass(frozen=True)
class Contestant:
    """Somebody who takes part."""

    open: Callable[[Task], Work]
    """Loads the weights."""
    prepare: Callable[[Task], object] | None = None
    """Writes files below task.work, in a process of its own, so that it leaves no trace in the memory measured."""
    pip: str | None = None
    """What to install when its package is missing; None: it comes with Auricle's [export]."""
    prepared_by_us: bool = False
    """What is written needs Auricle's [export] and nothing of the peer's."""


@contextmanager
def whole_or_absent(path: Path) -> Generator[Path]:
    """A temporary file or directory name that becomes `path` when all went well; else nothing is left."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        with suppress(OSError):
            shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink()


def output_file(task: Task, name: str) -> Path:
    """Where a contestant leaves its output for comparing."""
    return task.work / "outputs" / f"{task.part}-{name}.npy".replace(" ", "-").replace(",", "")


def no_progress(stage: str, done: int, total: int) -> None:
    """Tells nobody."""
