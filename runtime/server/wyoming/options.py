"""Wyoming options: what `auricle serve --wyoming` is told -> checked values. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ....models.errors import InputError
from ....models.prompt import nonempty, require_keywords
from ..options import is_loopback

Answers = Literal["none", "handle", "intent"]
ANSWERS: tuple[Answers, ...] = get_args(Answers)


@dataclass(frozen=True)
class WyomingOptions:
    """Where Wyoming is spoken, and what is done beside transcribing. Raises InputError."""

    port: int  # 0: any that is free
    host: str = "127.0.0.1"
    no_key: bool = False  # said aloud: others can reach the address, and the protocol knows no key
    vad: bool = False  # the end of a command is heard here; False: the client says when it ends
    answers: Answers = "none"  # handle: sentences are answered; intent: what is to be done is told to the client
    prompt: str | None = None  # a task or a prompt, asked about what was said; None: the one that answers it
    names: tuple[str, ...] = ()  # of the entities that intents can be about; also listened for as keywords

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise InputError(f"wyoming port {self.port} is none: give 1 to 65535, or 0 for any that is free")
        if not self.no_key and not is_loopback(self.host):
            raise InputError(
                f"others can reach {self.host}, and Wyoming has no keys: keep it on 127.0.0.1, "
                "or say --wyoming-no-key aloud"
            )
        if self.answers not in ANSWERS:
            raise InputError(f"answers {self.answers!r} must be one of {', '.join(ANSWERS)}")
        if self.prompt is not None:
            nonempty(self.prompt)
            if self.answers == "none":
                raise InputError("nothing is answered, so nothing is asked: add --wyoming-answers, or leave the prompt")
        require_keywords(self.names)
        if self.answers == "intent" and not self.names:
            raise InputError("intents need the names that they can be about: add --wyoming-names 'kitchen lamp, fan'")
