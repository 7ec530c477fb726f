"""Train the demo model: `python -m auricle.export.training.salmonn.train --work DIR --out CHECKPOINT_DIR`.

Stages, in order: `corpus` (synthetic speech and sounds), `tokenizer`, `llm` (text alone), `whisper` (CTC), `letters`,
`beats` (sound tags), `views` (the clips behind both encoders), `bridge` (Q-Former, projection and LoRA, all else
frozen), `joint` (the LLM's own weights too: LoRA of rank 8 is little for so small an LLM), `write` (the official
checkpoint formats) and `judge` (marks). Each continues where it was stopped; a finished one returns at once. With
`--start CHECKPOINT_DIR` they begin with what a finished model knows, and the stages `llm`, `beats` and `bridge` may be
left out. With `--whisper DIR` too the speech encoder is whisper-tiny.en's, frozen, the sound encoder and the language
model are the finished model's, and `llm`, `whisper` and `beats` do nothing; else `letters`, the head that finds where
words end, does nothing, for `whisper` has taught it. A stage that trains can also run under torchrun, one process per
core: `torchrun --nproc-per-node 2 -m -- auricle.export.training.salmonn.train --threads 1 --stage whisper ...`
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import sentencepiece
import torch
from peft import PeftModel
from torch import distributed, nn

from ....models.errors import InputError
from ...encoders.beats import Beats
from ...encoders.whisper import load_whisper, read_whisper_spec, shortened
from ...packages import TINY_EN as TINY_EN_PACKAGE
from ..bridge import Bridge
from ..stages import Training, TrainingOptions, run_stages, stage_parser
from .attention_init import look_at_neighbours
from .bridge import OWN_SPEECH, TINY_EN, adapted, unfreeze
from .clips import WiderClips
from .corpus import Rendered, read_corpus, write_corpus
from .encoders import (
    BEATS_SPEC,
    LETTERS,
    WINDOW_FRAMES,
    new_letters,
    new_predictor,
    new_whisper,
    train_beats,
    train_letters,
    train_whisper,
)
from .evaluate import Judge, report
from .joint import Reading, train_bridge
from .llm import new_llm, train_llm, train_tokenizer
from .resume import load_adapter, load_bridge, load_llm, load_sound_encoder, load_speech_encoder
from .views import Encoders, read_views, write_views
from .write import OthersWhisper, lora_state, trained_state, write_checkpoint

CLIPS = 14_000
_STARTED = ("llm", "beats", "bridge")  # stages whose work a finished checkpoint holds whole
_GIVEN = ("llm", "whisper", "beats")  # stages that have nothing to do on another's speech encoder


@dataclass(frozen=True)
class Options(TrainingOptions):
    """What is asked of the first demo's training."""

    start: Path | None = None
    """A finished checkpoint to begin with."""
    whisper: Path | None = None
    """whisper-tiny.en, to be the speech encoder."""
    piper: Path = Path("build/real-weights/piper-en_US-joe-medium/en_US-joe-medium.onnx")
    """The neural voice that also speaks where the speech encoder is given."""
    doubt: float = 2.0
    """Weight of being sure about open English, there; 0: its answers are learnt as guesses alone."""


class Demo(Training[Options]):
    """The stages of one training, sharing a work directory. `out` gets beats.pt, vicuna/, salmonn.pth and args.json.

    And whisper/; or, of another's speech encoder, whisper.sha256.
    """

    STAGES = (
        "corpus",
        "tokenizer",
        "llm",
        "whisper",
        "letters",
        "beats",
        "views",
        "bridge",
        "joint",
        "write",
        "judge",
    )
    MINUTES: ClassVar = {"llm": 50.0, "whisper": 25.0, "beats": 13.0, "bridge": 14.0, "joint": 16.0}
    """As the shipped model took: llm and beats on one core, the others on two."""
    MINUTES_ON_TINY_EN: ClassVar = {"letters": 6.0, "bridge": 30.0, "joint": 130.0}
    """Of one core."""
    TOKENIZER = "tokenizer.model"

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        if options.whisper and not options.start:
            raise InputError(
                f"--whisper {options.whisper} needs --start, a finished checkpoint: its LLM and sound encoder"
            )
        self.letters: nn.Module
        if options.whisper:
            self.whisper = shortened(*load_whisper(options.whisper), WINDOW_FRAMES / 100)[1]
            self.letters = new_letters(self.whisper.config.d_model)
            self.layout = TINY_EN
        else:
            self.whisper = new_whisper()
            self.letters = nn.Linear(self.whisper.config.d_model, len(LETTERS) + 1)
            self.layout = OWN_SPEECH
        self.beats = Beats(BEATS_SPEC)
        self.predictor = new_predictor(self.beats)
        self.llm = new_llm()
        self.bridge = Bridge(self.layout.spec)
        if options.start:
            load_sound_encoder(options.start, self.beats, self.predictor)
            load_llm(options.start, self.llm)
        if options.start and not options.whisper:
            load_speech_encoder(options.start, self.whisper)

    def run(self, stage: str) -> None:
        """As every training's; a stage whose work is given returns at once."""
        given = _GIVEN if self.options.whisper else ("letters",)
        if stage not in given:
            super().run(stage)

    def minutes(self, stage: str) -> float:
        """By what the stage trains on."""
        return (self.MINUTES_ON_TINY_EN if self.options.whisper else self.MINUTES)[stage]

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
        started = _GIVEN if self.options.whisper else _STARTED
        if stage in started and self.options.start and not self.checkpoint(stage).exists():
            return
        super().restore(stage, modules)

    def _corpus(self) -> None:
        wider = WiderClips(self.options.piper)
        self.make_corpus(partial(write_corpus, draw=wider) if self.options.whisper else write_corpus)

    def _tokenizer(self) -> None:
        if self.tokenizer_path.exists():
            return
        if self.options.start:  # whose language model knows its pieces
            shutil.copyfile(self.options.start / "vicuna" / self.TOKENIZER, self.tokenizer_path)
        else:
            train_tokenizer(self.tokenizer_path)

    def _llm(self) -> None:
        train_llm(self.trainer("llm", {"llm": self.llm}, rate=6e-4), self.tokenizer, self.llm)

    def _whisper(self) -> None:
        if not self.options.start:
            look_at_neighbours(self.whisper, self._some_mel())
        trainer = self.trainer("whisper", {"whisper": self.whisper, "letters": self.letters}, rate=6e-4)
        train_whisper(trainer, self.whisper, self.letters, self.clips)

    def _letters(self) -> None:
        trainer = self.trainer("letters", {"letters": self.letters}, rate=2e-3)
        train_letters(trainer, self.whisper, self.letters, self.clips)

    def _some_mel(self) -> torch.Tensor:
        spoken = [clip for clip in self.clips[:100] if clip.utterance]
        return torch.from_numpy(np.stack([clip.padded_mel(200) for clip in spoken]))

    def _beats(self) -> None:
        trainer = self.trainer("beats", {"beats": self.beats, "predictor": self.predictor}, rate=1e-3)
        train_beats(trainer, self.beats, self.predictor, self.clips)

    def _views(self) -> None:
        self._restore_frozen()
        self._write_views()

    def _bridge(self) -> None:
        self._restore_frozen()
        model = adapted(self.llm)
        if self.options.start and self.options.whisper:
            load_adapter(self.options.start, model)
        self._train_bridge("bridge", model, rate=1.5e-3)

    def _joint(self) -> None:
        model = self._restore_all("bridge")
        unfreeze(model)
        self._train_bridge("joint", model, rate=8e-4)

    def _train_bridge(self, stage: str, model: PeftModel, rate: float) -> None:
        modules: dict[str, nn.Module] = {"bridge": self.bridge, "llm": model}
        reading = Reading.of(self.llm.model.embed_tokens.weight.detach()) if self.options.whisper else None
        if reading is not None:
            modules["reader"] = reading.reader
            if stage == "joint":
                self.restore("bridge", {"reader": reading.reader})
        trainer = self.trainer(stage, modules, rate)
        self._write_views()
        views = read_views(self.work / "views")
        train_bridge(trainer, self.bridge, model, self.tokenizer, views, reading, self.options.doubt)

    def _write_views(self) -> None:
        encoders = Encoders(self.whisper, self.letters, self.beats, self.layout)
        part = (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)
        write_views(self.work / "views", self.clips, encoders, part)
        if distributed.is_initialized():
            distributed.barrier()

    def _write(self) -> None:
        model = self._restore_all("joint")
        trained = trained_state(self.bridge, lora_state(model))
        base = model.unload()  # the LLM without its adapter, as Vicuna is beside SALMONN's file
        given = self.options.whisper
        whisper = OthersWhisper(TINY_EN_PACKAGE, given) if given else self.whisper
        beats = self.beats, self.predictor
        write_checkpoint(self.options.out, whisper, self.layout, *beats, base, self.tokenizer_path, trained)

    def _judge(self) -> None:
        model = self._restore_all("joint").eval()
        parts = self.whisper.eval(), self.beats.eval(), self.bridge.eval()
        report(Judge(*parts, model, self.tokenizer, self.layout))

    def _restore_all(self, stage: str) -> PeftModel:
        self._restore_frozen()
        model = adapted(self.llm)
        if self.options.start and not self.options.whisper:
            load_bridge(self.options.start, self.bridge, read_whisper_spec(self.options.start / "whisper"), BEATS_SPEC)
            load_adapter(self.options.start, model)
        self.restore(stage, {"bridge": self.bridge, "llm": model})
        return model

    def _restore_frozen(self) -> None:
        if self.options.whisper:
            self.restore("letters", {"letters": self.letters})
        else:
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
    speech = "whisper-tiny.en, to be the speech encoder, frozen (make real-weights SET=training)"
    parser.add_argument("--whisper", type=Path, metavar="DIR", help=speech)
    voice = "with --whisper: the neural voice's .onnx (default %(default)s)"
    parser.add_argument("--piper", type=Path, default=Options.piper, metavar="FILE", help=voice)
    doubt = "with --whisper: what being sure about open English costs (default %(default)g)"
    parser.add_argument("--doubt", type=float, default=Options.doubt, metavar="W", help=doubt)
    return run_stages(Demo, Options(**vars(parser.parse_args(arguments))))


if __name__ == "__main__":
    sys.exit(main())
