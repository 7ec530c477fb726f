"""A demo model's training: options in, its stages run one after the other, each resumed where it was stopped."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

import torch
from torch import distributed, nn

from ...models.errors import AuricleError, InputError
from .trainer import Trainer

ALL = "all"


@dataclass(frozen=True)
class TrainingOptions:
    """Where a model is trained and how long: the options of `stage_parser`, by their names."""

    work: Path
    """Corpus and training checkpoints."""
    out: Path
    """Where the stage `write` puts the finished checkpoint."""
    clips: int = 0
    """Of the corpus, where that is made beforehand."""
    stage: str = ALL
    """One stage, or all of them."""
    seed: int = 0
    threads: int = 2
    scale: float = 1.0
    """Factor on every stage's minutes."""


Options = TypeVar("Options", bound=TrainingOptions)
Rendered = TypeVar("Rendered")


class Training(Generic[Options]):
    """One training in a work directory. A stage is a method of its name behind an underscore."""

    STAGES: ClassVar[tuple[str, ...]]
    MINUTES: ClassVar[Mapping[str, float]]
    """Computing time of the stages that train."""
    TOKENIZER: ClassVar[str]
    """File name of the tokenizer in the work directory."""

    def __init__(self, options: Options) -> None:
        self.work = options.work
        self.options = options

    def run(self, stage: str) -> None:
        """Run or continue one stage; a finished one returns at once. Raises InputError when an earlier one is due."""
        stages: dict[str, Callable[[], object]] = {name: getattr(self, f"_{name}") for name in self.STAGES}
        stages[stage]()

    def trainer(
        self,
        stage: str,
        modules: dict[str, nn.Module],
        rate: float,
        *,
        muon: bool = True,
        shares: Mapping[str, float] | None = None,
    ) -> Trainer:
        """The loop of a stage that trains, begun or continued.

        rate: the highest learning rate; muon: of matrices; shares: of the rate, for modules that learn more slowly.
        """
        minutes = self.minutes(stage) * self.options.scale
        return Trainer(self.checkpoint(stage), modules, minutes, rate, muon=muon, shares=shares)

    def minutes(self, stage: str) -> float:
        """Computing time of a stage that trains."""
        return self.MINUTES[stage]

    def checkpoint(self, stage: str) -> Path:
        """Where the trainer of a stage saves its modules."""
        return self.work / f"{stage}.pt"

    def restore(self, stage: str, modules: Mapping[str, nn.Module]) -> None:
        """Modules as a stage left them. Raises InputError when it has not been run."""
        state = torch.load(self.require(self.checkpoint(stage), stage), weights_only=True)
        for name, module in modules.items():
            module.load_state_dict(state[name])

    def require(self, path: Path, stage: str) -> Path:
        """The path of what a stage makes. Raises InputError when it is not there."""
        if not path.exists():
            raise InputError(f"{path} is missing: run --stage {stage} first")
        return path

    @property
    def tokenizer_path(self) -> Path:
        """Where the stage `tokenizer` puts its file."""
        return self.work / self.TOKENIZER

    def make_corpus(self, write: Callable[[Path, int, int, int], None]) -> None:
        """Render the clips that are missing. write: write_corpus(folder, n_clips, seed, processes)."""
        write(self.work / "corpus", self.options.clips, self.options.seed, self.options.threads)

    def read_clips(self, read: Callable[[Path], list[Rendered]]) -> list[Rendered]:
        """The corpus. read: read_corpus(folder). Raises InputError when none has been made."""
        clips = read(self.work / "corpus")
        if not clips:
            raise InputError(f"{self.work / 'corpus'} holds no clips: run --stage corpus first")
        return clips


def stage_parser(
    module: str, about: str, training: type[Training[Options]], clips: int | None, size: str
) -> argparse.ArgumentParser:
    """The options of TrainingOptions, by their names.

    clips: the default, None where there is no such option; size: about what --work takes.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=about)
    parser.add_argument("--work", type=Path, required=True, help=f"corpus and training checkpoints, about {size}")
    parser.add_argument("--out", type=Path, required=True, help="directory for the finished checkpoint")
    parser.add_argument("--stage", choices=(ALL, *training.STAGES), default=ALL)
    if clips is not None:
        parser.add_argument("--clips", type=int, default=clips, help="training clips (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="CPU cores to use (default %(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on every stage's training time")
    return parser


def run_stages(training: type[Training[Options]], options: Options) -> int:
    """Runs the stages asked for; Auricle's errors become one sentence and an exit status. torchrun starts many.

    training: makes the untrained model, anew for each stage, which may wrap or freeze what it was given.
    """
    stages = training.STAGES if options.stage == ALL else (options.stage,)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    if "WORLD_SIZE" in os.environ:
        distributed.init_process_group("gloo")
    try:
        options.work.mkdir(parents=True, exist_ok=True)
        for stage in stages:
            training(options).run(stage)
    except AuricleError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("stopped; run it again to go on", file=sys.stderr)
        return 1
    return 0
