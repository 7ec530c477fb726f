"""Train `small`: `python -m auricle.export.training.small.train --work DIR --whisper DIR --beats FILE --llm DIR`.

Stages: `bridge` (CTC against the language model's embeddings), `joint` (the language model reads the audio tokens
through its LoRA, CTC going on as a second loss). The corpus is made by another process, for as long as these train.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

import torch
from torch import nn
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase

from ....models.corpus.sentences import sample_utterance
from ..trainer import Trainer
from .bridge import Bridge, Reader, Shards, Vocabulary, train_bridge
from .corpus import Texts
from .joint import Adapter, train_joint, with_lora

STAGES = ("bridge", "joint")
MINUTES = {"bridge": 120.0, "joint": 480.0}
_RATES = {"bridge": 1e-3, "joint": 4e-4}
_COMMANDS = 4000  # of the demo's grammar: all of its words are among them


def main(arguments: list[str] | None = None) -> int:
    """Runs or continues one stage; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m auricle.export.training.small.train", description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="where corpus.py writes its shards")
    parser.add_argument("--llm", type=Path, required=True, help="SmolLM2-135M-Instruct, Hugging Face directory")
    parser.add_argument("--stage", choices=STAGES, required=True)
    parser.add_argument("--minutes", type=float, help="of computation; default: what the shipped weights took")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(given.llm)
    llm = LlamaForCausalLM.from_pretrained(given.llm, dtype=torch.bfloat16).eval().requires_grad_(False)
    vocabulary = whole_vocabulary(given.work, tokenizer)
    reader = Reader(llm.model.embed_tokens.weight[list(vocabulary.ids)])
    bridge = Bridge(dropout=0.1)
    shards = Shards(given.work / "shards", random.Random())
    modules: dict[str, nn.Module] = {"bridge": bridge, "reader": reader}
    minutes = given.minutes or MINUTES[given.stage]
    path = given.work / f"{given.stage}.pt"
    if given.stage == "bridge":
        trainer = Trainer(path, modules, minutes, _RATES["bridge"], muon=False)
        train_bridge(trainer, bridge, reader, vocabulary, tokenizer, shards)
        return 0
    if not path.exists():
        begun = torch.load(given.work / "bridge.pt", weights_only=True)
        for name, module in modules.items():
            module.load_state_dict(begun[name])
    adapted = with_lora(llm)
    trainer = Trainer(path, modules | {"lora": Adapter(adapted)}, minutes, _RATES["joint"], muon=False)
    train_joint(trainer, bridge, reader, adapted, vocabulary, tokenizer, shards)
    return 0


def whole_vocabulary(work: Path, tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
    """The tokens of all that is spoken in training, read once."""
    path = work / "vocabulary.txt"
    if not path.exists():
        texts = Texts.load(work / "prose.txt", held_out=False)
        rng = random.Random(0)
        commands = [sample_utterance(rng, "train").text for _ in range(_COMMANDS)]
        found = Vocabulary.of([*texts.examples, *texts.definitions, *texts.prose, *commands], tokenizer)
        path.write_text(" ".join(map(str, found.ids)))
    return Vocabulary([int(word) for word in path.read_text().split()])


if __name__ == "__main__":
    sys.exit(main())
