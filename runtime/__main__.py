"""`auricle`: words of the command line -> a command's exit status; errors -> one sentence on standard error."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from typing import cast

from ..models.errors import AuricleError, RunError, missing_package
from ..models.program import run_program
from .cli.parser import parse_arguments


def run(arguments: argparse.Namespace) -> int:
    """Does one command; returns the exit status. Raises AuricleError."""
    if arguments.command == "doctor":  # first: it must speak where the others cannot even be imported
        from .cli.doctor import run_doctor

        return run_doctor(as_json=arguments.json)
    try:
        from .cli.commands import COMMANDS
    except ModuleNotFoundError as error:
        raise missing_package(error, "cpu") from None
    except (ImportError, OSError) as error:
        raise RunError(f"a package cannot be loaded ({error}): `auricle doctor` says which, and the remedy") from None
    return COMMANDS[arguments.command](arguments)


def _print_what_can_be_shown(stream: object) -> None:
    """A terminal that cannot show a character gets its code, and the rest."""
    if isinstance(stream, io.TextIOWrapper):
        cast("io.TextIOWrapper[io.BufferedWriter]", stream).reconfigure(errors="backslashreplace")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 the machine failed, 2 the input was wrong, 128 and the number of the signal that ended it.

    A session of `listen` or `assist` that is interrupted is finished and done; not so while the model opens, and
    when the second Ctrl-C does not wait: 130.
    """
    return run_program("auricle", lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    arguments = parse_arguments(argv)
    _print_what_can_be_shown(sys.stdout)
    try:
        return run(arguments)
    except AuricleError as error:
        print(f"auricle: {error}", file=sys.stderr)
        return error.exit_status


if __name__ == "__main__":
    sys.exit(main())
