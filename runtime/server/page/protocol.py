"""Protocol of /live: what a client sends first -> how it is heard; events of a live session -> JSON."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

from ....models.errors import InputError
from ....models.prompt import read_keywords
from ...audio.container import MAX_RATE, MIN_RATE
from ...engine import Engine
from ...events import AudioDropped, Caption, Final, Lagging, SessionEnded, SpeechStarted
from ...live.captions import LiveOptions
from ...llm.sampling import Generation
from ..errors import api_error, invalid
from ..live_session import LiveSessionEvent, LiveSetup, SegmentFailed
from ..openai.json_fields import Fields

PROTOCOL = "auricle.live"
"""The subprotocol."""
MAX_NAME = 100
"""Characters of a session's name."""
MAX_PROMPT = 1 << 16


@dataclass(frozen=True)
class LiveStart:
    """The first message."""

    sample_rate: int
    name: str
    """Empty: nobody else can view it."""
    setup: LiveSetup


def read_start(engine: Engine, message: Fields) -> LiveStart:
    """Raises ApiError, InputError."""
    sample_rate = message.integer("sample_rate", MIN_RATE, MAX_RATE)
    if sample_rate is None:
        raise invalid("sample_rate is missing: say how many samples a second follow", "sample_rate")
    prompt = message.text("prompt") or "asr"
    name = message.text("session")
    for param, text, most in (("prompt", prompt, MAX_PROMPT), ("session", name, MAX_NAME)):
        if len(text) > most:
            raise invalid(f"{param} has {len(text)} characters, and at most {most} are taken", param)
    prompt = engine.prompt.prompt_for(prompt)
    options = LiveOptions(prompt=prompt, vad=message.flag("vad", True), generation=_generation(engine, prompt, message))
    setup = LiveSetup(options, _keywords(engine, message))
    setup.require_room(engine)
    return LiveStart(sample_rate, name, setup)


def _generation(engine: Engine, prompt: str, message: Fields) -> Generation | None:
    if "min_support" not in message:
        return None
    generation = replace(engine.greedy_defaults, min_support=message.number("min_support", 0, 0, 1))
    engine.require_aligner(prompt, generation)
    return generation


def _keywords(engine: Engine, message: Fields) -> tuple[str, ...]:
    given = message.list("keywords")
    if not all(isinstance(each, str) for each in given):
        raise invalid("keywords must be a list of strings", "keywords")
    try:
        words = read_keywords(cast("list[str]", given))
    except InputError as error:
        raise invalid(str(error), "keywords") from None
    if len(words) > (most := engine.prompt.max_keywords):
        raise invalid(f"{len(words)} keywords were given, at most {most} are read", "keywords")
    return words


def event_json(event: LiveSessionEvent) -> dict[str, Any] | None:
    """As clients read it; None for what they are not told. Times are seconds from the session's first sample."""
    match event:
        case SpeechStarted():
            return {"type": "speech", "start_s": _s(event.start_s)}
        case Caption():
            times = {"start_s": _s(event.start_s), "end_s": _s(event.end_s)}
            return {"type": "caption", **times, "stable": event.stable, "unstable": event.unstable}
        case Final():
            sure = None if event.avg_logprob is None else round(event.avg_logprob, 4)
            times = {"start_s": _s(event.start_s), "end_s": _s(event.end_s)}
            told = {"type": "final", **times, "text": event.text, "avg_logprob": sure}
            support = {} if event.support is None else {"support": event.support}
            unsure = {} if event.confident else {"confident": False}
            return {**told, **support, **unsure, "finish_reason": event.finish_reason}
        case Lagging():
            return {"type": "lagging", "heard_s": _s(event.heard_s), "every_s": _s(event.every_s)}
        case AudioDropped():
            return {"type": "lost", "start_s": _s(event.start_s), "seconds": _s(event.seconds)}
        case SegmentFailed():
            return {"type": "failed", "start_s": _s(event.start_s), **api_error(event.error).body}
        case _:
            return None


def ledger_json(kind: str, ledger: SessionEnded) -> dict[str, Any]:
    """Where the sound went, to the sample: 1/16000 s has seven decimals."""
    names = ("captured_s", "decoded_s", "skipped_s", "dropped_s")
    parts = {name: round(getattr(ledger, name), 7) for name in names}
    return {"type": kind, **parts}


def _s(seconds: float) -> float:
    return round(seconds, 3)
