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
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import sentencepiece
import torch
from peft import PeftModel
from torch import distributed, nn

from ....models.errors import InputError
from ...encoders.beats import Beats
from ..stages import run_stages, stage_parser
from ..trainer import Trainer
from . import bridge as demo_bridge
from . import encoders as demo_encoders
from . import llm as demo_llm
from . import resume as demo_start
from .attention_init import look_at_neighbours
from .corpus import Rendered, read_corpus, write_corpus
from .evaluate import Judge, report
from .joint import train_bridge
from .views import read_views, write_views
from .write import lora_state, trained_state, write_checkpoint

_STARTED = ("llm", "beats", "bridge")  # stages whose work a finished checkpoint holds whole
STAGES = ("corpus", "tokenizer", "llm", "whisper", "beats", "bridge", "joint", "write", "judge")
MINUTES = {"llm": 50.0, "whisper": 25.0, "beats": 13.0, "bridge": 14.0, "joint": 16.0}
"""Training time by stage, as the shipped model took: llm and beats on one core, the others on two."""


@dataclass(frozen=True)
class Options:
    """Where the demo model is trained and how long."""

    work: Path
    """Corpus, features and training checkpoints: about 8 GB."""
    out: Path
    """Where `write` puts whisper/, beats.pt, vicuna/ and salmonn.pth."""
    clips: int = 14_000
    seed: int = 0
    threads: int = 2
    start: Path | None = None
    """A finished checkpoint to begin with."""
    scale: float = 1.0
    """Factor on every stage's minutes."""
    minutes: dict[str, float] = field(default_factory=lambda: dict(MINUTES))


class Demo:
    """The stages of one training, sharing a work directory."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.work = options.work
        self.whisper = demo_encoders.new_whisper()
        self.letters = nn.Linear(self.whisper.config.d_model, len(demo_encoders.LETTERS) + 1)
        self.beats = Beats(demo_encoders.BEATS_SPEC)
        self.predictor = demo_encoders.new_predictor(self.beats)
        self.llm = demo_llm.new_llm()
        self.bridge = demo_bridge.Bridge()
        if options.start:
            demo_start.load_encoders(options.start, self.whisper, self.beats, self.predictor)
            demo_start.load_llm(options.start, self.llm)

    def run(self, stage: str) -> None:
        """Run or continue one stage."""
        stages: dict[str, Callable[[], object]] = {name: getattr(self, f"_{name}") for name in STAGES}
        stages[stage]()

    @cached_property
    def clips(self) -> list[Rendered]:
        """The corpus. Raises InputError when it has not been made."""
        clips = read_corpus(self.work / "corpus")
        if not clips:
            raise InputError(f"{self.work / 'corpus'} holds no clips: run --stage corpus first")
        return clips

    @cached_property
    def tokenizer(self) -> sentencepiece.SentencePieceProcessor:
        """The tokenizer. Raises InputError when it has not been trained."""
        if not self._tokenizer_path.exists():
            raise InputError(f"{self._tokenizer_path} is missing: run --stage tokenizer first")
        return sentencepiece.SentencePieceProcessor(model_file=str(self._tokenizer_path))

    @property
    def _tokenizer_path(self) -> Path:
        return self.work / "tokenizer.model"

    def _trainer(self, stage: str, modules: dict[str, nn.Module], rate: float) -> Trainer:
        return Trainer(self._path(stage), modules, self.options.minutes[stage] * self.options.scale, rate)

    def _path(self, stage: str) -> Path:
        return self.work / f"{stage}.pt"

    def _corpus(self) -> None:
        write_corpus(self.work / "corpus", self.options.clips, self.options.seed, self.options.threads)

    def _tokenizer(self) -> None:
        if not self._tokenizer_path.exists():
            demo_llm.train_tokenizer(self._tokenizer_path)

    def _llm(self) -> None:
        demo_llm.train_llm(self._trainer("llm", {"llm": self.llm}, rate=6e-4), self.tokenizer, self.llm)

    def _whisper(self) -> None:
        if not self.options.start:
            look_at_neighbours(self.whisper, self._some_mel())
        trainer = self._trainer("whisper", {"whisper": self.whisper, "letters": self.letters}, rate=6e-4)
        demo_encoders.train_whisper(trainer, self.whisper, self.letters, self.clips)

    def _some_mel(self) -> torch.Tensor:
        spoken = [clip for clip in self.clips[:100] if clip.utterance]
        return torch.from_numpy(np.stack([clip.padded_mel(200) for clip in spoken]))

    def _beats(self) -> None:
        trainer = self._trainer("beats", {"beats": self.beats, "predictor": self.predictor}, rate=1e-3)
        demo_encoders.train_beats(trainer, self.beats, self.predictor, self.clips)

    def _bridge(self) -> None:
        self._load_frozen()
        self._train_bridge("bridge", demo_bridge.with_lora(self.llm), rate=1.5e-3)

    def _joint(self) -> None:
        model = self._load_all("bridge")
        demo_bridge.unfreeze(model)
        self._train_bridge("joint", model, rate=8e-4)

    def _train_bridge(self, stage: str, model: PeftModel, rate: float) -> None:
        trainer = self._trainer(stage, {"bridge": self.bridge, "llm": model}, rate)
        part = (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)
        write_views(self.work / "views", self.clips, self.whisper, self.letters, self.beats, part)
        if distributed.is_initialized():
            distributed.barrier()
        train_bridge(trainer, self.bridge, model, self.tokenizer, read_views(self.work / "views"))

    def _write(self) -> None:
        model = self._load_all("joint")
        trained = trained_state(self.bridge, lora_state(model))
        base = model.unload()  # the LLM without its adapter, as Vicuna is beside SALMONN's file
        tokenizer = self._tokenizer_path
        write_checkpoint(self.options.out, self.whisper, self.beats, self.predictor, base, tokenizer, trained)

    def _judge(self) -> None:
        model = self._load_all("joint").eval()
        report(Judge(self.whisper.eval(), self.beats.eval(), self.bridge.eval(), model, self.tokenizer))

    def _load_all(self, stage: str) -> PeftModel:
        self._load_frozen()
        model = demo_bridge.with_lora(self.llm)
        if self.options.start:
            demo_start.load_bridge(self.options.start, self.bridge, model)
        self._load(stage, {"bridge": self.bridge, "llm": model})
        return model

    def _load_frozen(self) -> None:
        self._load("whisper", {"whisper": self.whisper, "letters": self.letters})
        self._load("beats", {"beats": self.beats, "predictor": self.predictor})
        self._load("llm", {"llm": self.llm})
        for module in (self.whisper, self.letters, self.beats, self.llm):
            module.eval().requires_grad_(False)

    def _load(self, stage: str, modules: dict[str, nn.Module]) -> None:
        path = self._path(stage)
        if not path.exists():
            if self.options.start and stage in _STARTED:
                return
            raise InputError(f"{path} is missing: run --stage {stage} first")
        state = torch.load(path, weights_only=True)
        for name, module in modules.items():
            module.load_state_dict(state[name])


def main(arguments: list[str] | None = None) -> int:
    """Parse, run the stages asked for; returns the exit status."""
    parser = stage_parser("demo", (__doc__ or "").split("\n\n")[0], STAGES, Options.clips, "8 GB")
    parser.add_argument("--start", type=Path, help="a finished checkpoint to begin with")
    given = parser.parse_args(arguments)
    stages = STAGES if given.stage == "all" else (given.stage,)
    options = Options(given.work, given.out, given.clips, given.seed, given.threads, given.start, given.scale)
    # a model for each stage: it may wrap or freeze what it was given
    return run_stages(lambda stage: Demo(options).run(stage), stages, options.work, options.threads, options.seed)


if __name__ == "__main__":
    sys.exit(main())
