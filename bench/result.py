"""Record of a bench run: the machine and every sample of every measure <-> one JSON object.

auricle-bench stages BUNDLE > run.txt         a table, then the record as the last line
auricle-bench compare before.txt after.txt    reads that line
"""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Literal

from ..models.bundle import Manifest
from ..models.dataclass_json import DecodeError, decode, encode
from ..models.errors import InputError
from ..runtime.system.machine import memory_bytes, usable_cores

SCHEMA = "auricle-bench 1"
_OLD_SCHEMA = "earshot-bench 1"  # the same record, before the project was renamed
PACKAGES = ("auricle", "onnxruntime", "onnxruntime-gpu", "llama-cpp-python", "numpy")
SYNTHETIC = "random weights: speed, memory and shapes are real, words and errors are not"


@dataclass(frozen=True)
class Measure:
    """One quantity of one thing, with a sample per run."""

    group: str
    """What was measured: a stage, a bundle, a way of reading, a peer."""
    name: str
    unit: str
    """"s", "ms", "GB", "GFLOP/s", "tokens/s", "%" ...; "" for a plain number."""
    samples: tuple[float, ...]
    better: Literal["lower", "higher", "neither"] = "neither"
    """Which way is an improvement; "neither": a description of the work, which compare expects unchanged."""

    @property
    def value(self) -> float:
        """The median."""
        return statistics.median(self.samples)

    def percentile(self, share: float) -> float:
        """The sample that `share` (0 to 1) of all are not above, by nearest rank."""
        ordered = sorted(self.samples)
        return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


@dataclass(frozen=True)
class Machine:
    """Where it was measured."""

    cpu: str
    cores: int
    """That this process may use."""
    memory_gb: float
    gpu: str | None
    system: str
    packages: dict[str, str]


@dataclass(frozen=True)
class Subject:
    """The bundle that was measured."""

    name: str
    family: str
    synthetic: bool
    encoders: str
    llm: str
    size_gb: float


@dataclass(frozen=True)
class Record:
    """One run of one command."""

    schema: str
    command: str
    """The auricle-bench command."""
    created: str
    """ISO 8601, UTC."""
    machine: Machine
    subjects: tuple[Subject, ...]
    settings: dict[str, str]
    """Options that change the result."""
    measures: tuple[Measure, ...]
    notes: tuple[str, ...]
    """What a reader must know beside the numbers, a sentence each."""

    def find(self, group: str, name: str) -> Measure | None:
        """One measure, if the record has it."""
        return next((m for m in self.measures if (m.group, m.name) == (group, name)), None)

    @property
    def groups(self) -> tuple[str, ...]:
        """In order of appearance."""
        return tuple(dict.fromkeys(measure.group for measure in self.measures))


def make_record(
    command: str,
    subjects: Sequence[Subject],
    settings: dict[str, str],
    measures: Sequence[Measure],
    notes: Sequence[str] = (),
    gpu: str | None = None,
) -> Record:
    """A record of now and here; a synthetic subject adds its note by itself."""
    synthetic_notes = [f"{s.name}: {SYNTHETIC}" for s in subjects if s.synthetic]
    return Record(
        SCHEMA,
        command,
        datetime.now(UTC).isoformat(timespec="seconds"),
        this_machine(gpu),
        tuple(subjects),
        settings,
        tuple(measures),
        (*synthetic_notes, *notes),
    )


def subject(manifest: Manifest) -> Subject:
    """A bundle as a record names it."""
    precision = manifest.quantization
    size = sum(entry.size for entry in manifest.files) / 1e9
    return Subject(manifest.name, manifest.family, manifest.synthetic, precision.encoders, precision.llm, size)


def this_machine(gpu: str | None = None) -> Machine:
    """CPU or board, cores, memory and the packages that do the work; `gpu` is what a provider or backend runs on."""
    packages = {name: version for name in PACKAGES if (version := _version(name))}
    system = f"{platform.system()} {platform.release()} {platform.machine()}, Python {platform.python_version()}"
    return Machine(_cpu_name(), usable_cores(), memory_bytes() / 1e9, gpu, system, packages)


def to_line(record: Record) -> str:
    """The record as one line of JSON, samples to six digits."""
    document = encode(record)
    for measure in document["measures"]:
        measure["samples"] = [float(f"{sample:.6g}") for sample in measure["samples"]]
    return json.dumps(document, ensure_ascii=False)


def read_record(path: Path) -> Record:
    """The record in the last line of a file: a bench's whole output, or that line alone. Raises InputError."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        document = json.loads(lines[-1]) if lines else None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): give a file that auricle-bench wrote") from None
    except ValueError:  # not text, or its last line is not JSON
        document = None
    if isinstance(document, dict) and document.get("schema") == _OLD_SCHEMA:  # pyright: ignore
        document = json.loads(json.dumps(document).replace('"earshot', '"auricle'))
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:  # pyright: ignore[reportUnknownMemberType]
        raise InputError(f"{path} does not end in a record of auricle-bench: give what one of its commands printed")
    try:
        return decode(Record, document)
    except DecodeError as error:
        raise InputError(f"{path} holds a damaged record ({error}): measure again") from None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_name(system: Path = Path("/proc")) -> str:
    """A board says its own name where it has a device tree; its processor's would be that of the architecture."""
    with suppress(OSError):
        if board := (system / "device-tree/model").read_text(encoding="utf-8", errors="replace").strip("\0 \n"):
            return board
    try:
        lines = (system / "cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


OURS = "auricle"
"""How our own contestant is called, in every part."""
