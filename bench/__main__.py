"""`auricle-bench`: how good, how fast and how large, measured. Each command is `run` of the module in COMMANDS."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from ..models.errors import AuricleError, missing_package
from ..models.program import run_program
from .options import parser

COMMANDS = {
    "synth": ".export.synthetic.bundle",
    "device": "speed.device",
    "stages": "speed.stages",
    "batch": "speed.batch",
    "live": "live.live",
    "streams": "live.streams",
    "serve": "live.serve",
    "quality": "quality.quality",
    "lora-sweep": "quality.lora_sweep",
    "keywords": "quality.keywords",
    "fit": "speed.fit",
    "peers": "peers.peers",
    "compare": "report.compare",
    "report": "report.page",
    "demo-eval": "quality.demo_eval",
    "demo-live": "live.demo_live",
    "word-times": "quality.word_times",
    "support": "quality.support",
}
"""Command -> its module, from this package; `synth` is the exporter's and the one command that needs torch."""
RECORDED = (
    *("device", "stages", "batch", "live", "streams", "serve", "quality", "lora-sweep", "keywords", "fit", "peers"),
)
"""Their modules have `run(arguments, progress) -> Record` and `lines(record)`; the others print for themselves."""
TOLD = ("demo-eval", "demo-live", "word-times", "support")
"""They print for themselves, and tell their progress."""
EXTRAS = {"synth": "export", "serve": "cpu,bench,serve"}
"""What is to be installed, where it is not `cpu,bench`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 the machine failed or a comparison found a regression, 2 wrong input.

    128 and its number where a signal ended it.
    """
    return run_program("auricle-bench", lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    arguments = parser().parse_args(argv)
    try:
        module = _module(arguments.command)
        if arguments.command in RECORDED:
            return _measure(module, arguments)
        return (module.run(arguments, tell) if arguments.command in TOLD else module.run(arguments)) or 0
    except AuricleError as error:
        _clear()
        print(f"auricle-bench: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        _clear()
        raise


def _module(command: str) -> ModuleType:
    try:
        return import_module(f".{COMMANDS[command]}", __package__)
    except ModuleNotFoundError as error:
        raise missing_package(error, EXTRAS.get(command, "cpu,bench")) from None


def _measure(module: ModuleType, arguments: argparse.Namespace) -> int:
    """The table, then the record as the last line, whatever becomes of the page that --report asks for."""
    from .result import to_line

    if arguments.report:
        _module("report").require_writable(arguments.report)
    record = module.run(arguments, tell)
    _clear()
    print("\n".join(module.lines(record)))
    try:
        if arguments.report:
            print(f"report: {_module('report').write([record], arguments.report)}")
    finally:
        print(to_line(record))
    return 0


def tell(stage: str, done: int, total: int) -> None:
    """One line on a terminal's standard error that is written over; nothing elsewhere."""
    if sys.stderr.isatty():
        share = f" {done}/{total}" if total else ""
        sys.stderr.write(f"\r\033[K{stage}{share}"[:100])
        sys.stderr.flush()


def _clear() -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
        sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
