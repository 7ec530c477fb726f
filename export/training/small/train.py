"""Train `small`: `python -m auricle.export.training.small.train --work DIR --real DIR --out CHECKPOINT_DIR`.

Stages, in order: `base` (the language model, dequantized), `bridge` (Q-Former and projection, CTC against the language
model's own embeddings), `joint` (the language model reads the audio tokens through its LoRA, CTC going on beside it),
`write` (salmonn.pth, beats.pt, args.json) and `judge` (word error of people and of a held-out voice). Each goes on
where it was stopped; with `--start models/small` `joint` begins with finished weights. While a stage trains, a process
of low priority makes new clips all the time (corpus.py).
`bridge` and `joint` can be run by torchrun, one process per core and twice the batch:
`torchrun --nproc-per-node 2 -m -- auricle.export.training.small.train --threads 1 --stage joint ...`.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ....models.audio import Waveform
from ....models.corpus.people import people
from ....models.corpus.sentences import sample_utterance
from ....models.errors import RunError
from ....models.llm import KEEP
from ...encoders.beats import load_beats
from ...encoders.whisper import read_whisper_spec
from ...llm.export import read_llm
from ..bridge import Bridge, encode_views, with_lora
from ..salmonn.resume import load_adapter, load_bridge
from ..salmonn.write import lora_state, trained_state
from ..shards import View, shard_names
from ..stages import Training, TrainingOptions, run_stages, stage_parser
from ..trainer import is_first_process
from .base import open_base, write_base
from .bridge import SPEC, Reader, Shards, Vocabulary, fit_reader, train_bridge
from .corpus import Encoders, Texts
from .evaluate import held_out, word_error
from .joint import LORA_ALPHA, LORA_RANK, Adapter, Prompts, answer, train_joint

_COMMANDS = 4000  # of the demo's grammar: all of its words are among them
_FIRST_SHARDS = 2
_JUDGED = 100  # held-out sentences


@dataclass(frozen=True)
class SmallOptions(TrainingOptions):
    """Where the trained weights of other people lie, and the demo's sound encoder."""

    real: Path = Path("build/real-weights")
    beats: Path = Path("checkpoints/demo/beats.pt")
    start: Path | None = None
    """A finished checkpoint, salmonn.pth: `joint` begins with what it knows, and `bridge` has nothing to do."""


class Small(Training[SmallOptions]):
    """The stages of one training, sharing a work directory. `out` gets salmonn.pth, beats.pt and args.json."""

    STAGES = ("base", "bridge", "joint", "write", "judge")
    MINUTES: ClassVar = {"bridge": 120.0, "joint": 360.0}
    """Of one core."""
    RATES: ClassVar = {"bridge": 1e-3, "joint": 4e-4}

    def _base(self) -> None:
        write_base(self.options.real / "smollm2-135m-instruct", self.work / "llm")

    def _bridge(self) -> None:
        if self.options.start:
            return
        trainer = self.trainer("bridge", self._heads(), self.RATES["bridge"], muon=False)
        with self._clips() as shards:
            train_bridge(trainer, self.bridge, self.reader, self.vocabulary, self.tokenizer, shards)

    def _joint(self) -> None:
        adapted = with_lora(self.llm, LORA_RANK, LORA_ALPHA)
        begun = self.checkpoint("joint").exists()
        if not begun and self.options.start:
            self._load(self.options.start, adapted)
        elif not begun:
            self.restore("bridge", self._heads())
        trainer = self.trainer("joint", self._heads() | {"lora": Adapter(adapted)}, self.RATES["joint"], muon=False)
        with self._clips() as shards:
            if not begun and self.options.start:
                fit_reader(self.reader, self.bridge, self.vocabulary, self.tokenizer, shards)
            train_joint(trainer, self.bridge, self.reader, adapted, self.vocabulary, self.tokenizer, shards)

    def _load(self, start: Path, adapted: Any) -> None:
        whisper = read_whisper_spec(self.options.real / "whisper-base")
        load_bridge(start, self.bridge, whisper, load_beats(self.options.beats)[0])
        load_adapter(start, adapted)

    def _write(self) -> None:
        adapted = self._trained()
        self.options.out.mkdir(parents=True, exist_ok=True)
        state = {name: value.half() for name, value in trained_state(self.bridge, lora_state(adapted)).items()}
        torch.save({"model": state}, self.options.out / "salmonn.pth")
        shutil.copy(self.options.beats, self.options.out / "beats.pt")
        base = read_llm(self.options.real / "smollm2-135m-instruct" / "model.gguf")
        args = {
            "lora_alpha": LORA_ALPHA,
            "qformer_heads": SPEC.n_heads,
            "second_per_window": SPEC.second_per_window,
            "base": {"type": base.type_name(KEEP), "sha256": base.fingerprint.sha256},
        }
        (self.options.out / "args.json").write_text(json.dumps(args, indent=2) + "\n")

    def _judge(self) -> None:
        adapted = self._trained()
        self.bridge.eval()
        encoders = Encoders(self.options.real / "whisper-base", self.options.beats)
        prompts = Prompts(self.tokenizer)

        def transcribe(waveform: Waveform) -> str:
            return answer(adapted, prompts, self._audio_tokens(encoders, waveform))

        sentences = held_out(Texts.load(self.work / "prose.txt", held_out=True), _JUDGED)
        print(f"people: word error {100 * word_error(people(), transcribe, show=True)[0]:.1f} %", flush=True)
        print(f"flite slt, held-out sentences: {100 * word_error(sentences, transcribe)[0]:.1f} %", flush=True)

    @cached_property
    def llm(self) -> Any:
        """The language model, frozen. Raises InputError before the stage `base`."""
        return self._opened[0]

    @cached_property
    def tokenizer(self) -> Any:
        """Its tokenizer."""
        return self._opened[1]

    @cached_property
    def _opened(self) -> tuple[Any, Any]:
        return open_base(self.require(self.work / "llm", "base"))

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The tokens of all that is spoken in training, read once."""
        path = self.work / "vocabulary.txt"
        if not path.exists():
            texts = Texts.load(self.work / "prose.txt", held_out=False)
            rng = random.Random(0)
            commands = [sample_utterance(rng, "train").text for _ in range(_COMMANDS)]
            spoken = [*texts.examples, *texts.definitions, *texts.prose, *commands]
            path.write_text(" ".join(map(str, Vocabulary.of(spoken, self.tokenizer).ids)))
        return Vocabulary([int(word) for word in path.read_text().split()])

    @cached_property
    def bridge(self) -> Bridge:
        """Q-Former and projection."""
        return Bridge(SPEC, dropout=0.1)

    @cached_property
    def reader(self) -> Reader:
        """What CTC reads them with."""
        return Reader(self.llm.model.embed_tokens.weight[list(self.vocabulary.ids)])

    def _heads(self) -> dict[str, nn.Module]:
        return {"bridge": self.bridge, "reader": self.reader}

    def _trained(self) -> Any:
        adapted = with_lora(self.llm, LORA_RANK, LORA_ALPHA)
        self.restore("joint", self._heads() | {"lora": Adapter(adapted)})
        return adapted

    @torch.no_grad()
    def _audio_tokens(self, encoders: Encoders, waveform: Waveform) -> Tensor:
        speech, audio = (np.asarray(rows, np.float16) for rows in encoders.alone(waveform))
        return encode_views(self.bridge, [View(speech, audio, None, None)])[0]

    @contextmanager
    def _clips(self) -> Generator[Shards]:
        """The shards on disk, and a process, one for all of torchrun's, that makes more of them meanwhile."""
        with self._maker() as maker:
            while len(shard_names(self.work / "shards")) < _FIRST_SHARDS:
                if maker and maker.poll() is not None:
                    raise RunError("the clips cannot be made: see the message above")
                time.sleep(1)
            yield Shards(self.work / "shards", random.Random())

    @contextmanager
    def _maker(self) -> Generator[subprocess.Popen[bytes] | None]:
        if not is_first_process():
            yield None
            return
        command = [sys.executable, "-m", "auricle.export.training.small.corpus", "--work", str(self.work)]
        command += ["--whisper", str(self.options.real / "whisper-base"), "--beats", str(self.options.beats)]
        command += ["--piper", str(self.options.real / "piper-en_US-joe-medium" / "en_US-joe-medium.onnx")]
        maker = subprocess.Popen(command, preexec_fn=lambda: os.nice(5))
        try:
            yield maker
        finally:
            maker.terminate()
            maker.wait()


def main(arguments: list[str] | None = None) -> int:
    """Parse, run the stages asked for; returns the exit status."""
    module = "auricle.export.training.small.train"
    parser = stage_parser(module, (__doc__ or "").split("\n\n")[0], Small, None, "6 GB")
    parser.add_argument("--real", type=Path, default=SmallOptions.real, help="of make real-weights SET=training")
    parser.add_argument("--beats", type=Path, default=SmallOptions.beats, help="sound encoder (default %(default)s)")
    parser.add_argument("--start", type=Path, help="a finished checkpoint to begin with, such as models/small")
    return run_stages(Small, SmallOptions(**vars(parser.parse_args(arguments))))


if __name__ == "__main__":
    sys.exit(main())
