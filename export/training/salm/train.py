"""Train the second demo model: `python -m auricle.export.training.salm.train --work DIR --out CHECKPOINT_DIR`.

Stages, in order: `corpus` (synthetic speech with invented names), `tokenizer`, `llm` (text alone: writing what is heard
and looking names up in a list), `encoder` (spelling, CTC), `joint` (everything, projection and LoRA included), `write`
(canary-qwen's checkpoint format) and `judge` (what a word list is good for, measured on the written checkpoint). Each
continues where it was stopped; a finished one returns at once. A stage that trains can also run under torchrun, one
process per core: `torchrun --nproc-per-node 2 -m auricle.export.training.salm.train --threads 1 --stage joint ...`
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import nn

from ....models.errors import InputError
from ..stages import run_stages, stage_parser
from ..trainer import Trainer
from . import encoder as demo_salm_encoder
from . import joint as lessons
from . import llm as demo_salm_llm
from .corpus import Spoken, read_corpus, write_corpus
from .evaluate import report
from .write import read_checkpoint, write_checkpoint

STAGES = ("corpus", "tokenizer", "llm", "encoder", "joint", "write", "judge")
MINUTES = {"llm": 48.0, "encoder": 43.0, "joint": 38.0}
"""Training time by stage, as the shipped model took: llm and encoder on one core each, joint on two."""
RATES = {"llm": 1.5e-3, "encoder": 1.2e-3, "joint": 1.2e-3}


@dataclass(frozen=True)
class Options:
    """Where the model is trained and how long."""

    work: Path
    """Corpus and training checkpoints: about 1.5 GB."""
    out: Path
    """Where `write` puts config.json, model.safetensors and qwen3/."""
    clips: int = 23_000
    seed: int = 0
    threads: int = 2
    scale: float = 1.0
    """Factor on every stage's minutes."""
    minutes: dict[str, float] = field(default_factory=lambda: dict(MINUTES))


class DemoSalm:
    """The stages of one training, sharing a work directory."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.work = options.work
        self.encoder = demo_salm_encoder.new_encoder()
        self.head = demo_salm_encoder.new_head()
        self.llm = demo_salm_llm.new_llm()
        self.letters = demo_salm_llm.LetterTokens()
        self.projection = lessons.new_projection()

    def run(self, stage: str) -> None:
        """Run or continue one stage."""
        stages: dict[str, Callable[[], object]] = {name: getattr(self, f"_{name}") for name in STAGES}
        stages[stage]()

    @cached_property
    def clips(self) -> list[Spoken]:
        """The corpus. Raises InputError when it has not been made."""
        clips = read_corpus(self.work / "corpus")
        if not clips:
            raise InputError(f"{self.work / 'corpus'} holds no clips: run --stage corpus first")
        return clips

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer. Raises InputError when it has not been trained."""
        if not self._tokenizer_path.exists():
            raise InputError(f"{self._tokenizer_path} is missing: run --stage tokenizer first")
        return Tokenizer.from_file(str(self._tokenizer_path))

    @property
    def _tokenizer_path(self) -> Path:
        return self.work / "tokenizer.json"

    def _trainer(self, stage: str, modules: dict[str, nn.Module]) -> Trainer:
        minutes = self.options.minutes[stage] * self.options.scale
        return Trainer(self._path(stage), modules, minutes, RATES[stage])

    def _path(self, stage: str) -> Path:
        return self.work / f"{stage}.pt"

    def _corpus(self) -> None:
        write_corpus(self.work / "corpus", self.options.clips, self.options.seed, self.options.threads)

    def _tokenizer(self) -> None:
        if not self._tokenizer_path.exists():
            demo_salm_llm.train_tokenizer(self._tokenizer_path)

    def _llm(self) -> None:
        trainer = self._trainer("llm", {"llm": self.llm, "letters": self.letters})
        demo_salm_llm.train_llm(trainer, self.tokenizer, self.llm, self.letters)

    def _encoder(self) -> None:
        trainer = self._trainer("encoder", {"encoder": self.encoder, "head": self.head})
        demo_salm_encoder.train_encoder(trainer, self.encoder, self.head, self.clips)

    def _joint(self) -> None:
        self._load("llm", {"llm": self.llm, "letters": self.letters})
        self._load("encoder", {"encoder": self.encoder, "head": self.head})
        if not self._path("joint").exists():
            lessons.fit_projection(self.projection, self.encoder, self.head, self.letters, self.clips)
        modules = self._joint_modules()
        parts = lessons.Parts(self.encoder, self.head, self.projection, self.llm)
        lessons.train_joint(self._trainer("joint", modules), parts, self.tokenizer, self.clips)

    def _joint_modules(self) -> dict[str, nn.Module]:
        model = lessons.with_lora(self.llm)
        return {"encoder": self.encoder, "head": self.head, "projection": self.projection, "llm": model}

    def _write(self) -> None:
        self._load("joint", self._joint_modules())
        write_checkpoint(self.options.out, self.encoder, self.projection, self.llm, self._tokenizer_path)

    def _judge(self) -> None:
        report(read_checkpoint(self.options.out))

    def _load(self, stage: str, modules: dict[str, nn.Module]) -> None:
        path = self._path(stage)
        if not path.exists():
            raise InputError(f"{path} is missing: run --stage {stage} first")
        state = torch.load(path, weights_only=True)
        for name, module in modules.items():
            module.load_state_dict(state[name])


def main(arguments: list[str] | None = None) -> int:
    """Parse, run the stages asked for; returns the exit status."""
    parser = stage_parser("demo_salm", (__doc__ or "").split("\n\n")[0], STAGES, Options.clips, "1.5 GB")
    given = parser.parse_args(arguments)
    stages = STAGES if given.stage == "all" else (given.stage,)
    options = Options(given.work, given.out, given.clips, given.seed, given.threads, given.scale)
    # a model for each stage: it may wrap or freeze what it was given
    return run_stages(lambda stage: DemoSalm(options).run(stage), stages, options.work, options.threads, options.seed)


if __name__ == "__main__":
    sys.exit(main())
