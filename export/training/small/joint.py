"""The second training of `small`: the language model reads audio tokens, frozen but for a LoRA on q and v.

The CTC loss of the first training goes on beside it, so that what it reads stays what was said.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from ....models.audio import SILENCE
from ....models.corpus import examples
from ....models.families.salmonn import CHATML
from ....models.prompt import PROMPT
from ..shards import View
from ..trainer import Trainer
from .bridge import Shards, Vocabulary, ctc_loss, disturb
from .lexicon import LexicalBridge, hidden_states

LORA_RANK, LORA_ALPHA = 32, 64
BEFORE = f"{CHATML.before}<Speech>"
AFTER = f"</Speech> {PROMPT}{CHATML.after}"
END = "<|im_end|>"
_CTC_WEIGHT = 0.3
_BATCH_ROWS = 24 * 100  # encoder frames that the language model reads in one step: 48 s
_SOUND_TASKS = {"audiocaption": 0.7, "audio_speech_description": 0.15, "asr": 0.15}
_SOUND_QUESTIONS = {"open": 0.3, "commands": 0.4, "alone": 0.8}
"""Of the clips with a sound, those asked about it."""
_IGNORED = -100


@dataclass(frozen=True)
class Question:
    """The token ids around the audio of one clip, and of the answer to it."""

    before: list[int]
    after: list[int]
    answer: list[int]
    """With END."""


class Adapter(nn.Module):
    """The LoRA's weights alone, as a module of their own: what a checkpoint keeps of the language model."""

    def __init__(self, llm: PeftModel) -> None:
        super().__init__()
        self.weights = nn.ParameterDict(
            {name.replace(".", "/"): weight for name, weight in llm.named_parameters() if weight.requires_grad}
        )


class Prompts:
    """Prompts and answers in the language model's own chat template, as token ids."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.before = self.ids(BEFORE)
        self.end = self.ids(END)

    def ids(self, text: str) -> list[int]:
        """Nothing added; special tokens that the text spells are special tokens."""
        found: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids  # pyright: ignore
        return found

    def question(self, task: str, answer: str) -> Question:
        """One turn about one clip."""
        after = self.ids(AFTER.format(prompt=examples.task_prompt(task)))
        return Question(self.before, after, self.ids(answer) + self.end)


def draw_question(view: View, prompts: Prompts, rng: random.Random) -> Question:
    """Of open English its words; of sounds mostly what sounds; of commands everything that the demo's tasks ask."""
    utterance = view.utterance
    kind = "alone" if utterance is None else "commands" if utterance.answer else "open"
    if view.sound is not None and rng.random() < _SOUND_QUESTIONS[kind]:
        task = rng.choices(tuple(_SOUND_TASKS), tuple(_SOUND_TASKS.values()))[0]
    elif kind == "open":
        task = "asr"
    else:
        task = examples.training_task(examples.Clip(SILENCE, utterance, sound=view.sound), rng)
    return prompts.question(task, examples.expected_answer(utterance, view.sound, task))


def answer_loss(llm: PeftModel, questions: Sequence[Question], audio_tokens: Sequence[Tensor]) -> Tensor:
    """Mean cross-entropy of the answers' tokens; only they pass the language model's head."""
    base: LlamaForCausalLM = llm.get_base_model()  # pyright: ignore
    embed = base.model.embed_tokens
    rows: list[Tensor] = []
    labels: list[Tensor] = []
    for question, tokens in zip(questions, audio_tokens, strict=True):
        text = embed(torch.tensor(question.before + question.after + question.answer))
        split = len(question.before)
        rows.append(torch.cat([text[:split], tokens.to(text.dtype), text[split:]]))
        n_given = split + len(tokens) + len(question.after)
        labels.append(torch.tensor([_IGNORED] * n_given + question.answer))
    padded = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    wanted = nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=_IGNORED)[:, 1:]
    with sdpa_kernel(SDPBackend.MATH):  # the other's backward pass takes a fifth of the step on a CPU
        hidden = base.model(inputs_embeds=padded, use_cache=False).last_hidden_state[:, :-1]
    chosen = wanted != _IGNORED
    return F.cross_entropy(base.lm_head(hidden[chosen]).float(), wanted[chosen])


def train_joint(
    trainer: Trainer,
    bridge: LexicalBridge,
    llm: PeftModel,
    vocabulary: Vocabulary,
    prompts: Prompts,
    shards: Shards,
) -> None:
    """Until the trainer's time is spent. CTC, a third of the language model's cost, has further clips of its own."""
    rng = random.Random()
    for _ in trainer:
        asked = shards.batch(_BATCH_ROWS)
        views = [*asked, *shards.batch()]
        questions = [draw_question(view, prompts, rng) for view in asked]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = hidden_states(bridge, views, disturb)
            tokens = [bridge.project(rows) for rows in hidden[: len(asked)]]
            loss = answer_loss(llm, questions, tokens)
        trainer.step(loss + _CTC_WEIGHT * ctc_loss(bridge.lexicon, hidden, vocabulary.targets(views), length=None))


@torch.no_grad()
def answer(llm: PeftModel, prompts: Prompts, audio_tokens: Tensor, task: str = "asr", max_new_tokens: int = 80) -> str:
    """Greedy; audio_tokens [n, d_llm]."""
    base: LlamaForCausalLM = llm.get_base_model()  # pyright: ignore
    embed = base.model.embed_tokens
    question = prompts.question(task, "")
    first, last = embed(torch.tensor(question.before)), embed(torch.tensor(question.after))
    given = torch.cat([first, audio_tokens.to(first.dtype), last])[None]
    cache, found = None, list[int]()
    for _ in range(max_new_tokens):
        out = base.model(inputs_embeds=given, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        token = int(base.lm_head(out.last_hidden_state[0, -1]).argmax())
        if token == prompts.end[0]:
            break
        found.append(token)
        given = embed(torch.tensor([[token]]))
    return str(prompts.tokenizer.decode(found)).strip()
