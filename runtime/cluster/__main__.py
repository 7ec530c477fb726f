"""`auricle-cluster`: words of the command line -> captions of many files; errors -> one sentence on standard error."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ...models.errors import AuricleError, missing_package
from ...models.program import run_program, tell
from ..cli.parser import add_caption_options
from .connection import LOCAL
from .supervised import supervised


def parser() -> argparse.ArgumentParser:
    """Its command and options."""
    main = argparse.ArgumentParser(prog="auricle-cluster", description="Many files on many machines, by Ray.")
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")
    caption = commands.add_parser("caption", help="write captions of audio files", allow_abbrev=False)
    inputs = "files, folders (all clips below), globs, or @FILE: a list of such, one in a line"
    caption.add_argument("inputs", nargs="+", metavar="INPUT", help=inputs)
    caption.add_argument("--out", type=Path, required=True, metavar="DIR", help="a file per clip, named like the clip")
    caption.add_argument("--again", action="store_true", help="also clips whose captions are in DIR already")
    cluster = caption.add_argument_group("cluster")
    address = "local: this machine alone; HOST:PORT of the head, on a node of the cluster; default: local"
    cluster.add_argument("--address", default=LOCAL, metavar="ADDRESS", help=address)
    cluster.add_argument("--workers", type=int, metavar="N", help="opened bundles in all; default: one on each node")
    cluster.add_argument("--gpus", type=float, default=0.0, metavar="X", help="of each worker, such as 0.5; default: 0")
    where = "where nodes keep copies of the bundle; default: in their user's cache"
    cluster.add_argument("--cache", type=Path, metavar="DIR", help=where)
    add_caption_options(caption)
    return main


def run(arguments: argparse.Namespace) -> int:
    """Does the command; returns the exit status. Raises AuricleError."""
    try:
        from ..cli.commands import caption_command
        from .caption import ClusterOptions, caption_on_cluster
        from .inputs import find_clips
    except ModuleNotFoundError as error:
        raise missing_package(error, "cpu,cluster") from None
    command = caption_command(arguments, find_clips(arguments.inputs))
    options = ClusterOptions(arguments.address, arguments.workers, arguments.gpus, arguments.cache, arguments.again)
    return caption_on_cluster(command, arguments.out, options)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 something failed, 2 the input was wrong, 128 and a signal's number: it ended the job."""
    return run_program("auricle-cluster", lambda: _main(argv), "stopped: the same command goes on")


def _main(argv: Sequence[str] | None) -> int:
    words = sys.argv[1:] if argv is None else argv
    arguments = parser().parse_args(words)
    try:
        if arguments.address == LOCAL:
            return run(arguments)
        return supervised(words, lambda: run(arguments))
    except AuricleError as error:
        tell(f"auricle-cluster: {error}")
        return error.exit_status


if __name__ == "__main__":
    sys.exit(main())
