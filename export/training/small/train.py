"""Train `small`: `python -m auricle.export.training.small.train --work DIR --real DIR --out CHECKPOINT_DIR`.

Stages, in order: `base` (the language model, dequantized), `bridge` (Whisper's decoder as a Q-Former, CTC in Whisper's
tokens), `joint` (the language model reads the audio tokens through its LoRA, CTC going on beside it), `write`
(salmonn.pth, beats.pt, args.json) and `judge` (word error of people and of a held-out voice). Each goes on where it was
stopped. With `--start models/small` `joint` begins with that LoRA, and with its Q-Former where `bridge` was not run.
While a stage trains, a process of low priority makes new clips all the time (corpus.py).
`bridge` and `joint` can be run by torchrun, one process per core and twice the batch:
`torchrun --nproc-per-node 2 -m -- auricle.export.training.small.train --threads 1 --stage joint ...`.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast
from transformers.models.whisper.modeling_whisper import WhisperDecoder

from ....models.audio import Waveform
from ....models.corpus.people import people
from ....models.corpus.sentences import sample_utterance
from ....models.errors import RunError
from ....models.llm import KEEP
from ...aligner.checkpoint import load_aligner
from ...encoders.beats import load_beats
from ...encoders.lexicon import LanguageModelTokens
from ...encoders.whisper import read_whisper_spec
from ...llm.export import read_llm
from ..bridge import encode_views, join_views, with_lora
from ..salmonn.resume import load_adapter, load_bridge
from ..salmonn.write import lora_state, trained_state
from ..shards import View, shard_names
from ..stages import Training, TrainingOptions, run_stages, stage_parser
from ..trainer import Trainer, is_first_process
from .base import open_base, write_base
from .bridge import SPEC, Shards, Vocabulary
from .corpus import Encoders, Texts
from .decoder import START, start_from_decoder
from .evaluate import held_out, word_error
from .joint import LORA_ALPHA, LORA_RANK, Adapter, Prompts, answer, train_joint
from .lexicon import LexicalBridge, lexicon_of, lexicon_state, restore_lexicon, train_bridge

_COMMANDS = 4000  # of the demo's grammar: all of its words are among them
_FIRST_SHARDS = 2
_JUDGED = 100  # held-out sentences
_DROPOUT = 0.05
_BRIDGE_SHARE = 0.5
"""Of joint's learning rate: the bridge can hear already."""


@dataclass(frozen=True)
class SmallOptions(TrainingOptions):
    """Where the trained weights of other people lie, and the demo's sound encoder."""

    real: Path = Path("build/real-weights")
    beats: Path = Path("checkpoints/demo/beats.pt")
    start: Path | None = None
    """A finished checkpoint: `joint` begins with its LoRA, and with its Q-Former where `bridge` was not run."""


class Small(Training[SmallOptions]):
    """The stages of one training, sharing a work directory. `out` gets salmonn.pth, beats.pt and args.json."""

    STAGES = ("base", "bridge", "joint", "write", "judge")
    MINUTES: ClassVar = {"bridge": 60.0, "joint": 240.0}
    """Of one core."""
    RATES: ClassVar = {"bridge": 4e-4, "joint": 4e-4}

    def _base(self) -> None:
        write_base(self.options.real / "smollm2-135m-instruct", self.work / "llm")

    def _bridge(self) -> None:
        begun = self.checkpoint("bridge").exists()
        trainer = self._trainer("bridge", {"bridge": self.bridge})
        with self._clips() as shards:
            if not begun:
                frames = join_views(SPEC, shards.batch())[0].unflatten(0, (-1, SPEC.window))
                start = self._heard_in.convert_tokens_to_ids(START)
                assert isinstance(start, int)
                start_from_decoder(self.bridge, self._decoder, start, frames)
            train_bridge(trainer, self.bridge, self.vocabulary, shards)

    def _joint(self) -> None:
        adapted = with_lora(self.llm, LORA_RANK, LORA_ALPHA)
        start = self.options.start
        if not self.checkpoint("joint").exists():
            if start:
                load_adapter(start, adapted)
            if start and not self.checkpoint("bridge").exists():
                whisper = read_whisper_spec(self.options.real / "whisper-base")
                load_bridge(start, self.bridge, whisper, load_beats(self.options.beats)[0])
                restore_lexicon(self.bridge.lexicon, start / "salmonn.pth")
            else:
                self.restore("bridge", {"bridge": self.bridge})
        trainer = self._trainer("joint", {"bridge": self.bridge, "lora": Adapter(adapted)})
        with self._clips() as shards:
            train_joint(trainer, self.bridge, adapted, self.vocabulary, Prompts(self.tokenizer), shards)

    def _write(self) -> None:
        adapted = self._trained()
        self.options.out.mkdir(parents=True, exist_ok=True)
        state = trained_state(self.bridge, lora_state(adapted)) | lexicon_state(self.bridge.lexicon, self.vocabulary)
        halves = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
        torch.save({"model": halves}, self.options.out / "salmonn.pth")
        shutil.copy(self.options.beats, self.options.out / "beats.pt")
        base = read_llm(self.options.real / "smollm2-135m-instruct" / "model.gguf")
        args = {
            "lora_alpha": LORA_ALPHA,
            "qformer_heads": SPEC.n_heads,
            "qformer_layers": SPEC.n_layers,
            "second_per_window": SPEC.second_per_window,
            "second_stride": SPEC.second_stride,
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
        """Whisper's tokens of all that is spoken in training, read once."""
        path = self.work / "spoken-tokens.txt"
        if not path.exists():
            texts = Texts.load(self.work / "prose.txt", held_out=False)
            rng = random.Random(0)
            commands = [sample_utterance(rng, "train").text for _ in range(_COMMANDS)]
            spoken = [*texts.examples, *texts.definitions, *texts.prose, *commands]
            path.write_text(" ".join(map(str, Vocabulary.of(spoken, self._heard_in).ids)))
        return Vocabulary([int(word) for word in path.read_text().split()], self._heard_in)

    @cached_property
    def bridge(self) -> LexicalBridge:
        """Q-Former, projection and lexicon."""
        encode = partial(self.tokenizer.encode, add_special_tokens=False)
        llm = LanguageModelTokens(encode, self.llm.model.embed_tokens.weight)
        return LexicalBridge(SPEC, lexicon_of(self.vocabulary, self._decoder, llm), _DROPOUT)

    @cached_property
    def _decoder(self) -> WhisperDecoder:
        return load_aligner(self.options.real / "whisper-base").decoder

    @cached_property
    def _heard_in(self) -> PreTrainedTokenizerFast:
        file = self.options.real / "whisper-base" / "tokenizer.json"
        return PreTrainedTokenizerFast(tokenizer_file=str(file), clean_up_tokenization_spaces=False)

    def _trainer(self, stage: str, modules: dict[str, nn.Module]) -> Trainer:
        shares = {"bridge": _BRIDGE_SHARE} if stage == "joint" else None
        return self.trainer(stage, modules, self.RATES[stage], muon=False, shares=shares)

    def _trained(self) -> Any:
        adapted = with_lora(self.llm, LORA_RANK, LORA_ALPHA)
        self.restore("joint", {"bridge": self.bridge, "lora": Adapter(adapted)})
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
    options = SmallOptions(**vars(parser.parse_args(arguments)))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the maker of clips ends too
    return run_stages(Small, options)


if __name__ == "__main__":
    sys.exit(main())
