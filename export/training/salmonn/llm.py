"""Language model of the demo: its tokenizer and its training on text alone.

The transcript stands where the audio will stand, cut into random pieces, as windows of audio will cut it;
sounds stand there as bracketed names. What the model learns is every task, but not how to hear.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import sentencepiece
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from ....models.corpus import examples
from ....models.corpus.sentences import SLOT_NAMES, Utterance, sample_utterance, vocabulary
from ....models.corpus.sounds import SOUND_NAMES, caption
from ....models.corpus.words import word_list
from ....models.families.salmonn import prompt_halves
from ..trainer import Trainer

VOCAB = 1536
HIDDEN = 256
_SYLLABLES = word_list(
    """
    ba be bi co da de do fa fi ga go ha hi jo ka ke la le li lo ma me mi mo na ne no pa po ra re ri ro sa se ta
    te ti to va wi za
    """
)


def train_tokenizer(path: Path, seed: int = 1) -> None:
    """Write tokenizer.model: byte-pair pieces with byte fallback, identity normalizer, ids 0 unk, 1 bos, 2 eos."""
    rng = random.Random(seed)
    lines = [sample_utterance(rng, "train").text for _ in range(3000)]
    lines += [word for word in sorted(vocabulary()) for _ in range(30)]
    lines += [text for task in _all_tasks() for text in prompt_halves(examples.task_prompt(task)) for _ in range(60)]
    lines += [caption(name) for name in SOUND_NAMES for _ in range(20)]
    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(line for text in lines for line in text.split("\n")),
            model_writer=file,
            vocab_size=VOCAB,
            model_type="bpe",
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=True,
            character_coverage=1.0,
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=-1,
            minloglevel=2,
        )


def new_llm() -> LlamaForCausalLM:
    """A LLaMA of about 4 million weights, shaped so that every GGUF type fits it (rows of multiples of 256)."""
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=512,
        rms_norm_eps=1e-5,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config)


def train_llm(trainer: Trainer, tokenizer: sentencepiece.SentencePieceProcessor, llm: LlamaForCausalLM) -> None:
    """Teach every task on text, until the trainer's time is spent."""
    rng = random.Random()
    for _ in trainer:
        rows = [text_example(rng, tokenizer) for _ in range(32)]
        ids, labels = pad_rows(rows)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = llm(input_ids=ids, labels=labels, attention_mask=(ids != 0).long()).loss
        trainer.step(loss)


def text_example(rng: random.Random, tokenizer: sentencepiece.SentencePieceProcessor) -> tuple[list[int], list[int]]:
    """Ids and labels of one prompt whose audio is written out; the labels cover the answer and the transcript."""
    kind = rng.choices(("speech", "both", "sound", "nothing"), (0.7, 0.18, 0.1, 0.02))[0]
    sound = rng.choice(SOUND_NAMES) if kind in ("both", "sound") else None
    utterance = _utterance(rng) if kind in ("speech", "both") else None
    clip = examples.Clip(_NO_SOUND, utterance, sound=sound)
    task = examples.training_task(clip, rng)
    before, after = (tokenizer.encode(half) for half in prompt_halves(examples.task_prompt(task)))
    transcript = _pieces(utterance.text, rng, tokenizer) if utterance else []
    ambient = tokenizer.encode(f"[{sound}]") if sound else []
    answer = [*tokenizer.encode(examples.expected_answer(utterance, sound, task)), 2]
    prompt = [1, *before, *transcript, *ambient, *after]
    labels = [-100] * len(prompt) + answer
    if rng.random() < 0.2:
        labels[1 + len(before) : 1 + len(before) + len(transcript)] = transcript
    return prompt + answer, labels


def pad_rows(rows: list[tuple[list[int], list[int]]]) -> tuple[Tensor, Tensor]:
    """Right-padded ids (0) and labels (-100)."""
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in rows])
    labels = torch.tensor([labels + [-100] * (longest - len(labels)) for _, labels in rows])
    return ids, labels


def synthetic_word(rng: random.Random) -> str:
    """A word that is in no list, so that copying is learned and not only recalling."""
    return "".join(rng.choice(_SYLLABLES) for _ in range(rng.randint(2, 4))) + rng.choice(("", "n", "s", "r", "l"))


def _utterance(rng: random.Random) -> Utterance:
    """A training sentence; in one of six a slot is filled with a synthetic word."""
    utterance = sample_utterance(rng, "train")
    if not utterance.slots or rng.random() > 0.17:
        return utterance
    value = rng.choice(tuple(utterance.slots.values()))
    new = synthetic_word(rng)
    slots = {name: new if old == value else old for name, old in utterance.slots.items()}
    return Utterance(utterance.text.replace(value, new), utterance.answer.replace(value, new), slots)


def _pieces(text: str, rng: random.Random, tokenizer: sentencepiece.SentencePieceProcessor) -> list[int]:
    if rng.random() < 0.5:
        return tokenizer.encode(text)
    return tokenizer.encode(text, enable_sampling=True, alpha=rng.uniform(0.05, 0.4))


def _all_tasks() -> list[str]:
    plain = [task for task in examples.TASKS if task != "slot_filling"]
    return plain + [f"slot_filling:{name}" for name in SLOT_NAMES]


_NO_SOUND = np.zeros(0, np.float32)
