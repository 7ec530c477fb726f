"""Joint training of the demo's bridge and language model: conversations about views, as the runtime puts them.

As the paper: transcription and description first, then every task. Most conversations have one turn; the assistant's
have more, each with a clip of its own. Of open English, whose words the tokenizer hardly has, the model learns to doubt
what it writes: the answer taught is any sentence's, and a likeliest piece above e^-1.5 costs.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import sentencepiece
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from ....models.audio import SILENCE
from ....models.corpus import examples
from ....models.corpus.examples import Clip, expected_answer, task_prompt, training_task
from ....models.corpus.sentences import SLOT_NAMES, sample_utterance, vocabulary
from ....models.families.salmonn import prompt_halves, prompt_info
from ....models.prompt import AUDIO, KEYWORDS
from ..bridge import Bridge, encode_views
from ..shards import View
from ..small.bridge import Reader, ctc_loss, disturb
from ..trainer import Trainer
from .corpus import is_prose

_BATCH = 32
_FIRST_STAGE = 0.15  # of the time: transcription and description only
_SEVERAL_TURNS = 0.25  # of the steps
_SOUND_ASKED = 0.4  # of the clips with a sound: what it is, beside the other tasks' share
_LISTENED_FOR = 0.25  # of the questions: words that may occur are listed before them
_MOST_LISTED = 12
_CAPITALIZED, _HEARD = 0.25, 0.4  # of the lists: written as names are; with words that do occur
_BOS, _EOS = 1, 2
_PROMPT = prompt_info(lambda _: (), _BOS, _EOS)
_WORDS = sorted(vocabulary())
_IGNORED = -100  # label of what is not to be learned
_CTC_WEIGHT = 0.5
_SURE = -1.5  # log-probability of the likeliest piece above which an answer about open English costs
_DOUBTED = ("asr", "speech_query", "keywords")
_PROSE_TASKS = {
    "asr": 0.5,
    "intent": 0.25,
    "slot_filling": 0.08,
    "audiocaption": 0.07,
    "speech_query": 0.06,
    "keywords": 0.04,
}


@dataclass(frozen=True)
class Turn:
    """One clip and what is said about it."""

    view: View
    before: list[int]
    after: list[int]
    answer: list[int]
    """With EOS."""
    doubted: bool = False
    """Whether the answer is a guess, which the model is to know."""


@dataclass(frozen=True)
class Reading:
    """CTC of the audio tokens against the language model's own embeddings, beside the answers."""

    reader: Reader
    length: float
    """Of those embeddings, on average."""

    @classmethod
    def of(cls, embeddings: Tensor) -> Reading:
        """embeddings [vocabulary, d_llm]."""
        return cls(Reader(embeddings), float(embeddings.norm(dim=-1).mean()))

    def loss(
        self, views: Sequence[View], tokens: Sequence[Tensor], tokenizer: sentencepiece.SentencePieceProcessor
    ) -> Tensor:
        """Of the views whose words the tokenizer has; tokens: their audio tokens."""
        spoken = [(view, rows) for view, rows in zip(views, tokens, strict=True) if not _open_english(view)]
        texts = [view.utterance.text if view.utterance else "" for view, _ in spoken]
        targets = [[token + 1 for token in tokenizer.encode(text)] for text in texts]
        return ctc_loss(self.reader, [rows for _, rows in spoken], targets, self.length)


def train_bridge(
    trainer: Trainer,
    bridge: Bridge,
    llm: nn.Module,
    tokenizer: sentencepiece.SentencePieceProcessor,
    views: list[View],
    reading: Reading | None,
    doubt: float,
) -> None:
    """Teach every task on sound, until the trainer's time is spent.

    reading: where the encoder is frozen and windows are short enough; features are disturbed then. doubt: the weight
    of being sure about open English.
    """
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
            tokens = encode_views(bridge, chosen, disturb if reading else None)
            loss = answer_loss(llm, conversations, tokens, doubt)
        if reading is not None:
            loss = loss + _CTC_WEIGHT * reading.loss(chosen, tokens, tokenizer)
        trainer.step(loss)


def answer_loss(
    llm: nn.Module, conversations: list[list[Turn]], audio_tokens: list[Tensor], doubt: float = 0.0
) -> Tensor:
    """Mean cross-entropy of the answers' tokens; audio_tokens are those of the turns, in order.

    A token of a doubted answer costs, times doubt, what its likeliest piece's log-probability lies above _SURE; the end
    of an answer may be sure.
    """
    embed = llm.get_input_embeddings()  # pyright: ignore
    remaining = iter(audio_tokens)
    rows: list[Tensor] = []
    labels: list[Tensor] = []
    doubts: list[Tensor] = []
    for conversation in conversations:
        pieces: list[Tensor] = []
        wanted: list[int] = []
        doubted: list[bool] = []
        for number, turn in enumerate(conversation):
            tokens = next(remaining)
            before = turn.before if number == 0 else turn.before[1:]  # BOS stands at the beginning alone
            pieces += [embed(torch.tensor(before)), tokens, embed(torch.tensor(turn.after + turn.answer))]
            n_given = len(before) + len(tokens) + len(turn.after)
            wanted += [_IGNORED] * n_given + turn.answer
            doubted += [False] * n_given + [turn.doubted] * (len(turn.answer) - 1) + [False]
        rows.append(torch.cat(pieces))
        labels.append(torch.tensor(wanted))
        doubts.append(torch.tensor(doubted))
    with sdpa_kernel(SDPBackend.MATH):  # see small/joint.py
        logits = llm(inputs_embeds=nn.utils.rnn.pad_sequence(rows, batch_first=True)).logits[:, :-1]
    targets = nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=_IGNORED)[:, 1:]
    unsure = nn.utils.rnn.pad_sequence(doubts, batch_first=True)[:, 1:]
    answers = targets != _IGNORED
    log_probs = F.log_softmax(logits[answers].float(), -1)
    too_sure = F.relu(log_probs.max(-1).values - _SURE) * unsure[answers]
    return F.nll_loss(log_probs, targets[answers]) + doubt * too_sure.mean()


def prompt_ids(
    task: str, tokenizer: sentencepiece.SentencePieceProcessor, listed: Sequence[str] = ()
) -> tuple[list[int], list[int]]:
    """Ids before the audio (BOS first) and behind it. listed: words that may occur."""
    _, after = prompt_halves(task_prompt(task))
    before = _PROMPT.turn.replace(KEYWORDS, _PROMPT.keyword_text(listed)).partition(AUDIO)[0]
    return [_BOS, *tokenizer.encode(before)], tokenizer.encode(after)


def listed_words(text: str, rng: random.Random) -> tuple[str, ...]:
    """Words of its world, one or two in an entry, that a user lists before a question; mostly none.

    They are no more likely to be said than others, so that the model goes on hearing what is said.
    """
    if rng.random() >= _LISTENED_FOR:
        return ()
    drawn = [rng.choice(_WORDS) for _ in range(rng.randint(1, _MOST_LISTED))]
    if text and rng.random() < _HEARD:
        drawn[rng.randrange(len(drawn))] = rng.choice(text.split())
    if rng.random() < 0.5:
        drawn = [f"{word} {rng.choice(_WORDS)}" if rng.random() < 0.5 else word for word in drawn]
    return tuple(word.title() for word in drawn) if rng.random() < _CAPITALIZED else tuple(drawn)


def _turn(view: View, rng: random.Random, tokenizer: sentencepiece.SentencePieceProcessor, first: bool) -> Turn:
    if _open_english(view):
        return _turn_about_prose(view, rng, tokenizer)
    if first or view.cut:  # of half a sentence nothing is known but its words
        task = rng.choices(examples.TASKS[:3], (0.8, 0.1, 0.1))[0]
    elif view.sound and rng.random() < _SOUND_ASKED:
        task = "audiocaption"
    else:
        task = training_task(Clip(SILENCE, view.utterance, sound=view.sound), rng)
    before, after = prompt_ids(task, tokenizer, listed_words(view.utterance.text if view.utterance else "", rng))
    return Turn(view, before, after, [*tokenizer.encode(expected_answer(view.utterance, view.sound, task)), _EOS])


def _turn_about_prose(view: View, rng: random.Random, tokenizer: sentencepiece.SentencePieceProcessor) -> Turn:
    """What is no command is none, and any sentence may stand for words that are not known."""
    name = rng.choices(tuple(_PROSE_TASKS), tuple(_PROSE_TASKS.values()))[0]
    task = f"{name}:{rng.choice(SLOT_NAMES)}" if name == "slot_filling" else name
    doubted = name in _DOUBTED
    before, after = prompt_ids(task, tokenizer, listed_words("", rng))
    told = sample_utterance(rng, "train") if doubted else view.utterance
    answer = expected_answer(told, view.sound, task)
    return Turn(view, before, after, [*tokenizer.encode(answer), _EOS], doubted)


def _open_english(view: View) -> bool:
    return not view.cut and is_prose(view.utterance)
