"""The command line of a demo model's training: stages one after the other, each in a model opened anew."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import distributed

from ...models.errors import AuricleError


def stage_parser(module: str, about: str, stages: Sequence[str], clips: int, size: str) -> argparse.ArgumentParser:
    """--work, --out, --stage, --clips, --seed, --threads and --scale; size: about what --work takes."""
    parser = argparse.ArgumentParser(prog=f"python -m auricle.export.{module}", description=about)
    parser.add_argument("--work", type=Path, required=True, help=f"corpus and training checkpoints, about {size}")
    parser.add_argument("--out", type=Path, required=True, help="directory for the finished checkpoint")
    parser.add_argument("--stage", choices=("all", *stages), default="all")
    parser.add_argument("--clips", type=int, default=clips, help="training clips (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="CPU cores to use (default %(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on every stage's training time")
    return parser


def run_stages(run: Callable[[str], object], stages: Sequence[str], work: Path, threads: int, seed: int) -> int:
    """Runs the stages asked for; Auricle's errors become one sentence and an exit status. torchrun starts many."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    if "WORLD_SIZE" in os.environ:
        distributed.init_process_group("gloo")
    try:
        work.mkdir(parents=True, exist_ok=True)
        for stage in stages:
            run(stage)
    except AuricleError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("stopped; run it again to go on", file=sys.stderr)
        return 1
    return 0
