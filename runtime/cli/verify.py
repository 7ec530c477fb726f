"""`auricle verify` and `auricle tasks`: a bundle -> whether it is whole, and what can be asked of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ...models.errors import BundleError, RunError
from ..bundle import open_bundle, verify_hashes
from ..engine import Engine, EngineOptions


@dataclass(frozen=True)
class VerifyCommand:
    """What `auricle verify` is told."""

    bundle: Path | None = None  # None: the demo bundle
    run: bool = False  # also compute the exporter's check here
    engine: EngineOptions = field(default_factory=EngineOptions)


def tasks(bundle: Path | None) -> int:
    """The tasks that have a name in a bundle, and their prompts."""
    for name, prompt in open_bundle(bundle).manifest.prompt.tasks.items():
        print(f"{name + (':WORDS' if '{}' in prompt else ''):<26} {prompt.replace('{}', 'WORDS')}")
    return 0


def verify(command: VerifyCommand) -> int:
    """Every byte of a bundle, and with --run every stage's numbers on this machine."""
    bundle = open_bundle(command.bundle)
    verify_hashes(bundle, _bar(sum(entry.size for entry in bundle.manifest.files)))
    print(f"{bundle.directory}: {len(bundle.manifest.files)} files, every byte as exported")
    if not command.run:
        return 0
    check = bundle.manifest.self_check
    if check is None:
        raise BundleError(f"{bundle.directory} holds no expected values to run against: it is a synthetic bundle")
    from ..self_check import run_self_check

    with Engine(bundle, command.engine) as engine:
        results = run_self_check(engine, check)
    for result in results:
        verdict = "ok" if result.passed else "WRONG"
        print(f"{result.stage:<15} error {result.error:.2e}, allowed {result.tolerance:.0e}  {verdict}")
    if wrong := [result.stage for result in results if not result.passed]:
        raise RunError(f"this machine computes {', '.join(wrong)} differently: `auricle doctor` may say why")
    return 0


def _bar(total: int) -> Callable[[int], None]:
    """A percentage on a terminal, nothing elsewhere."""
    done = 0

    def advance(n_bytes: int) -> None:
        nonlocal done
        done += n_bytes
        if sys.stderr.isatty() and total > 100 << 20:
            sys.stderr.write(f"\rread {done / total:4.0%}" + ("\n" if done >= total else ""))

    return advance
