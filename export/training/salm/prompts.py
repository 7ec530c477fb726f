"""Prompts of demo-salm's training: a sentence -> the question with or without a word list, and the answer."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tokenizers import Tokenizer

from ....models.corpus.names import NamedSentence, distractors, near_name, ordinary_words
from ....models.errors import InputError
from ....models.families.salm import IM_END, TASKS, prompt_info
from ....models.prompt import MAX_KEYWORDS

_TOKENS = 2600  # of one step, about
_LISTS = ((0, 0.14), (1, 0.04), (3, 0.14), (10, 0.28), (25, 0.22), (MAX_KEYWORDS, 0.18))
"""Longest lists of a step's prompts, and the share of the steps."""
_FIRST_LISTS = ((0, 0.3), (1, 0.4), (3, 0.3))
_INCLUDED = 0.85  # of the names said
_TOKENS_OF_A_WORD, _TOKENS_WITHOUT = 5, 85


@dataclass(frozen=True)
class Asked:
    """One prompt about one clip, and the answer expected."""

    before: list[int]
    """Ids up to the audio."""
    after: list[int]
    answer: list[int]
    """With <|im_end|>."""


def end_id(tokenizer: Tokenizer) -> int:
    """The id that ends an answer. Raises InputError for a tokenizer that has none."""
    found = tokenizer.token_to_id(IM_END)
    if found is None:
        raise InputError(f"the tokenizer has no {IM_END}: train it with --stage tokenizer")
    return found


def prompt_ids(listed: list[str], tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Ids before the audio and behind it, as the runtime puts them."""
    info = prompt_info(lambda text: tokenizer.encode(text).ids, end_id(tokenizer))
    before, after = info.texts(TASKS["asr"], listed)
    return tokenizer.encode(before).ids, tokenizer.encode(after).ids


def batch_of(rng: random.Random, beginner: bool = False) -> list[int]:
    """The longest list of each prompt of one step: all alike, so that rows are about as long as each other."""
    lists = _FIRST_LISTS if beginner else _LISTS
    longest = rng.choices([n for n, _ in lists], [share for _, share in lists])[0]
    return [longest] * max(8, _TOKENS // (_TOKENS_WITHOUT + _TOKENS_OF_A_WORD * longest * 2 // 3))


def ask(sentence: NamedSentence, longest: int, rng: random.Random, tokenizer: Tokenizer) -> Asked:
    """The prompt for one sentence, with a list of up to `longest` words, the sentence's own among them or not."""
    ways = {name: name.spelled(rng) for name in sentence.names}
    spellings = [ways[name] for name in sentence.names]
    text = sentence.written(spellings)
    before, after = prompt_ids(word_list(sentence, spellings, longest, rng) if longest else [], tokenizer)
    return Asked(before, after, [*tokenizer.encode(text).ids, end_id(tokenizer)])


def word_list(sentence: NamedSentence, spellings: list[str], longest: int, rng: random.Random) -> list[str]:
    """A list in any order: words of the sentence in most, names that sound like its own in some, others in all."""
    size = rng.randint(max(1, longest // 3), longest)
    words = {word: None for word in spellings if rng.random() < _INCLUDED}
    if rng.random() < 0.25:
        content = [word for word in sentence.frame.split() if word in set(ordinary_words())]
        words |= {word: None for word in rng.sample(content, min(len(content), rng.randint(1, 2)))}
    if sentence.names and rng.random() < 0.3 and len(words) < size:
        words[near_name(rng.choice(sentence.names), rng).spelled(rng)] = None
    listed = list(words)[:size]
    others = [word for word in distractors(rng, size, sentence, "train", 0.0) if word not in words]
    listed += others[: size - len(listed)]
    rng.shuffle(listed)
    return listed
