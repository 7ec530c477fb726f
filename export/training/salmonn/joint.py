"""Joint training of the demo's bridge and language model: conversations about views, as the runtime puts them.

As the paper: transcription and description first, then every task. Most conversations have one turn; the assistant's
have more, each with a clip of its own.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import sentencepiece
import torch
from torch import Tensor, nn

from ....models.audio import SILENCE
from ....models.corpus import examples
from ....models.corpus.examples import Clip, expected_answer, task_prompt, training_task
from ....models.families.salmonn import prompt_halves
from ..bridge import Bridge, encode_views
from ..shards import View
from ..trainer import Trainer

_BATCH = 32
_FIRST_STAGE = 0.15  # of the time: transcription and description only
_SEVERAL_TURNS = 0.25  # of the steps
_BOS, _EOS = 1, 2
_IGNORED = -100  # label of what is not to be learned


@dataclass(frozen=True)
class Turn:
    """One clip and what is said about it."""

    view: View
    before: list[int]
    after: list[int]
    answer: list[int]
    """With EOS."""


def train_bridge(
    trainer: Trainer,
    bridge: Bridge,
    llm: nn.Module,
    tokenizer: sentencepiece.SentencePieceProcessor,
    views: list[View],
) -> None:
    """Teach every task on sound, until the trainer's time is spent."""
    rng = random.Random()
    whole = [view for view in views if not view.cut]
    for _ in trainer:
        several = rng.random() < _SEVERAL_TURNS
        first = trainer.spent < _FIRST_STAGE * trainer.budget
        chosen = rng.sample(whole if several else views, _BATCH)
        turns = [_turn(view, rng, tokenizer, first) for view in chosen]
        size = rng.choice((2, 3, 4, 5)) if several else 1
        conversations = [turns[at : at + size] for at in range(0, len(turns), size)]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            tokens = encode_views(bridge, [turn.view for turn in turns])
            loss = answer_loss(llm, conversations, tokens)
        trainer.step(loss)


def answer_loss(llm: nn.Module, conversations: list[list[Turn]], audio_tokens: list[Tensor]) -> Tensor:
    """Cross-entropy of the answers of conversations; audio_tokens are those of their turns, in order."""
    embed = llm.get_input_embeddings()  # pyright: ignore
    remaining = iter(audio_tokens)
    rows: list[Tensor] = []
    labels: list[Tensor] = []
    for conversation in conversations:
        pieces: list[Tensor] = []
        wanted: list[int] = []
        for number, turn in enumerate(conversation):
            tokens = next(remaining)
            before = turn.before if number == 0 else turn.before[1:]  # BOS stands at the beginning alone
            pieces += [embed(torch.tensor(before)), tokens, embed(torch.tensor(turn.after + turn.answer))]
            wanted += [_IGNORED] * (len(before) + len(tokens) + len(turn.after)) + turn.answer
        rows.append(torch.cat(pieces))
        labels.append(torch.tensor(wanted))
    padded = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return llm(
        inputs_embeds=padded, labels=nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=_IGNORED)
    ).loss


def prompt_ids(task: str, tokenizer: sentencepiece.SentencePieceProcessor) -> tuple[list[int], list[int]]:
    """Ids before the audio (BOS first) and behind it."""
    before, after = prompt_halves(task_prompt(task))
    return [_BOS, *tokenizer.encode(before)], tokenizer.encode(after)


def _turn(view: View, rng: random.Random, tokenizer: sentencepiece.SentencePieceProcessor, first: bool) -> Turn:
    if first or view.cut:  # of half a sentence nothing is known but its words
        task = rng.choices(examples.TASKS[:3], (0.8, 0.1, 0.1))[0]
    else:
        task = training_task(Clip(SILENCE, view.utterance, sound=view.sound), rng)
    before, after = prompt_ids(task, tokenizer)
    return Turn(view, before, after, [*tokenizer.encode(expected_answer(view.utterance, view.sound, task)), _EOS])
