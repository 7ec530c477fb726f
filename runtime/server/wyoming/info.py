"""Info: what a client is told about this service. Its names stay, for clients keep them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TypedDict

from wyoming.info import (
    AsrModel,
    AsrProgram,
    Attribution,
    HandleModel,
    HandleProgram,
    Info,
    IntentModel,
    IntentProgram,
)

from ..languages import transcribed_languages
from ..service import Service
from .options import WyomingOptions

ASR, HANDLE, INTENT = "auricle", "auricle-ask", "auricle-intent"
"""Programs. The first is also the name of Home Assistant's entry."""


class _About(TypedDict):
    attribution: Attribution
    installed: bool
    version: str | None


def service_info(service: Service, options: WyomingOptions) -> Info:
    """Raises ApiError for a bundle that does not transcribe."""
    about = _About(attribution=Attribution("Auricle", ""), installed=True, version=_version())
    name = service.model.name
    languages = sorted(transcribed_languages(service.engine.prompt))
    asr = AsrProgram(
        name=ASR,
        description="Auricle, speech to text",
        models=[AsrModel(name=name, description=name, languages=languages, **about)],
        supports_transcript_streaming=True,
        requires_external_vad=not options.vad,
        **about,
    )
    handle: list[HandleProgram] = []
    intent: list[IntentProgram] = []
    if options.answers == "handle":
        handle_models = [HandleModel(name=name, description=name, languages=languages, **about)]
        handle = [
            HandleProgram(
                name=HANDLE,
                description="Auricle, answers",
                models=handle_models,
                supports_handled_streaming=True,
                supports_home_control=False,
                **about,
            )
        ]
    elif options.answers == "intent":
        intent_models = [IntentModel(name=name, description=name, languages=languages, **about)]
        intent = [IntentProgram(name=INTENT, description="Auricle, intents", models=intent_models, **about)]
    return Info(asr=[asr], handle=handle, intent=intent)


def _version() -> str | None:
    try:
        return version("auricle")
    except PackageNotFoundError:
        return None
