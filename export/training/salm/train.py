"""Train the second demo model: `python -m auricle.export.training.salm.train --work DIR --out CHECKPOINT_DIR`.

Stages, in order: `corpus` (synthetic speech with synthetic names), `tokenizer`, `llm` (text alone: writing what is
heard and looking names up in a list), `encoder` (spelling, CTC), `joint` (everything, projection and LoRA included),
`write` (canary-qwen's checkpoint format) and `judge` (what a word list is good for, measured on the written
checkpoint). Each continues where it was stopped; a finished one returns at once. A stage that trains can also run under
torchrun, one process per core:
`torchrun --nproc-per-node 2 -m -- auricle.export.training.salm.train --threads 1 --stage joint ...`
"""

from __future__ import annotations

import sys
from functools import cached_property
from typing import ClassVar

from tokenizers import Tokenizer
from torch import nn

from ..stages import Training, TrainingOptions, run_stages, stage_parser
from .corpus import Spoken, read_corpus, write_corpus
from .encoder import new_encoder, new_head, train_encoder
from .evaluate import report
from .joint import Parts, fit_projection, new_projection, train_joint, with_lora
from .llm import LetterTokens, new_llm, train_llm, train_tokenizer
from .write import read_checkpoint, write_checkpoint

CLIPS = 23_000
RATES = {"llm": 1.5e-3, "encoder": 1.2e-3, "joint": 1.2e-3}


class DemoSalm(Training[TrainingOptions]):
    """The stages of one training, sharing a work directory. `out` gets config.json, model.safetensors and qwen3/."""

    STAGES = ("corpus", "tokenizer", "llm", "encoder", "joint", "write", "judge")
    MINUTES: ClassVar = {"llm": 48.0, "encoder": 43.0, "joint": 38.0}
    """As the shipped model took: llm and encoder on one core each, joint on two."""
    TOKENIZER = "tokenizer.json"

    def __init__(self, options: TrainingOptions) -> None:
        super().__init__(options)
        self.encoder = new_encoder()
        self.head = new_head()
        self.llm = new_llm()
        self.letters = LetterTokens()
        self.projection = new_projection()

    @cached_property
    def clips(self) -> list[Spoken]:
        """The corpus. Raises InputError when it has not been made."""
        return self.read_clips(read_corpus)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer. Raises InputError when it has not been trained."""
        return Tokenizer.from_file(str(self.require(self.tokenizer_path, "tokenizer")))

    def _corpus(self) -> None:
        self.make_corpus(write_corpus)

    def _tokenizer(self) -> None:
        if not self.tokenizer_path.exists():
            train_tokenizer(self.tokenizer_path)

    def _llm(self) -> None:
        trainer = self.trainer("llm", {"llm": self.llm, "letters": self.letters}, RATES["llm"])
        train_llm(trainer, self.tokenizer, self.llm, self.letters)

    def _encoder(self) -> None:
        trainer = self.trainer("encoder", {"encoder": self.encoder, "head": self.head}, RATES["encoder"])
        train_encoder(trainer, self.encoder, self.head, self.clips)

    def _joint(self) -> None:
        self.restore("llm", {"llm": self.llm, "letters": self.letters})
        self.restore("encoder", {"encoder": self.encoder, "head": self.head})
        if not self.checkpoint("joint").exists():
            fit_projection(self.projection, self.encoder, self.head, self.letters, self.clips)
        modules = self._joint_modules()
        parts = Parts(self.encoder, self.head, self.projection, self.llm)
        train_joint(self.trainer("joint", modules, RATES["joint"]), parts, self.tokenizer, self.clips)

    def _joint_modules(self) -> dict[str, nn.Module]:
        model = with_lora(self.llm)
        return {"encoder": self.encoder, "head": self.head, "projection": self.projection, "llm": model}

    def _write(self) -> None:
        self.restore("joint", self._joint_modules())
        write_checkpoint(self.options.out, self.encoder, self.projection, self.llm, self.tokenizer_path)

    def _judge(self) -> None:
        report(read_checkpoint(self.options.out))


def main(arguments: list[str] | None = None) -> int:
    """Parse, run the stages asked for; returns the exit status."""
    about = (__doc__ or "").split("\n\n")[0]
    parser = stage_parser("auricle.export.training.salm.train", about, DemoSalm, CLIPS, "1.5 GB")
    return run_stages(DemoSalm, TrainingOptions(**vars(parser.parse_args(arguments))))


if __name__ == "__main__":
    sys.exit(main())
