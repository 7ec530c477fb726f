"""Contestants in processes of their own, taking turns: one timed run each, the others asleep.

When memory does not hold all of them at once, each is started for its turn only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from ...models.errors import INSTALL_WHERE, AuricleError, InputError, RunError, install_command
from ..result import OURS
from .task import Contestant, Task

Progress = Callable[[str, int, int], None]
_Proof = tuple[tuple[int, ...], tuple[int, ...], tuple[str, ...]]
SETTLE_S = 0.5  # between two runs: until the threads of the last one no longer spin
RESERVE = 2 << 30  # bytes left to the machine when all contestants are alive


@dataclass(frozen=True)
class Sample:
    """One timed run."""

    wall_s: float
    cpu_s: float
    """Processor time of the worker, all its threads."""
    peak: int
    """Bytes resident at most since the warm-up, weights included."""
    idle_cpu_s: float = 0.0
    """Processor time the worker used while others ran."""


@dataclass(frozen=True)
class Readiness:
    """What a worker says once it is warm."""

    resident: int
    versions: Mapping[str, str]
    shape: tuple[int, ...] = ()
    tokens: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()


class Missing(InputError):
    """A contestant whose package is not installed."""


class Runner(Protocol):
    """A contestant as the race sees it."""

    name: str

    def start(self) -> Readiness:
        """Loads and warms up. Raises AuricleError."""
        ...

    def run(self) -> Sample:
        """One timed run. Raises RunError when it died."""
        ...

    def stop(self) -> None:
        """Ends it; twice is fine."""
        ...


class Worker:
    """A contestant in its own process, spoken to in lines of JSON."""

    def __init__(self, name: str, contestant: Contestant, task: Task, python: str) -> None:
        self.name = name
        self._contestant = contestant
        self._task = task
        self._python = python
        self._process: subprocess.Popen[str] | None = None
        self._proof: _Proof = (), (), ()
        self._log = task.work / "logs" / f"{task.part}-{name}.txt".replace(" ", "-")

    def prepare(self) -> None:
        """Writes the files it needs, in a process that ends. Raises AuricleError."""
        if self._contestant.prepare is None:
            return
        try:
            self._launch("prepare", sys.executable if self._contestant.prepared_by_us else self._python)
            self._answer()
        finally:
            self.stop()

    def start(self) -> Readiness:
        """Loads and warms up. Raises Missing, RunError."""
        self._launch("serve", self._python)
        answer = self._answer()
        self._proof = _proof(answer)
        return Readiness(answer["resident"] or 0, answer["versions"], *self._proof)

    def run(self) -> Sample:
        """One timed run. Raises RunError."""
        assert self._process is not None and self._process.stdin is not None
        with suppress(BrokenPipeError):  # then there is no answer either
            self._process.stdin.write("run\n")
            self._process.stdin.flush()
        answer = self._answer()
        if _proof(answer) != self._proof:
            raise RunError(f"{self.name} computed something else than in its warm-up: its times mean nothing")
        return Sample(answer["wall_s"], answer["cpu_s"], answer["peak"] or 0, answer["idle_cpu_s"])

    def stop(self) -> None:
        """Ends the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _launch(self, verb: str, python: str) -> None:
        command = [python, "-m", f"{__package__}.worker", self.name, verb, self._task.as_json()]
        threads = {"OMP_NUM_THREADS": str(self._task.threads), "TOKENIZERS_PARALLELISM": "false"}
        self._log.parent.mkdir(parents=True, exist_ok=True)
        pipe = subprocess.PIPE
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    command, stdin=pipe, stdout=pipe, stderr=log, encoding="utf-8", env={**os.environ, **threads}
                )
        except OSError as error:
            raise InputError(f"{python} does not start ({error.strerror}): give --peer-python a Python") from None

    def _answer(self) -> dict[str, Any]:
        assert self._process is not None and self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RunError(f"{self.name} died ({_death(self._process.wait())}): {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "missing" in answer:
            package = self._contestant.pip
            command = f"pip install {package}" if package else f"{install_command('cpu,export')} {INSTALL_WHERE}"
            raise Missing(f"{answer['missing']} is not installed: {self._python} -m {command}")
        if "error" in answer:
            raise RunError(f"{self.name} failed: {answer['error']}")
        return answer

    def _last_words(self) -> str:
        lines = self._log.read_text("utf-8", "replace").strip().splitlines()
        return lines[-1].strip()[:200] if lines else "it said nothing"


@dataclass
class Race:
    """What came out: samples by contestant, one per round, and what a reader must know."""

    samples: dict[str, list[Sample]] = field(default_factory=dict[str, list[Sample]])
    ready: dict[str, Readiness] = field(default_factory=dict[str, Readiness])
    notes: list[str] = field(default_factory=list[str])


def race(
    team: Sequence[Runner],
    rounds: int,
    progress: Progress,
    settle_s: float = SETTLE_S,
    free_bytes: Callable[[], int | None] | None = None,
) -> Race:
    """Round-robin. A peer that is missing, or dies, is left out and noted; when ours does, that is raised."""
    found = Race()
    try:
        alive = _start_all(team, found, progress, free_bytes or free_memory)
        for turn in range(rounds):
            for at, runner in enumerate(list(alive)):
                progress(f"round {turn + 1}: {runner.name}", turn * len(team) + at, rounds * len(team))
                time.sleep(settle_s)
                if not _run_one(runner, found):
                    alive.remove(runner)
        progress("round", rounds * len(team), rounds * len(team))
    finally:
        for runner in team:
            runner.stop()
    return found


def _start_all(
    team: Sequence[Runner], found: Race, progress: Progress, free_bytes: Callable[[], int | None]
) -> list[Runner]:
    """Those that started. All stay alive while memory holds them; else all are stopped until their turns."""
    alive: list[Runner] = []
    crowded = False
    for at, runner in enumerate(team):
        progress(f"start {runner.name}", at, len(team))
        try:
            found.ready[runner.name] = runner.start()
        except AuricleError as error:
            leave_out(runner, found, error)
            continue
        alive.append(runner)
        free = free_bytes()
        largest = max(ready.resident for ready in found.ready.values())
        crowded = crowded or (free is not None and free < largest + RESERVE and len(team) > 1)
        for other in alive if crowded else ():
            other.stop()
    if not crowded:
        return alive
    found.notes.append("memory does not hold all contestants at once: each was started anew for each of its runs")
    return [_Restarted(runner) for runner in alive]


class _Restarted:
    """A contestant that lives for one run only."""

    def __init__(self, runner: Runner) -> None:
        self.name = runner.name
        self._runner = runner

    def start(self) -> Readiness:
        return self._runner.start()

    def run(self) -> Sample:
        try:
            self._runner.start()
            time.sleep(SETTLE_S)
            return replace(self._runner.run(), idle_cpu_s=0.0)
        finally:
            self._runner.stop()

    def stop(self) -> None:
        self._runner.stop()


def _run_one(runner: Runner, found: Race) -> bool:
    """Whether it is still there."""
    try:
        found.samples.setdefault(runner.name, []).append(runner.run())
    except AuricleError as error:
        leave_out(runner, found, error)
        return False
    return True


def leave_out(runner: Runner, found: Race, error: AuricleError) -> None:
    """What goes wrong with a peer becomes a note, and nothing of it is kept; with ours, it is the end."""
    runner.stop()
    if runner.name.startswith(OURS):
        raise error
    found.ready.pop(runner.name, None)
    found.samples.pop(runner.name, None)
    found.notes.append(f"{runner.name} is left out: {error}")


def _proof(answer: Mapping[str, Any]) -> _Proof:
    """Shape, tokens and texts of what a run gave."""
    return tuple(answer["shape"]), tuple(answer["tokens"]), tuple(answer["texts"])


def _death(status: int) -> str:
    """Why a process ended, in words."""
    if status == -9:  # SIGKILL, which Windows does not know
        return "killed, most likely for lack of memory"
    if status < 0:
        return f"signal {-status}"
    return f"exit status {status}"


def free_memory() -> int | None:
    """Bytes that can be had without swapping; None where the system does not say."""
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) * 1024
    return None
