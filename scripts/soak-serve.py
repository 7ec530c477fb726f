"""Hours of speech through `auricle serve` from several clients at once: state in, the next slices heard, state out.

    soak-serve.py FOLDER [--hours 24] [--slice-hours 0.25] [--clients 4] [--pace 10] [--bundle DIR]

Each client says one sentence again and again in sessions of half a minute, through OpenAI's Realtime or the page's
/live, ten times as fast as it is spoken, and goes away in the middle of some: with a close, or without a word. Hours
are those of sound, all clients together.
FOLDER/state.json says how far it came; run again, it goes on with a server of its own.

Status 1 when a rule does not hold. In each session: every sample that was sent is captured, and decoded or skipped; at
least one text comes, and no longer word that only another client says. Between two slices, when nobody is connected,
the server counts no session and no turn that is waited for. A server has at most MAX_THREADS threads. Of its memory the
least counts within SETTLE_SECONDS, in which it gives back what was freed: on average of its last four slices it is less
than GROWTH_MB more than of its third to sixth, when it has the threads it needs.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import random
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

import numpy as np
from auricle.models.audio import SAMPLE_RATE
from auricle.runtime.audio.decode import read_audio
from auricle.runtime.bundle import open_bundle
from soaking import process_status, save
from websockets.asyncio.client import ClientConnection, connect

GROWTH_MB = 10.0
SETTLE_SECONDS = 5.0
MAX_THREADS = 40
CLIPS = ("command", "weather", "unseen-voice", "sum", "reminder", "shopping")
"""Of the bundle; each client has one."""
CHUNK_SECONDS = 0.1
SESSION_SECONDS = (10.0, 60.0)
PAUSE_SECONDS = (1.0, 3.0)
LEARNING_SESSIONS = 12
"""In which each clip is said alone, before, to know as what it is heard."""
TELLING_LETTERS = 5
"""From so many on a word tells whose it is: "tell" is "turn on the" to the demo, where an update ends within it."""
LEAVING = 0.3
"""Of all sessions, those that end in the middle."""
COMMITTING = 0.3
"""Of /live's sessions, those whose client ends the last turn before it stops."""
WAIT_SECONDS = 300.0
QUIET_SECONDS = 20.0
RATE_PCM = {"type": "audio/pcm", "rate": SAMPLE_RATE}


@dataclass
class Slice:
    """Of the soak."""

    end_s: float
    process: int
    resident_mb: float
    n_threads: int
    n_sessions: int
    n_left: int
    n_texts: int
    seconds: float
    """How long it took."""


@dataclass
class State:
    """What is kept between two runs."""

    heard_s: float = 0.0
    slices: list[Slice] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Told:
    """What a client was told in a session that it ended properly."""

    texts: list[str]
    """Every text, whole or not."""
    ledger: Mapping[str, float]
    """captured, decoded, skipped, dropped: in samples."""


class Session(Protocol):
    """A protocol's client: one connection."""

    async def begin(self, connection: ClientConnection, rng: random.Random) -> None:
        """Say what follows."""
        ...

    async def send(self, connection: ClientConnection, pcm: bytes) -> None:
        """16-bit samples at 16 kHz."""
        ...

    async def finish(self, connection: ClientConnection) -> Told:
        """Nothing follows: everything that is told until the end."""
        ...


class Realtime:
    """OpenAI's Realtime: turns found by the server, or one that the client commits."""

    PATH = "/v1/realtime?intent=transcription&auricle=auricle.captions"

    async def begin(self, connection: ClientConnection, rng: random.Random) -> None:
        """See Session."""
        turns = rng.choice([None, {"type": "server_vad"}])
        sound = {"format": RATE_PCM, "turn_detection": turns}
        session = {"type": "transcription", "audio": {"input": sound}}
        await connection.send(json.dumps({"type": "session.update", "session": session}))

    async def send(self, connection: ClientConnection, pcm: bytes) -> None:
        """See Session."""
        audio = base64.b64encode(pcm).decode()
        await connection.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))

    async def finish(self, connection: ClientConnection) -> Told:
        """See Session."""
        await connection.send(json.dumps({"type": "input_audio_buffer.commit"}))
        texts: list[str] = []
        async for message in connection:
            event = json.loads(message)
            texts += [event[name] for name in ("transcript", "delta", "stable", "unstable") if event.get(name)]
            if event["type"] == "auricle.ledger":
                names = ("captured", "decoded", "skipped", "dropped")
                return Told(texts, {name: event[f"{name}_ms"] * SAMPLE_RATE / 1000 for name in names})
        raise ConnectionError("the connection was closed before the ledger came")


class Live:
    """The page's: turns found by the server, and now and then one that the client commits."""

    PATH = "/live"

    async def begin(self, connection: ClientConnection, rng: random.Random) -> None:
        """See Session."""
        self._commits = rng.random() < COMMITTING
        await connection.send(json.dumps({"type": "start", "sample_rate": SAMPLE_RATE}))

    async def send(self, connection: ClientConnection, pcm: bytes) -> None:
        """See Session."""
        await connection.send(pcm)

    async def finish(self, connection: ClientConnection) -> Told:
        """See Session."""
        for kind in (*(["commit"] if self._commits else []), "stop"):
            await connection.send(json.dumps({"type": kind}))
        texts: list[str] = []
        async for message in connection:
            event = json.loads(message)
            texts += [event[name] for name in ("text", "stable", "unstable") if event.get(name)]
            if event["type"] == "ended":
                names = ("captured", "decoded", "skipped", "dropped")
                return Told(texts, {name: event[f"{name}_s"] * SAMPLE_RATE for name in names})
        raise ConnectionError("the connection was closed before the ledger came")


PROTOCOLS: Mapping[str, type[Realtime] | type[Live]] = {Realtime.PATH: Realtime, Live.PATH: Live}
"""Path -> its client. A further protocol is a further class here."""


@dataclass(frozen=True)
class Voice:
    """A client, and what it says."""

    clip: np.ndarray
    """16 bits."""
    own: frozenset[str]
    """Words that it may be told."""
    foreign: frozenset[str]
    """Longer words of others alone."""


def sound(clip: np.ndarray, rng: random.Random) -> np.ndarray:
    """A clip again and again, each time with a pause behind it."""
    seconds = rng.uniform(*SESSION_SECONDS)
    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < seconds * SAMPLE_RATE:
        parts += [clip, np.zeros(round(rng.uniform(*PAUSE_SECONDS) * SAMPLE_RATE), np.int16)]
    return np.concatenate(parts)


async def talk(base: str, path: str, samples: np.ndarray, pace: float, rng: random.Random, n: int) -> Told | None:
    """One session over the first n samples; None when the client left in the middle."""
    session = PROTOCOLS[path]()
    size = round(CHUNK_SECONDS * SAMPLE_RATE)
    async with connect(f"{base}{path}", compression=None, max_size=None, ping_interval=None) as connection:
        await session.begin(connection, rng)
        began = time.monotonic()
        for at in range(0, n, size):
            await session.send(connection, samples[at : min(at + size, n)].astype("<i2").tobytes())
            await asyncio.sleep(max(0.0, began + (at + size) / SAMPLE_RATE / pace - time.monotonic()))
        if n < len(samples):
            if rng.random() < 0.5:
                connection.transport.abort()
            return None
        return await asyncio.wait_for(session.finish(connection), WAIT_SECONDS)


def faults_of(told: Told, n: int, foreign: frozenset[str]) -> list[str]:
    """What does not hold in a session of n samples."""
    wrong: list[str] = []
    parts = {name: round(value) for name, value in told.ledger.items()}
    if parts != {**parts, "captured": n, "dropped": 0} or parts["decoded"] + parts["skipped"] != n:
        wrong.append(f"{n} samples were sent, and the ledger is {parts}")
    if not told.texts:
        wrong.append(f"no text came of {n} samples")
    wrong += [f"a text of another client came: {text!r}" for text in told.texts if foreign & words_of(text)]
    return wrong


def words_of(text: str) -> frozenset[str]:
    """Its words."""
    return frozenset(text.split())


async def run_slice(base: str, state: State, voices: list[Voice], seconds: float, pace: float, seed: int) -> Slice:
    """Every client talks until its share of so many seconds is sent. The process is the caller's to fill in."""
    now = Slice(state.heard_s, 0, 0.0, 0, 0, 0, 0, 0.0)
    share = seconds / len(voices)
    began = time.monotonic()

    async def client(voice: Voice, rng: random.Random) -> None:
        sent_s = 0.0
        while sent_s < share:
            samples = sound(voice.clip, rng)
            n = round(len(samples) * rng.random()) if rng.random() < LEAVING else len(samples)
            path = rng.choice(list(PROTOCOLS))
            told = await talk(base, path, samples, pace, rng, n)
            now.n_sessions += 1
            sent_s += n / SAMPLE_RATE
            if told is None:
                now.n_left += 1
            else:
                now.n_texts += len(told.texts)
                state.faults += faults_of(told, n, voice.foreign)
        now.end_s += sent_s

    await asyncio.gather(*(client(voice, random.Random(f"{seed} {at}")) for at, voice in enumerate(voices)))
    state.faults += await asyncio.to_thread(left_behind, base)
    now.seconds = round(time.monotonic() - began, 1)
    state.heard_s = now.end_s
    state.slices.append(now)
    return now


def settled(process: int) -> tuple[float, int]:
    """The least memory of a server that has nothing to do, in MB, and its threads."""
    found: list[tuple[float, int]] = []
    for _ in range(10):
        time.sleep(SETTLE_SECONDS / 10)
        found.append(process_status(process))
    return min(found)


def left_behind(base: str) -> list[str]:
    """What the server still counts when nobody is connected any more."""
    deadline = time.monotonic() + QUIET_SECONDS
    while True:
        counted = {name: value for name, value in metrics(base).items() if value}
        if not counted or time.monotonic() > deadline:
            return [f"nobody is connected, and {name} is {value:g}" for name, value in counted.items()]
        time.sleep(0.1)


def metrics(base: str) -> dict[str, float]:
    """Sessions and turns that are waited for."""
    with urllib.request.urlopen(f"{base.replace('ws', 'http', 1)}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    wanted = [line.rsplit(" ", 1) for line in lines if line.startswith(("auricle_sessions{", "auricle_queue{"))]
    return {name: float(value) for name, value in wanted}


async def learn(base: str, names: list[str], bundle: Path | None, pace: float) -> list[Voice]:
    """Each clip said alone, to know its words: often, for where an update ends within a word it is misheard."""
    folder = open_bundle(bundle).path("clips")
    clips = [(read_audio(folder / f"{name}.wav") * 32767).astype(np.int16) for name in names]
    own: list[frozenset[str]] = []
    for clip in clips:
        texts: list[str] = []
        for seed in range(LEARNING_SESSIONS):
            rng = random.Random(seed)
            samples = sound(clip, rng)
            told = await talk(base, list(PROTOCOLS)[seed % len(PROTOCOLS)], samples, pace, rng, len(samples))
            assert told is not None
            texts += told.texts
        own.append(frozenset().union(*map(words_of, texts)))
    everything = frozenset().union(*own)
    telling = frozenset(word for word in everything if len(word) >= TELLING_LETTERS)
    others = [telling - words for words in own]
    return [Voice(*each) for each in zip(clips, own, others, strict=True)]


@contextmanager
def served(bundle: Path | None) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server and its address, as ws://HOST:PORT."""
    command = [sys.executable, "-m", "auricle", "serve", "--port", "0", "--no-admission"]
    command += ["--bundle", str(bundle)] if bundle else []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            words = process.stdout.readline().split()
            yield process, words[-1].removesuffix("/v1").replace("http", "ws", 1)
        finally:
            process.terminate()


def read_state(folder: Path) -> State:
    """Of the last run; a new one where there is none."""
    path = folder / "state.json"
    if not path.exists():
        return State()
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return State(**found | {"slices": [Slice(**each) for each in found["slices"]]})


def broken_rules(state: State) -> list[str]:
    """What does not hold."""
    wrong = list(state.faults)
    for process in sorted({each.process for each in state.slices}):
        measured = [each for each in state.slices if each.process == process]
        used_mb = [each.resident_mb for each in measured[2:]]
        growth = fmean(used_mb[-4:]) - fmean(used_mb[:4]) if used_mb else 0.0
        if growth >= GROWTH_MB:
            wrong.append(f"server {process} grew by {growth:.1f} MB from its third to sixth slice to its last four")
        if (most := max(each.n_threads for each in measured)) > MAX_THREADS:
            wrong.append(f"server {process} has {most} threads")
    return wrong


def main() -> int:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--slice-hours", type=float, default=0.25)
    parser.add_argument("--clients", type=int, choices=range(2, len(CLIPS) + 1), default=4)
    parser.add_argument("--pace", type=float, default=10.0, help="times as fast as it is spoken")
    parser.add_argument("--bundle", type=Path, help="default: the demo")
    words = parser.parse_args()
    words.folder.mkdir(parents=True, exist_ok=True)
    state = read_state(words.folder)
    number = 1 + max((each.process for each in state.slices), default=0)
    with served(words.bundle) as (process, base):
        voices = asyncio.run(learn(base, list(CLIPS[: words.clients]), words.bundle, words.pace))
        while state.heard_s < words.hours * 3600:
            seed = len(state.slices)
            now = asyncio.run(run_slice(base, state, voices, words.slice_hours * 3600, words.pace, seed))
            now.process = number
            now.resident_mb, now.n_threads = settled(process.pid)
            save(words.folder, state)
            print(json.dumps(asdict(now)), flush=True)
    wrong = broken_rules(state)
    for sentence in wrong:
        print(f"soak-serve: {sentence}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
