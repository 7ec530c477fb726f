"""A chat completion's request: JSON -> the dialogue and how it is to be answered, checked, its sounds on disk."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from ..errors import ApiError, invalid, missing, unsupported
from ..service import Service
from .forms import Upload
from .json_fields import Fields
from .models import check_model

MAX_NEW_TOKENS = 1 << 20
MAX_STOPS = 4
MAX_SEED = 1 << 63
SYSTEM_ROLES = ("system", "developer")
UNKNOWN_FIELDS = ("tools", "functions", "logprobs", "top_logprobs", "logit_bias", "audio")
"""What would change the answer and cannot be followed: refused where it asks for something."""


@dataclass
class Turn:
    """What a user said, and what was answered."""

    parts: list[str | Upload] = field(default_factory=list["str | Upload"])
    """Texts and sounds, in their order."""
    answer: str | None = None
    """None: it is to be answered now."""

    @property
    def text(self) -> str:
        """All texts."""
        return "\n".join(part for part in self.parts if isinstance(part, str) and part.strip())

    @property
    def sounds(self) -> list[Upload]:
        """All sounds."""
        return [part for part in self.parts if isinstance(part, Upload)]


@dataclass(frozen=True)
class ChatRequest:
    """What is asked. Of the turns the last has no answer."""

    model: str
    system: str
    turns: tuple[Turn, ...]
    max_new_tokens: int | None
    temperature: float
    top_p: float
    seed: int
    stop: tuple[str, ...]
    json_schema: Mapping[str, Any] | None
    stream: bool
    with_usage: bool


def read_chat(service: Service, fields: Fields) -> ChatRequest:
    """Raises ApiError."""
    if not fields.text("model"):
        raise missing("model")
    check_model(service, fields.text("model"))
    _refuse_unknown(fields)
    system, turns = _dialogue(service, fields)
    given = [fields.integer(name, 1, MAX_NEW_TOKENS) for name in ("max_completion_tokens", "max_tokens")]
    return ChatRequest(
        model=fields.text("model"),
        system=system,
        turns=turns,
        max_new_tokens=next((each for each in given if each is not None), None),
        temperature=fields.number("temperature", 0.0, 0.0, 2.0),
        top_p=fields.number("top_p", 1.0, 1e-6, 1.0),
        seed=(fields.integer("seed", -MAX_SEED, MAX_SEED - 1) or 0) % MAX_SEED,
        stop=_stop(fields),
        json_schema=_json_schema(fields),
        stream=fields.flag("stream"),
        with_usage=fields.object("stream_options").flag("include_usage"),
    )


def _refuse_unknown(fields: Fields) -> None:
    for name in UNKNOWN_FIELDS:
        if fields.value(name):
            raise unsupported(f"{name} cannot be followed here: leave it out", name)
    for name in ("frequency_penalty", "presence_penalty"):
        if fields.number(name, 0.0, -2.0, 2.0):
            raise unsupported(f"{name} cannot be followed here: leave it out", name)
    if fields.integer("n", 1, 128) not in (None, 1):
        raise unsupported("one answer is given at a time: ask again for another", "n")
    if any(each != "text" for each in fields.list("modalities")):
        raise unsupported("answers are text: leave modalities out", "modalities")


def _dialogue(service: Service, fields: Fields) -> tuple[str, tuple[Turn, ...]]:
    """The system's text and the turns."""
    system: list[str] = []
    turns: list[Turn] = []
    for message in fields.objects("messages"):
        role = message.text("role")
        if role in SYSTEM_ROLES:
            system += [part for part in _parts(service, message) if isinstance(part, str)]
        elif role == "user":
            if not turns or turns[-1].answer is not None:
                turns.append(Turn())
            turns[-1].parts += _parts(service, message)
        elif role == "assistant" and "tool_calls" not in message:
            if not turns:
                raise invalid("the dialogue must begin with a user", "messages")
            text = "\n".join(part for part in _parts(service, message) if isinstance(part, str))
            turns[-1].answer = text if turns[-1].answer is None else f"{turns[-1].answer}\n{text}"
        else:
            raise unsupported(f"messages of the role '{role}' cannot be followed here", message.name("role"))
    if not turns or turns[-1].answer is not None:
        raise invalid("the last message must be a user's", "messages")
    return "\n".join(system), tuple(turns)


def _parts(service: Service, message: Fields) -> list[str | Upload]:
    """The texts and sounds of one message; sounds are a user's alone."""
    if not isinstance(message.value("content"), list):
        return [message.text("content")]
    parts: list[str | Upload] = []
    for part in message.objects("content"):
        kind = part.text("type")
        if kind == "text":
            parts.append(part.text("text"))
        elif kind == "input_audio" and message.text("role") == "user":
            parts.append(_sound(service, part.object("input_audio")))
        else:
            raise unsupported(f"parts of the type '{kind}' cannot be followed here", part.name("type"))
    return parts


def _sound(service: Service, fields: Fields) -> Upload:
    name = fields.name("data")
    try:
        sound = base64.b64decode(fields.text("data").encode(), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise invalid(f"{name} is no base64: give the file's bytes so, without a data URL", name) from None
    if not sound:
        raise missing(name)
    if len(sound) > service.options.max_upload_bytes:
        most = f"{service.options.max_upload_bytes / 1024 / 1024:g} MB"
        raise ApiError(413, f"The sound is larger than {most}, which is the most here.", None, name)
    upload = Upload(service)
    with open(upload.path, "wb") as file:
        file.write(sound)
    return upload


def _stop(fields: Fields) -> tuple[str, ...]:
    given = fields.value("stop")
    stops = [given] if isinstance(given, str) else fields.list("stop")
    if len(stops) > MAX_STOPS or not all(isinstance(each, str) and each for each in stops):
        raise invalid(f"stop must be up to {MAX_STOPS} texts that are not empty", "stop")
    return tuple(cast("list[str]", stops))


def _json_schema(fields: Fields) -> Mapping[str, Any] | None:
    """What the answer must look like, where it must be JSON."""
    form = fields.object("response_format")
    kind = form.text("type", "text")
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    if kind != "json_schema":
        raise invalid(f"'{kind}' is not one of text, json_object, json_schema", form.name("type"))
    schema = form.object("json_schema").value("schema")
    if not isinstance(schema, Mapping):
        raise missing("response_format.json_schema.schema")
    return cast("Mapping[str, Any]", schema)
