"""Language model of demo-salm: a tiny Qwen3, its tokenizer, and its training before there is audio.

The sounds of a sentence stand where the audio will stand, four letter slots to the token as the encoder's spelling
head gives them (`LetterTokens`), with mistakes. So the model learns to write what is heard, to look a name up in the
list and to leave the rest of the list alone, while the encoder is still learning to hear.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen3Config, Qwen3ForCausalLM

from ....models.corpus.names import NamedSentence, known_words, named_sentence, ordinary_sentence, sample_name
from ....models.corpus.sentences import sample_utterance
from ....models.corpus.words import word_list
from ..trainer import Trainer
from .prompts import Asked, ask, batch_of

HIDDEN = 256
VOCAB = 1024
LETTERS = " abcdefghijklmnopqrstuvwxyz"
SLOTS = 4  # letters an audio token of 80 ms can hold
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|audioplaceholder|>")
_QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PIECES = 800  # pieces without a space before them, letters and bytes included
_PROMPT_WORDS = word_list("user assistant Following words may occur in audio Transcribe the following")
_BY_HAND = (("Ġ", "["), ("Ġ[", "'"), ("Ġ", "'"), ("'", "]"))
_BEGINNING = 0.4  # of the time: short lists, names said twice
_CONFUSED = {
    "b": "pd", "p": "bt", "d": "tb", "t": "dk", "g": "k", "k": "tg", "f": "vs", "v": "fb", "s": "zf", "z": "s",
    "m": "n", "n": "m", "a": "eu", "e": "ia", "i": "ey", "o": "ua", "u": "oa", "l": "rw", "r": "lw",
}  # fmt: skip


class LetterTokens(nn.Module):
    """Audio tokens made of letters: slots [n, 4] of 0 (nothing) or 1 + letter -> [n, hidden]."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(SLOTS * (len(LETTERS) + 1), HIDDEN)
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, slots: Tensor) -> Tensor:
        """Each slot has its own row for each letter; a token is their sum."""
        return self.table(slots + torch.arange(SLOTS) * (len(LETTERS) + 1)).sum(-2)


def train_tokenizer(path: Path, seed: int = 1) -> None:
    """Write tokenizer.json: Qwen2's pre-tokenizer, byte-level BPE, 1024 pieces.

    Merges with a space in front come last, so a name is cut alike in a list, where a quote stands before it, and in a
    sentence.
    """
    rng = random.Random(seed)
    counts = Counter(word for _ in range(6000) for word in sample_utterance(rng, "train").text.split())
    counts.update(word for _ in range(3000) for word in named_sentence(rng, "train").frame.split() if word != "{}")
    counts.update({word: 5000 for word in _PROMPT_WORDS})
    names = [sample_name(rng, "train").spelled(rng) for _ in range(1500)]
    texts = names + [word for word, count in counts.items() for _ in range(20 + round(10 * count**0.5))]
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=_PIECES, initial_alphabet=alphabet, show_progress=False)
    )
    merges = [*_merges(learner), *_BY_HAND]
    whole = [word for word, _ in counts.most_common() if len(learner.encode(word).tokens) == 1]
    merges += [("Ġ", word) for word in whole][: VOCAB - len(SPECIALS) - len(alphabet) - len(merges)]
    vocab = {piece: number for number, piece in enumerate([*alphabet, *(a + b for a, b in merges)])}
    _tokenizer(vocab, merges).save(str(path))


def new_llm() -> Qwen3ForCausalLM:
    """An untrained Qwen3 of 2.6 million weights, shaped so that every GGUF type fits it (rows of multiples of 256)."""
    qwen3_config: Any = Qwen3Config  # its signature does not show all of its fields
    config = qwen3_config(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=2048,
        rms_norm_eps=1e-6,
        rope_theta=1e6,
        tie_word_embeddings=True,
    )
    return Qwen3ForCausalLM(config)


def train_llm(trainer: Trainer, tokenizer: Tokenizer, llm: Qwen3ForCausalLM, letters: LetterTokens) -> None:
    """Teach writing and looking up on text, until the trainer's time is spent; first with short lists."""
    rng = random.Random()
    generator = np.random.default_rng()
    known_words()
    for _ in trainer:
        asked = []
        slots = []
        beginner = trainer.spent < _BEGINNING * trainer.budget
        for longest in batch_of(rng, beginner):
            sentence = text_sentence(rng, 0.2 if beginner else 0.04)
            asked.append(ask(sentence, longest, rng, tokenizer))
            slots.append(heard_letters(sentence.spoken, rng, generator))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            tokens = letters(torch.from_numpy(np.concatenate(slots))).split([len(row) for row in slots])
            loss = answer_loss(llm, asked, list(tokens))
        trainer.step(loss)


def text_sentence(rng: random.Random, repeated: float) -> NamedSentence:
    """A training sentence, mostly with synthetic names; a share are names said twice, to learn copying the sooner."""
    kind = rng.random()
    if kind < repeated:
        names = tuple(sample_name(rng, "train") for _ in range(rng.choice((1, 2, 2, 3)))) * 2
        return NamedSentence(" ".join(["{}"] * len(names)), names)
    return named_sentence(rng, "train") if kind < 0.8 else ordinary_sentence(rng, "train")


def answer_loss(llm: Qwen3ForCausalLM, asked: list[Asked], audio_tokens: list[Tensor]) -> Tensor:
    """Cross-entropy of the answers; the audio tokens [n, hidden] stand in each prompt's gap."""
    embed = llm.get_input_embeddings()
    rows = []
    at = []
    wanted = []
    length = max(
        len(a.before) + len(t) + len(a.after) + len(a.answer) for a, t in zip(asked, audio_tokens, strict=True)
    )
    for number, (one, tokens) in enumerate(zip(asked, audio_tokens, strict=True)):
        behind = torch.tensor(one.after + one.answer)
        row = torch.cat([embed(torch.tensor(one.before)), tokens, embed(behind)])
        rows.append(row)
        first = number * length + len(row) - len(one.answer) - 1  # a position speaks of the next one
        at += range(first, first + len(one.answer))
        wanted += one.answer
    hidden = llm.model(inputs_embeds=nn.utils.rnn.pad_sequence(rows, batch_first=True), use_cache=False)[0]
    return F.cross_entropy(llm.lm_head(hidden.flatten(0, 1)[torch.tensor(at)]).float(), torch.tensor(wanted))


def heard_letters(spoken: str, rng: random.Random, generator: np.random.Generator) -> np.ndarray:
    """What a spelling head might make of a sentence: letter slots [n, 4] at a drawn speed, with a few mistakes."""
    wrong = rng.choice((0.0, 0.02, 0.05, 0.1))
    text = [_misheard(letter, rng) if rng.random() < wrong else letter for letter in spoken]
    letters = np.array([LETTERS.index(letter) + 1 for letter in "".join(text)], np.int64)
    steps = np.maximum(1, generator.normal(rng.uniform(2.8, 4.4), 1.3, len(letters))).round().astype(np.int64)
    places = rng.randint(4, 24) + np.cumsum(steps) - steps[:1].sum()
    size = (int(places[-1]) if len(places) else 50) + rng.randint(4, 14)
    slots = np.zeros(-(-size // SLOTS) * SLOTS, np.int64)
    slots[places] = letters
    return slots.reshape(-1, SLOTS)


def _misheard(letter: str, rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.25:
        return ""
    return letter + rng.choice(LETTERS[1:]) if kind < 0.4 else rng.choice(_CONFUSED.get(letter, letter))


def _merges(learner: Tokenizer) -> list[tuple[str, str]]:
    found = json.loads(learner.to_str())["model"]["merges"]
    return [(a, b) for a, b in (pair if isinstance(pair, list) else pair.split(" ") for pair in found)]


def _tokenizer(vocab: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    words = pre_tokenizers.Split(Regex(_QWEN_WORDS), "isolated")
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, bytes_])
    tokenizer.decoder = decoders.ByteLevel()
    if tokenizer.get_vocab_size() > VOCAB - len(SPECIALS):
        raise ValueError(f"{tokenizer.get_vocab_size()} pieces are too many")
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIALS])
    return tokenizer
