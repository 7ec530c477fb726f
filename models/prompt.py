"""Prompts: templates of a family, tasks by name and listed words -> the texts around the audio, turn after turn.

    start_ids | system | turn: text, audio, text | answer | end_ids | turn ...

What stands in the manifest is all that the runtime knows about it. Source: docs/reference.md §4.1, §7.6, §7.7.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from .errors import InputError

AUDIO, PROMPT, KEYWORDS, SYSTEM, WORDS = "{audio}", "{prompt}", "{keywords}", "{system}", "{words}"
MAX_KEYWORDS = 50
"""More make the model slower and listen less: the first ones count."""
_COMMENT = re.compile(r"(^|\s)#.*")
_LIST_MARKS = '"[]{}<>|'


class ResolvedPrompt(str):
    """A prompt as the model is asked. It is never taken for a task's name, whatever it says: `QA:asr` asks "asr"."""

    __slots__ = ()


@dataclass(frozen=True)
class PromptInfo:
    """The templates of one bundle.

    Each text between two audios is tokenized on its own, with nothing added: BOS stands in start_ids.
    """

    turn: str
    """One question about audio: {keywords}, {prompt} and, where the audio has a place of its own, {audio}."""
    text_turn: str
    """One question without audio: {prompt}."""
    system: str
    """What stands before all turns: {system}."""
    audio_tag: str | None
    """What a prompt names the audio by, where it stands inside the prompt; a prompt without it has it at its end."""
    keywords: str
    """Words that may occur in the audio: {words}."""
    max_keywords: int
    tasks: dict[str, str]
    """Prompts by name; {} is a blank to fill."""
    transcriptions: tuple[str, ...]
    """The tasks whose answer can be no longer than the speech."""
    normalization: Literal["NFC"] | None
    """How the tokenizer writes letters with accents, where llama.cpp does not do it by itself."""
    special_tokens: bool
    """The templates spell special tokens; where they do not, none is ever parsed."""
    start_ids: tuple[int, ...]
    end_ids: tuple[int, ...]
    """What follows an answer when another turn comes: EOS and what the family puts behind it."""
    eos_id: int
    prefix_ids: tuple[int, ...]
    """start_ids and the text before the audio of the first task: a tokenizer that gives others is the wrong one."""

    def prompt_for(self, task_or_prompt: str) -> ResolvedPrompt:
        """The prompt that a task's name stands for, or the prompt itself; twice is fine. Raises InputError."""
        return prompt_for(task_or_prompt, self.tasks)

    def transcribes(self, prompt: str) -> bool:
        """Whether a prompt asks for what was said, by one of the bundle's tasks."""
        return prompt in [self.tasks[name] for name in self.transcriptions]

    def token_budget(self, prompt: str, seconds: float) -> int | None:
        """Most tokens of a transcription of so much audio; None where the prompt asks for something else."""
        return token_budget(prompt, [self.tasks[name] for name in self.transcriptions], seconds)

    def texts(self, prompt: str, keywords: Sequence[str] = ()) -> tuple[str, ...]:
        """The texts of a turn, audio between each two of them. Raises InputError for an empty prompt."""
        prompt = nonempty(prompt)
        turn = self.turn.replace(KEYWORDS, self.keyword_text(keywords))
        if self.audio_tag is None:  # parted before the prompt comes in: that may say {audio}
            before, _, after = turn.partition(AUDIO)
            return before, after.replace(PROMPT, prompt)
        asked = prompt if self.audio_tag in prompt else f"{prompt} {self.audio_tag}"
        before, _, after = turn.partition(PROMPT)
        return tuple(f"{before}{asked}{after}".split(self.audio_tag))

    def without_audio(self, prompt: str) -> str:
        """The prompt for a turn in which nothing new is heard."""
        return " ".join(prompt.replace(self.audio_tag, " ").split()) if self.audio_tag else prompt

    def n_audios(self, prompt: str) -> int:
        """How many clips a prompt asks about."""
        return len(self.texts(prompt)) - 1

    def keyword_text(self, keywords: Sequence[str]) -> str:
        """What is said about listed words: nothing when there are none."""
        listed = " ".join(f"'{word}'" for word in keywords)
        return self.keywords.replace(WORDS, listed) if keywords else ""


def first_task(info: PromptInfo) -> str:
    """The prompt that `prefix_ids` belongs to."""
    return next(iter(info.tasks.values()))


def read_keywords(texts: Sequence[str], file: str = "") -> tuple[str, ...]:
    """Words of comma-separated or line-by-line lists: spaces tidied, each once (whatever its case), in their order.

    In the text of a file, which comes last, a # at a line's beginning or behind space begins a comment. Raises
    InputError for a word that cannot be listed.
    """
    lines = [line for text in texts for line in text.splitlines()]
    lines += [_COMMENT.sub("", line) for line in file.splitlines()]
    words = (" ".join(word.split()) for line in lines for word in line.split(","))
    found: dict[str, str] = {}
    for word in words:
        if word:
            found.setdefault(word.casefold(), word)
    return require_keywords(tuple(found.values()))


def require_keywords(words: Sequence[str]) -> tuple[str, ...]:
    """The words. Raises InputError for one that cannot stand in a list, and for a text in the place of a list."""
    if isinstance(words, str):
        raise InputError(f"keywords are a list of words, but one text was given: write [{words!r}]")
    for word in words:
        if wrong := [mark for mark in _LIST_MARKS if mark in word]:
            raise InputError(f"keyword {word!r} holds {wrong[0]!r}, which belongs to the list around it: leave it out")
        if not word.isprintable():
            raise InputError(f"keyword {word!r} is not text: write it again, in UTF-8")
    return tuple(words)


_LEAST_TOKENS, _TOKENS_PER_SECOND = 16, 12.0  # fast speech has 4 words a second, and a word up to 3 tokens


def prompt_for(task_or_prompt: str, tasks: Mapping[str, str]) -> ResolvedPrompt:
    """A task name, or `task:value` for a task with a blank, becomes its prompt; anything else is a prompt already.

    What comes from here comes back unchanged. Raises InputError for a task whose blank is not filled, or filled where
    there is none, and for an empty prompt.
    """
    if isinstance(task_or_prompt, ResolvedPrompt):
        return task_or_prompt
    name, colon, value = task_or_prompt.partition(":")
    template = tasks.get(name)
    if template is None:
        return ResolvedPrompt(nonempty(task_or_prompt))
    if "{}" in template:
        if not value.strip():
            raise InputError(f"task {name!r} has a blank to fill: write {name}:WORDS, for example slot_filling:room")
        return ResolvedPrompt(template.replace("{}", value.strip()))
    if colon:
        raise InputError(f"task {name!r} takes nothing after a colon, but {value!r} was given: write {name} alone")
    return ResolvedPrompt(template)


def nonempty(prompt: str) -> str:
    """The prompt without space around it. Raises InputError when nothing is left."""
    if not prompt.strip():
        raise InputError("the prompt is empty: give a question, or a task name such as asr")
    return prompt.strip()


def token_budget(prompt: str, transcriptions: Collection[str], seconds: float) -> int | None:
    """How many tokens a transcription of so much audio can have; more are invented. None for other prompts."""
    return _LEAST_TOKENS + int(_TOKENS_PER_SECOND * seconds) if prompt in transcriptions else None
