"""Session configuration: what a client asks for, change by change -> what is in effect, and how sound is heard by it.

A field that is not known or cannot be followed is left out of what the client is told back; an error would end some
clients for good. A value that makes no sense is an error.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from ....engine import Engine
from ....live.captions import LiveOptions
from ....live.gate import GateOptions
from ...errors import ApiError, invalid, missing
from ...languages import transcription_task
from ...live_session import LiveSetup
from ...service import Service
from ..forms import FormFields
from ..json_fields import Fields
from ..models import check_model
from ..transcriptions import listed_keywords
from .audio_formats import AudioFormat, read_format

Kind = Literal["transcription", "realtime"]
MAX_TEXT = 1 << 16
"""Characters of one text."""
MAX_OUTPUT_TOKENS = 4096
LIFE_SECONDS = 365 * 24 * 3600
"""Clients want to know when a session ends. Here none does by itself."""
SILENCE_MS = {"low": 1500.0, "medium": 800.0, "auto": 800.0, "high": 400.0}
"""Of semantic_vad, by eagerness: how long a pause ends a turn."""
MANUAL_GATE = GateOptions(threshold=0.3, min_speech_ms=100.0, min_silence_ms=1000.0, speech_pad_ms=300.0)
"""Where the client commits it has listened already: every sound is speech, and only long pauses are left out."""


@dataclass(frozen=True)
class TurnDetection:
    """How the server finds the end of a turn."""

    type: Literal["server_vad", "semantic_vad"] = "server_vad"
    threshold: float = 0.5
    prefix_padding_ms: float = 300
    silence_duration_ms: float = 500
    eagerness: str = "auto"
    create_response: bool = True
    interrupt_response: bool = True

    @property
    def gate(self) -> GateOptions:
        """As the speech gate is told it."""
        if self.type == "semantic_vad":
            return GateOptions(min_silence_ms=SILENCE_MS[self.eagerness], speech_pad_ms=self.prefix_padding_ms)
        return GateOptions(
            threshold=min(max(self.threshold, 0.01), 0.99),
            min_silence_ms=self.silence_duration_ms,
            speech_pad_ms=self.prefix_padding_ms,
        )

    def as_json(self, kind: Kind) -> dict[str, Any]:
        """As clients write it."""
        if self.type == "semantic_vad":
            names = ["type", "eagerness"]
        else:
            names = ["type", "threshold", "prefix_padding_ms", "silence_duration_ms"]
        if kind == "realtime":
            names += ["create_response", "interrupt_response"]
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class InputTranscription:
    """What is written down of the sound that comes in."""

    model: str
    language: str = ""  # as ISO 639-1; empty: the task `asr`
    prompt: str = ""  # where it lists words
    keywords: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """As clients write it."""
        told: dict[str, Any] = {"model": self.model, "prompt": self.prompt}
        if self.language:
            told["language"] = self.language
        return {**told, "keywords": [*self.keywords]} if self.keywords else told


@dataclass(frozen=True)
class SessionConfiguration:
    """What is in effect."""

    kind: Kind
    id: str
    model: str
    expires_at: int
    format: AudioFormat = field(default_factory=AudioFormat)
    transcription: InputTranscription | None = None
    turn_detection: TurnDetection | None = field(default_factory=TurnDetection)
    instructions: str = ""
    max_output_tokens: int | None = None

    def as_json(self) -> dict[str, Any]:
        """As `session.updated` tells it."""
        turns = self.turn_detection
        audio: dict[str, Any] = {
            "input": {
                "format": self.format.as_json(),
                "noise_reduction": None,
                "transcription": None if self.transcription is None else self.transcription.as_json(),
                "turn_detection": None if turns is None else turns.as_json(self.kind),
            }
        }
        told: dict[str, Any] = {"type": self.kind, "id": self.id, "expires_at": self.expires_at, "audio": audio}
        if self.kind == "transcription":
            return {**told, "object": "realtime.transcription_session", "include": None}
        audio["output"] = {"format": AudioFormat().as_json()}
        return {
            **told,
            "object": "realtime.session",
            "model": self.model,
            "output_modalities": ["text"],
            "instructions": self.instructions,
            "max_output_tokens": "inf" if self.max_output_tokens is None else self.max_output_tokens,
            "tools": [],
            "tool_choice": "auto",
            "tracing": None,
            "prompt": None,
            "truncation": "auto",
            "include": None,
        }

    def live_setup(self, engine: Engine) -> LiveSetup:
        """How sound is heard. Where nobody detects turns, a conversation may be about any sound, speech or not."""
        written = self.transcription
        languages = [written.language] if written and written.language else []
        options = LiveOptions(
            prompt="asr" if written is None else transcription_task(engine.prompt, languages)[1],
            vad=self.turn_detection is not None or self.kind == "transcription",
            gate=MANUAL_GATE if self.turn_detection is None else self.turn_detection.gate,
            segments=True,
            decode=written is not None,
        )
        return LiveSetup(options, written.keywords if written else ())


def first_configuration(service: Service, query: Mapping[str, str], session_id: str) -> SessionConfiguration:
    """What the address asks for. Raises ApiError."""
    intent = query.get("intent", "conversation")
    if intent not in ("transcription", "conversation"):
        raise invalid(f"intent '{intent}' is not transcription", "intent")
    kind: Kind = "transcription" if intent == "transcription" else "realtime"
    model = query.get("model") or service.model.name
    check_model(service, model)
    transcription = InputTranscription(model) if kind == "transcription" else None
    return SessionConfiguration(kind, session_id, model, int(time.time()) + LIFE_SECONDS, transcription=transcription)


def updated(service: Service, now: SessionConfiguration, session: Fields) -> SessionConfiguration:
    """With a client's changes. Raises ApiError, InputError for keywords that the bundle cannot use."""
    if session.text("type", now.kind) != now.kind:
        raise invalid(f"the type of this session is '{now.kind}' and cannot be changed", "session.type")
    sound = session.object("audio").object("input")
    if "format" in sound:
        now = replace(now, format=read_format(sound.object("format")))
    if sound.given("transcription"):
        now = replace(now, transcription=_transcription(service, now, sound))
    if sound.given("turn_detection"):
        now = replace(now, turn_detection=_turn_detection(now.turn_detection, sound))
    if now.kind == "realtime":
        if session.given("instructions"):
            now = replace(now, instructions=limited(session.text("instructions"), "session.instructions"))
        if session.given("max_output_tokens"):
            now = replace(now, max_output_tokens=output_tokens(session))
    now.live_setup(service.engine).require_room(service.engine)
    return now


def output_tokens(fields: Fields) -> int | None:
    """A limit of new tokens; None: the bundle's. Raises ApiError."""
    if fields.value("max_output_tokens") == "inf":
        return None
    return fields.integer("max_output_tokens", 1, MAX_OUTPUT_TOKENS)


def limited(text: str, param: str) -> str:
    """A text that is not too long. Raises ApiError."""
    if len(text) > MAX_TEXT:
        raise invalid(f"{param} has {len(text)} characters, and at most {MAX_TEXT} are taken", param)
    return text


def _transcription(service: Service, now: SessionConfiguration, sound: Fields) -> InputTranscription | None:
    if "transcription" not in sound:
        return None
    fields = sound.object("transcription")
    old = now.transcription or InputTranscription(now.model)
    model = fields.text("model") or old.model
    check_model(service, model)
    language = _language(service.engine, fields) if fields.given("language") else old.language
    if "languages" in fields and not language:
        language = _language(service.engine, fields)
    if not (fields.given("keywords") or fields.given("prompt")):
        return replace(old, model=model, language=language)
    prompt = limited(fields.text("prompt"), fields.name("prompt"))
    info = service.engine.prompt
    words = _texts(fields, "keywords")[: info.max_keywords]
    listed, ignored = listed_keywords(info, FormFields({"keywords": words, "prompt": [prompt]}))
    return InputTranscription(model, language, "" if ignored else prompt, listed)


def _language(engine: Engine, fields: Fields) -> str:
    """The first that can be transcribed; empty: none."""
    for code in filter(None, [fields.text("language"), *_texts(fields, "languages")]):
        with contextlib.suppress(ApiError):
            return transcription_task(engine.prompt, [code])[0]
    return ""


def _texts(fields: Fields, name: str) -> list[str]:
    texts = fields.list(name)
    if not all(isinstance(each, str) for each in texts):
        raise invalid(f"{fields.name(name)} must be a list of strings", fields.name(name))
    return cast("list[str]", [*texts])


def _turn_detection(old: TurnDetection | None, sound: Fields) -> TurnDetection | None:
    if "turn_detection" not in sound:
        return None
    fields = sound.object("turn_detection")
    kind = fields.text("type", "server_vad" if old is None else old.type)
    if kind != "server_vad" and kind != "semantic_vad":
        raise invalid(f"'{kind}' is not one of server_vad, semantic_vad", fields.name("type"))
    now = old if old is not None and old.type == kind else TurnDetection(kind)
    eagerness = fields.text("eagerness", now.eagerness)
    if eagerness not in SILENCE_MS:
        raise invalid(f"'{eagerness}' is not one of {', '.join(SILENCE_MS)}", fields.name("eagerness"))
    return TurnDetection(
        kind,
        fields.number("threshold", now.threshold, 0.0, 1.0),
        fields.number("prefix_padding_ms", now.prefix_padding_ms, 0, 10_000),
        fields.number("silence_duration_ms", now.silence_duration_ms, 0, 10_000),
        eagerness,
        fields.flag("create_response", now.create_response),
        fields.flag("interrupt_response", now.interrupt_response),
    )


def session_of(event: Fields) -> Fields:
    """The changes in a client's event. Raises ApiError."""
    if "session" not in event:
        raise missing("session")
    return event.object("session")
