"""`earshot`: speech and sound in, words out, offline."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from ..models.errors import EarshotError, RunError, missing_package


def parser() -> argparse.ArgumentParser:
    """Every command and option."""
    main = argparse.ArgumentParser(prog="earshot", description="Speech and sound in, words out, offline.")
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")
    ask = commands.add_parser("ask", help="answer one prompt about a clip", allow_abbrev=False)
    ask.add_argument("audio", type=Path, metavar="AUDIO", help="any audio or video file")
    ask.add_argument(
        "prompt",
        metavar="PROMPT_OR_TASK",
        help="a question, or a task: asr, slot_filling:room, ... (`earshot tasks` lists them)",
    )
    ask.add_argument("--json", action="store_true", help="one JSON object instead of text")
    ask.add_argument("--timings", action="store_true", help="how long each stage took")
    _add_model_options(ask)
    caption = commands.add_parser("caption", help="write captions of audio files", allow_abbrev=False)
    caption.add_argument("audio", type=Path, nargs="+", metavar="AUDIO")
    caption.add_argument("--task", default="asr", metavar="PROMPT_OR_TASK")
    caption.add_argument("--format", choices=("txt", "srt", "vtt", "jsonl"), default="txt")
    caption.add_argument("--out", type=Path, metavar="DIR", help="a file per clip instead of standard output")
    _add_model_options(caption)
    demo = commands.add_parser("demo", help="answer from the clips shipped with the demo bundle", allow_abbrev=False)
    _add_bundle_options(demo)
    doctor = commands.add_parser("doctor", help="what this machine has, and what to do about what it lacks")
    doctor.add_argument("--json", action="store_true", help="a JSON list instead of text")
    commands.add_parser("tasks", help="the named tasks and their prompts")
    verify = commands.add_parser("verify", help="check every byte of a bundle", allow_abbrev=False)
    verify.add_argument("bundle", type=Path, nargs="?", metavar="BUNDLE", help="default: the demo bundle")
    verify.add_argument("--run", action="store_true", help="also repeat the exporter's check on this machine")
    _add_device_options(verify)
    return main


def _add_model_options(command: argparse.ArgumentParser) -> None:
    _add_bundle_options(command)
    command.add_argument("--mix", action="store_true", help="mean of all channels instead of the first")
    words = command.add_argument_group("decoding")
    words.add_argument("--max-new-tokens", type=int, metavar="N")
    words.add_argument("--beams", type=int, metavar="N", help="beam search; default 1: greedy (SALMONN's own is 4)")
    words.add_argument("--temperature", type=float, default=0.0, metavar="T", help="above 0: sample")
    words.add_argument("--top-p", type=float, default=0.9, metavar="P")
    words.add_argument("--seed", type=int, default=0, metavar="N")
    words.add_argument("--repetition-penalty", type=float, default=1.0, metavar="R")
    words.add_argument("--lora-scale", type=float, metavar="S", help="needs a bundle with an adapter")


def _add_bundle_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--bundle", type=Path, metavar="DIR", help="default: the demo bundle")
    _add_device_options(command)


def _add_device_options(command: argparse.ArgumentParser) -> None:
    device = command.add_argument_group("device")
    device.add_argument("--provider", choices=("auto", "cpu", "cuda", "tensorrt", "coreml"), default="auto")
    device.add_argument("--threads", type=int, metavar="N", help="default: cores - 1 for llama.cpp, cores for encoders")
    device.add_argument("--n-gpu-layers", type=int, default=-1, metavar="N", help="default: all, when the build can")


def run(arguments: argparse.Namespace) -> int:
    """Does one command; returns the exit status. Raises EarshotError."""
    if arguments.command == "doctor":  # first: it must speak where the others cannot even be imported
        from .doctor import run_doctor

        return run_doctor(as_json=arguments.json)
    try:
        from . import commands
    except ModuleNotFoundError as error:
        raise missing_package(error, "cpu") from None
    except (ImportError, OSError) as error:
        raise RunError(f"a package cannot be loaded ({error}): `earshot doctor` says which, and the remedy") from None
    return commands.COMMANDS[arguments.command](arguments)


def _print_what_can_be_shown(stream: object) -> None:
    """A terminal that cannot show a character gets its code, and the rest."""
    if isinstance(stream, io.TextIOWrapper):
        cast("io.TextIOWrapper[io.BufferedWriter]", stream).reconfigure(errors="backslashreplace")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 the machine failed, 2 the input was wrong, 130 interrupted."""
    arguments = parser().parse_args(argv)
    _print_what_can_be_shown(sys.stdout)
    try:
        return run(arguments)
    except EarshotError as error:
        print(f"earshot: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("earshot: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the interpreter complains at exit
        return 0


if __name__ == "__main__":
    sys.exit(main())
