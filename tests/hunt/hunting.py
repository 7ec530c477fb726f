"""Hunts: thousands of spoiled inputs, in batches, each batch in a process of its own -> what became of each.

    python tests/hunt/hunting.py KIND [--seed S] [--first N] [--cases N]

KIND is a module's name here without `_cases`. A case is made from its seed and its number alone. Its outcome must be a
result or one sentence within 10 s of the processor and 1 GB. What is neither, and a wrong length in silence, is a
finding: its input is kept below build/hunt with the command that repeats it, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import selectors
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
KEPT = ROOT / "build" / "hunt"
KINDS = ("audio", "manifests", "schemas", "grammars", "streams", "microphones")
LIMIT_S = 10.0  # of the processor: the machine may have other work
PATIENCE = 6  # times as long by the clock, for what sleeps
LIMIT_BYTES = 1 << 30
OPENING_S = 120.0  # a process may take so long to import what it hunts, and to make cases
BATCH = 500
NO_MEMORY = ("Cannot allocate memory", "MemoryError", "bad_alloc")


@dataclass(frozen=True)
class Case:
    """One input."""

    title: str
    """What was done to it."""
    content: bytes
    suffix: str = ""
    check: Callable[[Any], str | None] = field(default=lambda _: None)
    """What is wrong with a result, if anything."""


class Kind(Protocol):
    """A module of cases."""

    def make_case(self, seed: int, number: int) -> Case: ...

    def run_case(self, case: Case, folder: Path) -> Any:
        """What the program makes of it. Raises AuricleError for a refusal; everything else is a finding."""
        ...


@dataclass(frozen=True)
class Outcome:
    """Of one case."""

    number: int
    title: str
    status: str
    """"result", "refused", or what is wrong: "crash", "hang", "memory", "traceback", "sentence", "wrong"."""
    detail: str
    ms: float

    @property
    def is_finding(self) -> bool:
        """Neither a result nor a refusal."""
        return self.status not in ("result", "refused")


@dataclass
class Tally:
    """Of a hunt."""

    kind: str
    seed: int
    outcomes: Counter[str] = field(default_factory=Counter[str])
    findings: list[Outcome] = field(default_factory=list[Outcome])
    slowest_ms: float = 0.0
    seconds: float = 0.0

    def add(self, outcome: Outcome) -> None:
        """Keeps a finding's input."""
        self.outcomes[outcome.status] += 1
        self.slowest_ms = max(self.slowest_ms, outcome.ms)
        if outcome.is_finding:
            self.findings.append(outcome)
            keep(self.kind, self.seed, outcome)

    def line(self) -> str:
        """As JSON."""
        found = {"hunt": self.kind, "seed": self.seed, "cases": self.outcomes.total(), **self.outcomes}
        return json.dumps(found | {"slowest_ms": round(self.slowest_ms), "seconds": round(self.seconds)})


def kind_of(name: str) -> Kind:
    """The module of a kind."""
    helpers = ROOT / "tests" / "helpers"
    paths = [str(path) for path in (HERE, ROOT / "tests", helpers, helpers / "llm")]
    sys.path[:0] = [path for path in paths if path not in sys.path]
    module: Any = importlib.import_module(f"{name}_cases")
    return module


def command(kind: str, seed: int, first: int, n: int) -> list[str]:
    """That repeats some cases."""
    words = [sys.executable, str(HERE / "hunting.py"), kind]
    return [*words, "--seed", str(seed), "--first", str(first), "--cases", str(n)]


def keep(kind: str, seed: int, outcome: Outcome) -> None:
    """The input, and what was found with it."""
    KEPT.mkdir(parents=True, exist_ok=True)
    case = kind_of(kind).make_case(seed, outcome.number)
    path = KEPT / f"{kind}-{seed}-{outcome.number}{case.suffix}"
    path.write_bytes(case.content)
    again = shlex.join(command(kind, seed, outcome.number, 1))
    path.with_name(path.name + ".txt").write_text(
        f"{outcome.status}: {case.title}\n{outcome.detail}\n\n{again}\n", encoding="utf-8"
    )


def hunt(kind: str, n: int, seed: int = 1, first: int = 0, show: Callable[[str], object] = print) -> Tally:
    """Runs cases first to first + n."""
    tally = Tally(kind, seed)
    started = time.monotonic()
    at = first
    while at < first + n:
        for outcome in _batch(kind, seed, at, min(BATCH, first + n - at)):
            tally.add(outcome)
            if outcome.is_finding:
                show(f"{kind} {seed} {outcome.number}: {outcome.status}: {outcome.title}: {outcome.detail[-600:]}")
            at = outcome.number + 1
    tally.seconds = time.monotonic() - started
    return tally


def _batch(kind: str, seed: int, first: int, n: int) -> Iterator[Outcome]:
    """In one process; ends behind the first case that the process did not survive."""
    with tempfile.TemporaryFile() as errors, tempfile.TemporaryDirectory(prefix="auricle-hunt-") as folder:
        job = subprocess.Popen(
            [*command(kind, seed, first, n), "--inside"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=os.environ | {"TMPDIR": folder},  # ours to remove, for a process that is killed removes nothing
        )
        number, begun, ended = first, time.monotonic(), 0
        try:
            for line in _lines(job):
                if line is None:
                    yield Outcome(
                        number, "", "hang", f"no end within {PATIENCE * LIMIT_S} s", 1e3 * (time.monotonic() - begun)
                    )
                    return
                begun = time.monotonic()
                found = json.loads(line)
                if "status" in found:
                    yield Outcome(**found)
                    ended += 1
                number = found["number"] + ("status" in found)
            if ended < n:
                errors.seek(0)
                tail = errors.read()[-3000:].decode(errors="replace")
                if not ended and number == first and "Traceback" in tail:
                    raise RuntimeError(f"the hunt itself does not work:\n{tail}")
                yield Outcome(number, "", "crash", f"status {job.wait()}\n{tail}", 0.0)
        finally:
            job.kill()
            job.communicate()


def _lines(job: subprocess.Popen[bytes]) -> Iterator[bytes | None]:
    """What a process writes, line by line; None when nothing comes for too long."""
    assert job.stdout is not None
    held, limit = b"", OPENING_S
    with selectors.DefaultSelector() as selector:
        selector.register(job.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(limit):
                yield None
                return
            data = os.read(job.stdout.fileno(), 1 << 16)
            if not data:
                return
            *lines, held = (held + data).split(b"\n")
            yield from lines
            limit = OPENING_S if not lines or b'"status"' in lines[-1] else PATIENCE * LIMIT_S


def inside(kind: str, seed: int, first: int, n: int) -> None:
    """The process of a batch."""
    tell = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries print what they like
    cases = kind_of(kind)
    with tempfile.TemporaryDirectory() as folder:
        cases.make_case(seed, first)
        _limit_memory()
        for number in range(first, first + n):
            case = cases.make_case(seed, number)
            print(json.dumps({"number": number}), file=tell, flush=True)
            print(json.dumps(vars(_outcome(cases, case, number, Path(folder)))), file=tell, flush=True)


def _outcome(cases: Kind, case: Case, number: int, folder: Path) -> Outcome:
    from auricle.models.errors import AuricleError

    started = time.monotonic()
    try:
        with _alarm():
            wrong = case.check(cases.run_case(case, folder))
        status, detail = ("wrong", wrong) if wrong else ("result", "")
    except AuricleError as error:
        status, detail = _refusal(str(error))
    except TimeoutError:
        status, detail = "hang", traceback.format_exc()
    except MemoryError:
        status, detail = "memory", traceback.format_exc()
    except BaseException:
        status, detail = "traceback", traceback.format_exc()
    return Outcome(number, case.title, status, detail, 1e3 * (time.monotonic() - started))


def _refusal(sentence: str) -> tuple[str, str]:
    if any(words in sentence for words in NO_MEMORY):
        return "memory", sentence
    good = sentence.isprintable() and 10 < len(sentence) < 2000 and not sentence.endswith(".")
    return "refused" if good else "sentence", sentence


def _limit_memory() -> None:
    """1 GB more than what is imported."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGESIZE") + LIMIT_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


@contextmanager
def _alarm() -> Generator[None]:
    """TimeoutError in Python's own loops; whoever waits for this process ends those of C."""

    def late(*_: object) -> None:
        raise TimeoutError(f"no end within {LIMIT_S} s of the processor")

    signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def main() -> int:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.inside:
        inside(words.kind, words.seed, words.first, words.cases)
        return 0
    tally = hunt(words.kind, words.cases, words.seed, words.first, lambda text: print(text, flush=True))
    print(tally.line(), flush=True)
    return 1 if tally.findings else 0


if __name__ == "__main__":
    sys.exit(main())
