"""Events of the server -> JSON with an id each, for the client."""

from __future__ import annotations

import json
import secrets
from typing import Any

from ...errors import ApiError
from ...outbox import Outbox


def new_id(kind: str) -> str:
    """One that is nobody else's."""
    return f"{kind}_{secrets.token_hex(10)}"


class EventOutbox(Outbox):
    """What a client is told, in order."""

    def emit(self, kind: str, **fields: Any) -> None:
        """An event of this type."""
        self.put(json.dumps({"type": kind, "event_id": new_id("event"), **fields}, ensure_ascii=False))

    def error(self, error: ApiError, event_id: object = None) -> None:
        """event_id: of the client's event that is to blame."""
        told = {**error.body["error"], "event_id": event_id if isinstance(event_id, str) else None}
        self.emit("error", error=told)
