"""`earshot-bench`: how good, and how fast, measured."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ..models.errors import EarshotError, missing_package


def parser() -> argparse.ArgumentParser:
    """Every command and option."""
    main = argparse.ArgumentParser(prog="earshot-bench", description="How good and how fast, measured.")
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser("demo-eval", help="the demo model on speech and sounds it never heard")
    demo.add_argument("--bundle", type=Path, metavar="DIR", help="default: the demo bundle")
    demo.add_argument("--f32", type=Path, metavar="DIR", help="the same model at fp32/f32, for what quantizing cost")
    demo.add_argument("--seed", type=int, default=1, metavar="N", help="which sentences are drawn")
    live = commands.add_parser("demo-live", help="live captions of the demo model: what each way of reading costs")
    live.add_argument("--bundle", type=Path, metavar="DIR", help="default: the demo bundle")
    live.add_argument("--seed", type=int, default=1, metavar="N", help="which sentences are drawn")
    live.add_argument("--clips", type=int, default=100, metavar="N", help="how many (default %(default)s)")
    return main


def demo_live(arguments: argparse.Namespace) -> None:
    """Prints a table of the ways of reading, then one JSON object as the last line."""
    try:
        from ..runtime.engine import load
        from . import live
    except ModuleNotFoundError as error:
        raise missing_package(error, "cpu") from None

    with load(arguments.bundle) as engine:
        rows = live.measure(engine, arguments.clips, arguments.seed, _tell)
        print(f"{engine.bundle.manifest.name}, {arguments.clips} sentences, seed {arguments.seed}")
    width = max(map(len, rows))
    names = next(iter(rows.values()))
    for name in names:
        print(f"{name:<24}" + "".join(f"{row[name]:>{width + 2}.3g}" for row in rows.values()))
    print(" " * 24 + "".join(f"{way:>{width + 2}}" for way in rows))
    print(json.dumps({way: {name: round(value, 4) for name, value in row.items()} for way, row in rows.items()}))


def demo_eval(arguments: argparse.Namespace) -> None:
    """Prints the table, then one JSON object as the last line."""
    try:
        from ..runtime.engine import load
        from . import quality
    except ModuleNotFoundError as error:
        raise missing_package(error, "cpu") from None

    with load(arguments.bundle) as engine:
        name = engine.bundle.manifest.name
        precision = engine.bundle.manifest.quantization
        scores = quality.evaluate(engine, arguments.seed, _tell)
    full = None
    if arguments.f32:
        with load(arguments.f32) as engine:
            full = quality.wer(engine, "seen", arguments.seed, _tell)
    print(f"{name}, encoders {precision.encoders}, llm {precision.llm}, seed {arguments.seed}")
    for what, value in (
        ("word error, voices of training", scores.wer_seen),
        ("  the same at fp32 / f32", full),
        ("word error, unseen voices", scores.wer_unseen),
        *((f"  {voice}", rate) for voice, rate in sorted(scores.by_voice.items())),
        ("sounds named", scores.sound_accuracy),
        *((f"  {sound}", share) for sound, share in sorted(scores.by_sound.items()) if share < 1),
        ("slots filled", scores.slot_accuracy),
        ("spoken questions answered word for word", scores.query_accuracy),
        ("keywords, all three in order", scores.keyword_accuracy),
        ("commands as JSON, all three parts", scores.intent_accuracy),
    ):
        print(f"{what:<42} {'-' if value is None else f'{value:7.2%}'}")
    line = {
        "wer_seen": scores.wer_seen,
        "wer_unseen": scores.wer_unseen,
        "sound_accuracy": scores.sound_accuracy,
        "slot_accuracy": scores.slot_accuracy,
        "wer_seen_f32": full,
    }
    print(json.dumps({k: v if v is None else round(v, 5) for k, v in line.items()}))


def _tell(stage: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{stage:<16} {done}/{total} " + ("\r" + " " * 32 + "\r" if done == total else ""))


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 the machine failed, 2 the input was wrong, 130 interrupted."""
    arguments = parser().parse_args(argv)
    try:
        {"demo-eval": demo_eval, "demo-live": demo_live}[arguments.command](arguments)
    except EarshotError as error:
        print(f"earshot-bench: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("earshot-bench: stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
