"""Train the demo model: `python -m auricle.export.training.salmonn.train --work DIR --out CHECKPOINT_DIR`.

Stages, in order: `corpus` (synthetic speech and sounds), `tokenizer`, `llm` (text alone), `whisper` (CTC), `beats`
(sound tags), `bridge` (Q-Former, projection and LoRA, all else frozen), `joint` (the LLM's own weights too: LoRA of
rank 8 is little for so small an LLM), `write` (the official checkpoint formats) and `judge` (marks). Each continues
where it was stopped; a finished one returns at once. With `--start CHECKPOINT_DIR` they begin with what a finished
model knows, and the stages `llm`, `beats` and `bridge` may be left out. A stage that trains can also run under
torchrun, one process per core:
`torchrun --nproc-per-node 2 -m auricle.export.training.salmonn.train --threads 1 --stage whisper ...`
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import sentencepiece
import torch
from peft import PeftModel
from torch import distributed, nn

from ...encoders.beats import Beats
from ..stages import Training, TrainingOptions, run_stages, stage_parser
from .attention_init import look_at_neighbours
from .bridge import adapted, new_bridge, unfreeze
from .corpus import Rendered, read_corpus, write_corpus
from .encoders import BEATS_SPEC, LETTERS, new_predictor, new_whisper, train_beats, train_whisper
from .evaluate import Judge, report
from .joint import train_bridge
from .llm import new_llm, train_llm, train_tokenizer
from .resume import load_bridge, load_encoders, load_llm
from .views import read_views, write_views
from .write import lora_state, trained_state, write_checkpoint

CLIPS = 14_000
_STARTED = ("llm", "beats", "bridge")  # stages whose work a finished checkpoint holds whole


@dataclass(frozen=True)
class Options(TrainingOptions):
    """What is asked of the first demo's training."""

    start: Path | None = None
    """A finished checkpoint to begin with."""


class Demo(Training[Options]):
    """The stages of one training, sharing a work directory. `out` gets whisper/, beats.pt, vicuna/ and salmonn.pth."""

    STAGES = ("corpus", "tokenizer", "llm", "whisper", "beats", "bridge", "joint", "write", "judge")
    MINUTES: ClassVar = {"llm": 50.0, "whisper": 25.0, "beats": 13.0, "bridge": 14.0, "joint": 16.0}
    """As the shipped model took: llm and beats on one core, the others on two."""
    TOKENIZER = "tokenizer.model"

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.whisper = new_whisper()
        self.letters = nn.Linear(self.whisper.config.d_model, len(LETTERS) + 1)
        self.beats = Beats(BEATS_SPEC)
        self.predictor = new_predictor(self.beats)
        self.llm = new_llm()
        self.bridge = new_bridge()
        if options.start:
            load_encoders(options.start, self.whisper, self.beats, self.predictor)
            load_llm(options.start, self.llm)

    @cached_property
    def clips(self) -> list[Rendered]:
        """The corpus. Raises InputError when it has not been made."""
        return self.read_clips(read_corpus)

    @cached_property
    def tokenizer(self) -> sentencepiece.SentencePieceProcessor:
        """The tokenizer. Raises InputError when it has not been trained."""
        path = self.require(self.tokenizer_path, "tokenizer")
        return sentencepiece.SentencePieceProcessor(model_file=str(path))

    def restore(self, stage: str, modules: Mapping[str, nn.Module]) -> None:
        """As a stage left them, or as the checkpoint to begin with has them. Raises InputError."""
        if stage in _STARTED and self.options.start and not self.checkpoint(stage).exists():
            return
        super().restore(stage, modules)

    def _corpus(self) -> None:
        self.make_corpus(write_corpus)

    def _tokenizer(self) -> None:
        if not self.tokenizer_path.exists():
            train_tokenizer(self.tokenizer_path)

    def _llm(self) -> None:
        train_llm(self.trainer("llm", {"llm": self.llm}, rate=6e-4), self.tokenizer, self.llm)

    def _whisper(self) -> None:
        if not self.options.start:
            look_at_neighbours(self.whisper, self._some_mel())
        trainer = self.trainer("whisper", {"whisper": self.whisper, "letters": self.letters}, rate=6e-4)
        train_whisper(trainer, self.whisper, self.letters, self.clips)

    def _some_mel(self) -> torch.Tensor:
        spoken = [clip for clip in self.clips[:100] if clip.utterance]
        return torch.from_numpy(np.stack([clip.padded_mel(200) for clip in spoken]))

    def _beats(self) -> None:
        trainer = self.trainer("beats", {"beats": self.beats, "predictor": self.predictor}, rate=1e-3)
        train_beats(trainer, self.beats, self.predictor, self.clips)

    def _bridge(self) -> None:
        self._restore_frozen()
        self._train_bridge("bridge", adapted(self.llm), rate=1.5e-3)

    def _joint(self) -> None:
        model = self._restore_all("bridge")
        unfreeze(model)
        self._train_bridge("joint", model, rate=8e-4)

    def _train_bridge(self, stage: str, model: PeftModel, rate: float) -> None:
        trainer = self.trainer(stage, {"bridge": self.bridge, "llm": model}, rate)
        part = (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)
        write_views(self.work / "views", self.clips, self.whisper, self.letters, self.beats, part)
        if distributed.is_initialized():
            distributed.barrier()
        train_bridge(trainer, self.bridge, model, self.tokenizer, read_views(self.work / "views"))

    def _write(self) -> None:
        model = self._restore_all("joint")
        trained = trained_state(self.bridge, lora_state(model))
        base = model.unload()  # the LLM without its adapter, as Vicuna is beside SALMONN's file
        tokenizer = self.tokenizer_path
        write_checkpoint(self.options.out, self.whisper, self.beats, self.predictor, base, tokenizer, trained)

    def _judge(self) -> None:
        model = self._restore_all("joint").eval()
        report(Judge(self.whisper.eval(), self.beats.eval(), self.bridge.eval(), model, self.tokenizer))

    def _restore_all(self, stage: str) -> PeftModel:
        self._restore_frozen()
        model = adapted(self.llm)
        if self.options.start:
            load_bridge(self.options.start, self.bridge, model)
        self.restore(stage, {"bridge": self.bridge, "llm": model})
        return model

    def _restore_frozen(self) -> None:
        self.restore("whisper", {"whisper": self.whisper, "letters": self.letters})
        self.restore("beats", {"beats": self.beats, "predictor": self.predictor})
        self.restore("llm", {"llm": self.llm})
        for module in (self.whisper, self.letters, self.beats, self.llm):
            module.eval().requires_grad_(False)


def main(arguments: list[str] | None = None) -> int:
    """Parse, run the stages asked for; returns the exit status."""
    about = (__doc__ or "").split("\n\n")[0]
    parser = stage_parser("auricle.export.training.salmonn.train", about, Demo, CLIPS, "8 GB")
    parser.add_argument("--start", type=Path, help="a finished checkpoint to begin with")
    return run_stages(Demo, Options(**vars(parser.parse_args(arguments))))


if __name__ == "__main__":
    sys.exit(main())
