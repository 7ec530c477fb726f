"""Tasks by name: which prompt a name stands for, and how long its answer can be."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from .errors import InputError

_LEAST_TOKENS, _TOKENS_PER_SECOND = 16, 12.0  # fast speech has 4 words a second, and a word up to 3 tokens


def prompt_for(task_or_prompt: str, tasks: Mapping[str, str]) -> str:
    """A task name, or `task:value` for a task with a blank, becomes its prompt; anything else is a prompt already.

    Raises InputError for a task whose blank is not filled, or filled where there is none, and for an empty prompt.
    """
    name, colon, value = task_or_prompt.partition(":")
    template = tasks.get(name)
    if template is None:
        return nonempty(task_or_prompt)
    if "{}" in template:
        if not value.strip():
            raise InputError(f"task {name!r} has a blank to fill: write {name}:WORDS, for example slot_filling:room")
        return template.replace("{}", value.strip())
    if colon:
        raise InputError(f"task {name!r} takes nothing after a colon, but {value!r} was given: write {name} alone")
    return template


def nonempty(prompt: str) -> str:
    """The prompt without space around it. Raises InputError when nothing is left."""
    if not prompt.strip():
        raise InputError("the prompt is empty: give a question, or a task name such as asr")
    return prompt.strip()


def token_budget(prompt: str, transcriptions: Collection[str], seconds: float) -> int | None:
    """How many tokens a transcription of so much audio can have; more are invented. None for other prompts."""
    return _LEAST_TOKENS + int(_TOKENS_PER_SECOND * seconds) if prompt in transcriptions else None
