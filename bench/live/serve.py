"""`auricle-bench serve`: a recording at its own pace, to `listen` and to /v1/realtime in turns -> what the server adds.

Both hear the same samples with the same gate and hop, one after the other in turns, on one opened engine, so that what
else a shared machine does falls on both. A text of the one is compared with the text of the other for the same sound.

    listen          samples ─► Live ─► event
    /v1/realtime    samples ─► base64, JSON ─► socket ─► server ─► Live, in turns ─► JSON ─► socket ─► event

The client is a thread of the same process, so its own work counts as the server's.
"""

from __future__ import annotations

import argparse
import base64
import json
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from websockets.sync.client import ClientConnection, connect

from ...models.audio import SAMPLE_RATE, Waveform
from ...models.errors import InputError, RunError
from ...runtime.audio.decode import read_audio
from ...runtime.cli.commands import engine_options
from ...runtime.engine import Engine, EngineOptions, load
from ...runtime.live.captions import LiveOptions
from ...runtime.server.openai.realtime.configuration import TurnDetection
from ...runtime.server.options import ServerOptions
from ...runtime.server.run import Server, bind
from ...runtime.server.service import Service
from ...runtime.system.ort import choose_provider
from ..datasets import Progress, quiet
from ..machine.gpu import gpu_name, uses_gpu
from ..result import Measure, Record, make_record, subject
from .live import watch

CHUNK = SAMPLE_RATE // 10
"""As FilePlayback's."""
PATH = "/v1/realtime?intent=transcription&auricle=auricle.captions"
SAME_SECONDS = 0.05
"""Between the ends of two texts about the same sound."""
START_SECONDS = 10.0
END_SECONDS = 60.0
TRANSCRIPTION = "conversation.item.input_audio_transcription"


@dataclass
class Lateness:
    """Of one run: where in the recording a text's sound ends, in seconds -> how much later the text came, in ms."""

    finals: dict[float, float] = field(default_factory=dict[float, float])
    updates: dict[float, float] = field(default_factory=dict[float, float])


def run(arguments: argparse.Namespace, progress: Progress = quiet) -> Record:
    """The command."""
    return measure(arguments.bundle, arguments.source, arguments.rounds, engine_options(arguments), progress)


def measure(
    bundle: Path | None,
    source: Path,
    n_rounds: int = 3,
    where: EngineOptions | None = None,
    progress: Progress = quiet,
) -> Record:
    """So many rounds of both. Raises InputError for a recording without speech, AudioError, RunError."""
    where = where or EngineOptions()
    waveform = read_audio(source)
    listened: list[Lateness] = []
    served: list[Lateness] = []
    with load(bundle, where) as engine, serving(engine) as address:
        for done in range(n_rounds):
            progress("rounds", done, n_rounds)
            if done % 2:
                served.append(through_server(address, waveform))
            listened.append(through_listen(engine, source))
            if not done % 2:
                served.append(through_server(address, waveform))
        manifest = engine.bundle.manifest
    if not any(each.finals for each in listened):
        raise InputError(f"nobody speaks in {source}: give a recording in which somebody does")
    settings = {
        "source": source.name,
        "seconds": f"{len(waveform) / SAMPLE_RATE:.1f}",
        "rounds": str(n_rounds),
        "provider": choose_provider(where.ort.provider),
        "threads": str(where.ort.threads or "default"),
    }
    notes = [
        "final: from the segment's last sample, the pause that ends it included; update: from its newest sample",
        "difference: of texts about the same sound in one round, later through the server where it is above 0",
    ]
    gpu = gpu_name() if uses_gpu(where) else None
    return make_record("serve", [subject(manifest)], settings, measures(listened, served), notes, gpu)


def through_listen(engine: Engine, source: Path) -> Lateness:
    """One run through what `listen` is, with the server's gate."""
    seen = watch(engine, source, LiveOptions(gate=TurnDetection().gate), "realtime")
    late = Lateness()
    for final, now in seen.finals:
        late.finals[final.end_s] = 1e3 * (now.wall_s - final.end_s)
    for caption, now in seen.captions:
        late.updates[caption.end_s] = 1e3 * (now.wall_s - caption.end_s)
    return late


@contextmanager
def serving(engine: Engine) -> Generator[str]:
    """The server on any free port of this machine, in a thread; its address."""
    options = ServerOptions(port=0)
    started = threading.Event()
    with ExitStack() as stack:
        listener = stack.enter_context(closing(bind(options)))
        service = stack.enter_context(closing(Service(engine, options)))
        server = Server(service, listener, lambda _: started.set())
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        if not started.wait(START_SECONDS):
            raise RunError("the server did not start within 10 s: measure again on an idle machine")
        try:
            yield f"ws://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def through_server(address: str, waveform: Waveform) -> Lateness:
    """One run through a transcription session at 16 kHz. Raises RunError."""
    pcm = (np.clip(waveform, -1, 1) * 32767).astype("<i2")
    late = Lateness()
    with connect(f"{address}{PATH}", compression=None, max_size=None) as connection:
        sound = {"format": {"type": "audio/pcm", "rate": SAMPLE_RATE}}
        _send(connection, "session.update", session={"type": "transcription", "audio": {"input": sound}})
        while json.loads(connection.recv(END_SECONDS))["type"] != "session.updated":
            pass
        began = time.monotonic()
        reader = threading.Thread(target=_read, args=(connection, began, late), daemon=True)
        reader.start()
        for at in range(0, len(pcm), CHUNK):
            chunk = pcm[at : at + CHUNK]
            time.sleep(max(0.0, began + (at + len(chunk)) / SAMPLE_RATE - time.monotonic()))
            _send(connection, "input_audio_buffer.append", audio=base64.b64encode(chunk.tobytes()).decode())
        _send(connection, "input_audio_buffer.commit")
        reader.join(END_SECONDS)
        if reader.is_alive():
            raise RunError(f"the server did not end within {END_SECONDS:.0f} s: measure again on an idle machine")
    return late


def _read(connection: ClientConnection, began: float, late: Lateness) -> None:
    """What comes until the ledger, which is the last of what was committed."""
    ends: dict[str, float] = {}
    for message in connection:
        now_s = time.monotonic() - began
        event: Mapping[str, Any] = json.loads(message)
        match event["type"]:
            case "auricle.caption":
                end_s = event["end_ms"] / 1000
                late.updates[end_s] = 1e3 * (now_s - end_s)
            case "input_audio_buffer.speech_stopped":
                ends[event["item_id"]] = event["audio_end_ms"] / 1000
            case kind if kind == f"{TRANSCRIPTION}.completed":
                end_s = ends[event["item_id"]]
                late.finals[end_s] = 1e3 * (now_s - end_s)
            case "auricle.ledger":
                return
            case _:
                pass


def _send(connection: ClientConnection, kind: str, **fields: Any) -> None:
    connection.send(json.dumps({"type": kind, **fields}))


def measures(listened: list[Lateness], served: list[Lateness]) -> list[Measure]:
    """Both, and the differences where both have a text about the same sound."""
    found: list[Measure] = []
    for group, name in (("final", "finals"), ("update", "updates")):
        ours: list[dict[float, float]] = [getattr(each, name) for each in served]
        theirs: list[dict[float, float]] = [getattr(each, name) for each in listened]
        differences = [value for pair in zip(theirs, ours, strict=True) for value in differences_of(*pair)]
        for what, samples in (
            ("listen", [late for each in theirs for late in each.values()]),
            ("realtime", [late for each in ours for late in each.values()]),
            ("difference", differences),
        ):
            if samples:
                found.append(Measure(group, what, "ms", tuple(samples), "lower"))
    return found


def differences_of(listened: Mapping[float, float], served: Mapping[float, float]) -> list[float]:
    """Later through the server, of each text that both have."""
    found: list[float] = []
    for end_s, late in listened.items():
        nearest = min(served, key=lambda other: abs(other - end_s), default=None)
        if nearest is not None and abs(nearest - end_s) <= SAME_SECONDS:
            found.append(served[nearest] - late)
    return found


def lines(record: Record) -> list[str]:
    """A row per measure: its median and how bad it gets."""
    s = record.settings
    heard = f"hears {s['source']}, {s['seconds']} s, {s['rounds']} rounds of both in turn"
    out = [
        f"serve: {record.subjects[0].name}, {heard}",
        "",
        f"{'':<34}{'median':>9}{'5 %':>9}{'95 %':>9}{'n':>6}  unit",
    ]
    titles = {"final": "end of speech to final", "update": "newest sample to update"}
    for each in record.measures:
        values = (each.value, each.percentile(0.05), each.percentile(0.95))
        cells = "".join(f"{value:>9.1f}" for value in values)
        out.append(f"{titles[each.group] + ', ' + each.name:<34}{cells}{len(each.samples):>6}  {each.unit}")
    return [*out, "", *(f"- {note}" for note in record.notes)]
