"""A day of speech and pauses through `auricle listen - --pace fast`: state in, the next slices heard, state out.

    soak-day.py FOLDER [--hours 24] [--slice-hours 1] [--bundle DIR] [--kill-seconds S]

FOLDER/state.json says how far it came. Run again, it goes on where the last caption file ends: a killed `listen`
leaves a file that is whole to its last line. Status 1 when a day's rules do not hold: a slice's least memory grows by
less than 5 MB after the first of a process, an update of the last slice takes at most 1.1 times as long as one of the
second (p95), and every sample that was given is decoded, skipped or dropped.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from auricle.models.audio import SAMPLE_RATE
from auricle.runtime.audio.decode import read_audio
from auricle.runtime.bundle import open_bundle
from soaking import process_status, save

GROWTH_MB = 5.0
SLOWER = 1.1
SEED = 1


@dataclass
class Slice:
    """Of the day."""

    end_s: float
    process: int
    resident_mb: float
    """The least at its finals: sound that was read ahead makes it 15 MB more, now and then."""
    n_updates: int
    p95_ms: float


@dataclass
class State:
    """What is kept between two runs."""

    heard_s: float = 0.0
    begun_s: float | None = None  # where the `listen` begins that runs now, or ran when this was killed
    n_kills: int = 0
    slices: list[Slice] = field(default_factory=list)
    balances: list[dict[str, float]] = field(default_factory=list)


def sound(clips: list[np.ndarray], start_s: float, end_s: float) -> Iterator[bytes]:
    """16-bit PCM from start to end of the day: clips and pauses of 0.5 to 4 s, the same whenever it begins."""
    rng = np.random.default_rng(SEED)
    at, first, last = 0, round(start_s * SAMPLE_RATE), round(end_s * SAMPLE_RATE)
    while at < last:
        clip = clips[int(rng.integers(len(clips)))]
        n_pause = int(rng.uniform(0.5, 4.0) * SAMPLE_RATE)
        end = at + len(clip) + n_pause
        if end > first:
            piece = np.concatenate([clip, np.zeros(n_pause, np.int16)])[max(0, first - at) : last - at]
            yield piece.astype("<i2").tobytes()
        at = end


def load_clips(bundle: Path | None) -> list[np.ndarray]:
    """The demo's spoken clips, 16 bits."""
    folder = open_bundle(bundle).path("clips")
    rows = json.loads((folder / "clips.json").read_text(encoding="utf-8"))
    return [(read_audio(folder / row["file"]) * 32767).astype(np.int16) for row in rows]


def hear(folder: Path, state: State, words: argparse.Namespace) -> None:
    """One `listen`, to the day's end or until it is killed; the state grows slice by slice."""
    clips = load_clips(words.bundle)
    start_s = state.heard_s
    number = 1 + len(list(folder.glob("captions-*.jsonl")))
    captions = folder / f"captions-{number:03}.jsonl"
    state.begun_s = start_s
    save(folder, state)
    command = [sys.executable, "-m", "auricle", "listen", "-", "--pace", "fast", "--json", "--out", str(captions)]
    command += ["--bundle", str(words.bundle)] if words.bundle else []
    end_s = words.hours * 3600
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as job:
        threading.Thread(target=_give, args=(job, sound(clips, start_s, end_s)), daemon=True).start()
        if words.kill_seconds:
            delay = random.uniform(0.2, 1.0) * words.kill_seconds
            killer = threading.Timer(delay, job.kill)
            killer.daemon = True
            killer.start()
        _follow(job, folder, state, number, start_s, words.slice_hours * 3600)
        job.wait()
        if words.kill_seconds:
            killer.cancel()
    settle(folder, state, end_s)
    print(f"listen {number}: status {job.returncode}, from {start_s:.1f} s to {state.heard_s:.1f} s", flush=True)


def settle(folder: Path, state: State, end_s: float) -> None:
    """How far the last `listen` came, by its file: the whole day when it is balanced."""
    if state.begun_s is None:
        return
    files = sorted(folder.glob("captions-*.jsonl"))
    told = read_captions(files[-1]) if files else []
    balance = next((line for line in told if line["event"] == "SessionEnded"), None)
    if balance is not None and state.begun_s + balance["captured_s"] >= end_s - 1 / SAMPLE_RATE:
        state.balances.append({"given_s": end_s - state.begun_s, **{k: v for k, v in balance.items() if k != "event"}})
        state.heard_s = end_s
    else:
        state.n_kills += 1
        state.heard_s = state.begun_s + max((line.get("end_s", 0.0) for line in told), default=0.0)
    state.begun_s = None
    save(folder, state)


def read_captions(path: Path) -> list[dict[str, float]]:
    """Every line, the last too. ValueError for one that is torn."""
    text = path.read_text(encoding="utf-8")
    if text and not text.endswith("\n"):
        raise ValueError(f"{path} ends inside a line")
    return [json.loads(line) for line in text.splitlines()]


def _give(job: subprocess.Popen[bytes], pieces: Iterator[bytes]) -> None:
    assert job.stdin is not None
    try:
        for piece in pieces:
            job.stdin.write(piece)
        job.stdin.close()
    except BrokenPipeError:
        pass


def _follow(
    job: subprocess.Popen[bytes], folder: Path, state: State, number: int, start_s: float, slice_s: float
) -> None:
    """Reads the events; a line of the state for each slice that is over."""
    assert job.stdout is not None
    updates: list[float] = []
    resident: list[float] = []
    border_s = (start_s // slice_s + 1) * slice_s
    for line in job.stdout:
        try:
            event = json.loads(line)
        except ValueError:  # of a process that was killed
            break
        if event["event"] == "Caption":
            updates.append(event["work"]["latency_ms"])
        if event["event"] == "Final":
            resident.append(process_status(job.pid)[0])
        if event["event"] == "SessionEnded" or (event["event"] == "Final" and start_s + event["end_s"] >= border_s):
            at_s = start_s + (event["captured_s"] if event["event"] == "SessionEnded" else event["end_s"])
            p95 = float(np.percentile(updates, 95)) if updates else 0.0
            used_mb = min(resident, default=0.0)
            state.slices.append(Slice(at_s, number, used_mb, len(updates), p95))
            updates, resident = [], []
            border_s += slice_s
            save(folder, state)


def read_state(folder: Path) -> State:
    """Of the last run; a new one where there is none."""
    path = folder / "state.json"
    if not path.exists():
        return State()
    found = json.loads(path.read_text(encoding="utf-8"))
    return State(**found | {"slices": [Slice(**each) for each in found["slices"]]})


def broken_rules(state: State) -> list[str]:
    """What does not hold."""
    wrong = list[str]()
    for process in {each.process for each in state.slices}:
        resident = [each.resident_mb for each in state.slices if each.process == process and each.resident_mb]
        if len(resident) > 2 and resident[-1] - resident[1] >= GROWTH_MB:
            wrong.append(f"listen {process} grew by {resident[-1] - resident[1]:.1f} MB after its first slice")
    timed = [each.p95_ms for each in state.slices if each.n_updates >= 20]
    if len(timed) > 2 and timed[-1] > SLOWER * timed[1]:
        wrong.append(f"an update takes {timed[-1]:.0f} ms in the last slice, {timed[1]:.0f} ms in the second")
    for balance in state.balances:
        given, captured, *parts = (
            round(balance[name] * SAMPLE_RATE)
            for name in ("given_s", "captured_s", "decoded_s", "skipped_s", "dropped_s")
        )
        if given != captured or captured != sum(parts):
            wrong.append(f"of {given} samples {captured} were captured, {sum(parts)} accounted for")
    return wrong


def main() -> int:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--slice-hours", type=float, default=1.0)
    parser.add_argument("--bundle", type=Path, help="default: the demo")
    parser.add_argument("--kill-seconds", type=float, default=0.0, help="kill each `listen` within so many seconds")
    words = parser.parse_args()
    words.folder.mkdir(parents=True, exist_ok=True)
    state = read_state(words.folder)
    settle(words.folder, state, words.hours * 3600)  # of a run that was killed itself
    started = time.monotonic()
    while state.heard_s < words.hours * 3600:
        hear(words.folder, state, words)
        if state.n_kills and words.kill_seconds and state.n_kills % 3 == 0:
            words.kill_seconds = 0.0  # or a day of kills would not end
    print(json.dumps(asdict(state) | {"seconds": round(time.monotonic() - started, 1)}))
    wrong = broken_rules(state)
    for sentence in wrong:
        print(f"soak-day: {sentence}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
