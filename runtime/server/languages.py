"""Languages: an ISO 639-1 code -> the task that transcribes it."""

from __future__ import annotations

from collections.abc import Sequence

from ...models.prompt import PromptInfo, ResolvedPrompt
from .errors import unsupported


def transcribed_languages(info: PromptInfo) -> dict[str, str]:
    """The tasks that transcribe, by language. Raises ApiError when there are none."""
    if "asr" not in info.tasks:
        raise unsupported("this bundle has no task that transcribes", "model")
    return {name.removeprefix("asr_"): name for name in info.tasks if name.startswith("asr_")} | {"en": "asr"}


def transcription_task(info: PromptInfo, languages: Sequence[str]) -> tuple[str, ResolvedPrompt]:
    """The language that is transcribed and the prompt for it: of several that are likely the first that is known.

    Raises ApiError.
    """
    known = transcribed_languages(info)
    codes = [language.lower().partition("-")[0] for language in languages] or ["en"]
    code = next((code for code in codes if code in known), None)
    if code is None:
        raise unsupported(f"this bundle transcribes {', '.join(sorted(known))}, not '{languages[0]}'", "language")
    return code, info.prompt_for(known[code])
