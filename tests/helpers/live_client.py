"""A client of /live in a test: messages out, events in until one is of a kind."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from auricle.models.audio import Waveform
from served import Served
from websockets.sync.client import ClientConnection, connect

PROTOCOL = "auricle.live"
CHUNK = 3200  # bytes: 0.1 s


def opened(running: Served, path: str = "/live", **options: Any) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{running.port}{path}", compression=None, **options)


def tell(connection: ClientConnection, kind: str, **fields: Any) -> None:
    connection.send(json.dumps({"type": kind, **fields}))


def hear(connection: ClientConnection) -> dict[str, Any]:
    return json.loads(connection.recv(20))


def until(connection: ClientConnection, kind: str) -> list[dict[str, Any]]:
    """The events up to the first of this kind."""
    events = [hear(connection)]
    while events[-1]["type"] != kind:
        events.append(hear(connection))
    return events


def started(running: Served, path: str = "/live", **fields: Any) -> ClientConnection:
    connection = opened(running, path, max_size=None)
    tell(connection, "start", **{"sample_rate": 16_000, **fields})
    assert hear(connection)["type"] == "started"
    return connection


def say(connection: ClientConnection, waveform: Waveform) -> None:
    data = (np.clip(waveform, -1, 1) * 32767).astype("<i2").tobytes()
    for at in range(0, len(data), CHUNK):
        connection.send(data[at : at + CHUNK])
