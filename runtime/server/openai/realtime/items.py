"""Items of a conversation: messages of users, systems and the assistant, in order, with their sounds.

Old ones leave: the model remembers few turns, and a session may last for days.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .....models.audio import SAMPLE_RATE, Waveform
from ...errors import ApiError, invalid, missing, unsupported
from ..json_fields import Fields
from .audio_formats import AudioFormat
from .configuration import limited
from .outbox import EventOutbox, new_id

MAX_ITEMS, MAX_SOUNDS = 1000, 16
MAX_SOUND_SECONDS = 60.0
"""Of one item; no model hears so much at once."""
MAX_ID = 256
TEXTS = {"user": ("input_text",), "system": ("input_text",), "assistant": ("output_text", "text")}
"""By role: the types of parts that are text."""


@dataclass
class Item:
    """A message."""

    id: str
    role: str
    content: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """Parts, as clients read them."""
    status: str = "completed"
    sound: Waveform | None = None
    """float32 [n] at 16 kHz; None: it has none, or it is too old."""

    @property
    def text(self) -> str:
        """All texts, without transcripts."""
        return "\n".join(part["text"] for part in self.content if part.get("text"))

    def as_json(self) -> dict[str, Any]:
        """As clients read it."""
        told = {"id": self.id, "object": "realtime.item", "type": "message"}
        return {**told, "status": self.status, "role": self.role, "content": self.content}


class Items:
    """One session's, in order. Changes are told."""

    def __init__(self, outbox: EventOutbox) -> None:
        self._outbox = outbox
        self._items: dict[str, Item] = {}
        self._order: list[str] = []

    @property
    def last_id(self) -> str | None:
        """The end of the conversation."""
        return self._order[-1] if self._order else None

    def all(self) -> list[Item]:
        """In order."""
        return [self._items[each] for each in self._order]

    def add(self, item: Item, after: str | None = None) -> str | None:
        """Put it behind another, the last when None; returns that other's id. The client is told that it was added."""
        at = len(self._order) if after is None else 0 if after == "root" else self._order.index(after) + 1
        previous = self._order[at - 1] if at else None
        self._order.insert(at, item.id)
        self._items[item.id] = item
        self._outbox.emit("conversation.item.added", previous_item_id=previous, item=item.as_json())
        self._forget_old()
        return previous

    def done(self, item: Item, previous: str | None) -> None:
        """It will not change: the client is told so."""
        self._outbox.emit("conversation.item.done", previous_item_id=previous, item=item.as_json())

    def create(self, event: Fields, sound_format: AudioFormat) -> None:
        """For conversation.item.create. Raises ApiError."""
        item = read_item(event.object("item"), sound_format)
        if item.id in self._items:
            raise ApiError(400, f"The item '{item.id}' exists already.", "item_create_duplicate_item_id", "item.id")
        after = event.text("previous_item_id") or None
        if after is not None and after != "root" and after not in self._items:
            raise invalid(f"there is no item '{after}'", "previous_item_id")
        self.done(item, self.add(item, after))

    def retrieve(self, event: Fields) -> None:
        """For conversation.item.retrieve. Raises ApiError."""
        self._outbox.emit("conversation.item.retrieved", item=self.known(event).as_json())

    def delete(self, event: Fields) -> None:
        """For conversation.item.delete. Raises ApiError."""
        item = self.known(event)
        self._remove(item.id)
        self._outbox.emit("conversation.item.deleted", item_id=item.id)

    def truncate(self, event: Fields) -> None:
        """For conversation.item.truncate, which is about sound: texts stay. Raises ApiError."""
        index = event.integer("content_index", 0, 1 << 31) or 0
        end_ms = event.integer("audio_end_ms", 0, 1 << 53) or 0
        told = {"item_id": self.known(event).id, "content_index": index, "audio_end_ms": end_ms}
        self._outbox.emit("conversation.item.truncated", **told)

    def known(self, event: Fields, field_name: str = "item_id") -> Item:
        """The item that an event names in this field. Raises ApiError."""
        name = event.text(field_name)
        if not name:
            raise missing(event.name(field_name))
        if (item := self._items.get(name)) is None:
            raise ApiError(400, f"There is no item '{name}'.", "item_not_found", event.name(field_name))
        return item

    def _remove(self, item_id: str) -> None:
        del self._items[item_id]
        self._order.remove(item_id)

    def _forget_old(self) -> None:
        while len(self._order) > MAX_ITEMS:
            self._remove(self._order[0])
        for item in [item for item in self.all() if item.sound is not None][:-MAX_SOUNDS]:
            item.sound = None


def read_item(fields: Fields, sound_format: AudioFormat) -> Item:
    """A message that a client writes. Raises ApiError."""
    if fields.text("type", "message") != "message":
        raise unsupported(f"items of the type '{fields.text('type')}' cannot be followed here", fields.name("type"))
    role = fields.text("role")
    if role not in TEXTS:
        raise invalid(f"'{role}' is not one of {', '.join(TEXTS)}", fields.name("role"))
    item = Item(fields.text("id") or new_id("item"), role)
    if len(item.id) > MAX_ID:
        raise invalid(f"an id has at most {MAX_ID} characters", fields.name("id"))
    sounds: list[Waveform] = []
    for part in fields.objects("content"):
        kind = part.text("type")
        if kind in TEXTS[role]:
            item.content.append({"type": kind, "text": limited(part.text("text"), part.name("text"))})
        elif kind == "input_audio" and role == "user":
            sounds.append(sound_format.decode_whole(part.text("audio"), part.name("audio")))
            item.content.append({"type": kind, "transcript": part.value("transcript")})
        else:
            raise unsupported(f"parts of the type '{kind}' cannot be followed here", part.name("type"))
    if not item.content:
        raise missing(fields.name("content"))
    item.sound = np.concatenate(sounds) if sounds else None
    if sum(map(len, sounds)) > MAX_SOUND_SECONDS * SAMPLE_RATE:
        raise invalid(f"an item holds at most {MAX_SOUND_SECONDS:g} s of sound", fields.name("content"))
    return item
