"""Microphones that fail: unplugged, exchanged, muted, busy, overrun, late, at another rate, their clock set."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from auricle.models.audio import SAMPLE_RATE
from auricle.models.errors import RunError
from auricle.runtime.events import AudioDropped, DeviceMuted
from auricle.runtime.sources.lateness import CREEP_S, JUMP_S, WINDOW_S
from auricle.runtime.sources.source import SourceItem
from fake_microphone import BLOCK, GATES, FakeHost, Listener, SteppedMicrophone, make_gate
from hunting import Case

RATES = (8_000, 16_000, 44_100, 48_000, 96_000)
FAULTS = {  # what, and between which numbers
    "plays": (0.01, 4.0),  # seconds
    "plays on": (0.01, 4.0),
    "is read": (0, 0),
    "is decoded": (0, 1),
    "stalls": (1.0, 6.0),  # seconds that nobody reads: the ring holds 3
    "overflows": (0.0, 3.0),  # seconds lost, and the callback's flag
    "jumps": (0.3, 3.0),  # seconds lost, in silence
    "leaks": (0.01, 0.2),  # lost in silence, ten times in a row
    "is slow": (0.03, 0.5),  # its rate is less than it says, for 6 s: by this part
    "is late": (0.1, 5.0),  # seconds that this program sleeps; nothing is lost
    "sets its clock": (-50.0, 50.0),
    "is muted": (0.5, 25.0),
    "gives no numbers": (0.01, 0.5),  # seconds of NaN
    "is unplugged": (0.0, 20.0),  # seconds until it is back
    "is unplugged with a full ring": (0.0, 20.0),
    "is exchanged": (0, len(RATES) - 1),  # lost, and another one, at another rate, is found
    "is busy": (1, 5),  # lost, and refuses to open so often
}
UNTOLD = ("leaks", "is slow")
STRANGE = (RunError("busy"), OSError("a driver"), ValueError("a library"), RuntimeError("a host"))


@dataclass
class _Told:
    """A microphone, and what it said."""

    microphone: SteppedMicrophone
    realtime: bool = False
    n_muted: int = 0
    n_drops: int = 0
    closed: bool = field(default=False)

    def read(self, timeout_s: float) -> list[SourceItem] | None:
        new = self.microphone.read(timeout_s)
        self.n_muted += sum(isinstance(item, DeviceMuted) for item in new or [])
        self.n_drops += sum(isinstance(item, AudioDropped) for item in new or [])
        return new

    def close(self) -> None:
        self.microphone.close()


def make_case(seed: int, number: int) -> Case:
    """The gate, the rate, and what happens, as JSON."""
    rng = random.Random(f"microphone {seed} {number}")
    plan: list[object] = [rng.choice(GATES), rng.choice(RATES)]
    for _ in range(rng.randrange(1, 25)):
        fault = rng.choice(list(FAULTS))
        low, high = FAULTS[fault]
        plan.append([fault, rng.uniform(low, high) if isinstance(low, float) else rng.randint(low, int(high))])
    content = json.dumps(plan)
    return Case(content[:200], content.encode(), ".json")


def run_case(case: Case, folder: Path) -> int:
    """Samples at 16 kHz. AssertionError for a sample that is neither heard, silent nor told as lost."""
    gate, rate, *faults = json.loads(case.content)
    host = FakeHost(rate)
    microphone = SteppedMicrophone(host, ring_s=3)
    told = _Told(microphone)
    listener = Listener(told, make_gate(gate))
    host.deliver(100)
    for fault, value in faults:
        happen(fault, value, host, microphone, listener)
    listener.empty()
    host.deliver(100)
    microphone.close()
    listener.finish()
    ledger = listener.segmenter.ledger
    names = [fault for fault, _ in faults]
    if any(name in names for name in UNTOLD):
        seconds = host.now / host.device.sample_rate
        most = CREEP_S * (1 + seconds / WINDOW_S) + 0.01
        assert abs(ledger.captured / SAMPLE_RATE - seconds) < most, f"{ledger.captured} of {seconds} s"
    else:
        host.check_end(ledger.captured, listener.given.heard)
    if "gives no numbers" in names or any(name == "overflows" and value > JUMP_S for name, value in faults):
        assert told.n_drops, "nothing was told"
    if any(name == "is muted" and value > 11 for name, value in faults):
        assert told.n_muted, "a mute was not told"
    return ledger.captured


def happen(fault: str, value: float, host: FakeHost, microphone: SteppedMicrophone, listener: Listener) -> None:
    """One fault, and how the device goes on."""
    rate = host.device.sample_rate
    if fault in ("plays", "plays on"):
        host.deliver(max(1, min(round(value * rate), 2 * rate)))
    elif fault == "is read":
        listener.poll()
    elif fault == "is decoded":
        listener.done(decoded=bool(value))
    elif fault == "stalls":
        host.stall(value)
    elif fault in ("overflows", "jumps"):
        host.lose(value)
        host.deliver(BLOCK, overflow=fault == "overflows")
    elif fault == "leaks":
        for _ in range(10):
            host.lose(value)
            host.deliver(rate // 20)
            listener.poll()
    elif fault == "is slow":
        for _ in range(60):
            host.lose(value / 10)
            host.deliver(rate // 10)
            listener.poll()
    elif fault == "is late":
        listener.empty()
        host.deliver(BLOCK)  # how long a device was gone is known by our clock alone
        host.late_s = value
        host.deliver(BLOCK)
        host.late_s = 0.0
    elif fault == "sets its clock":
        listener.empty()
        host.deliver(BLOCK)  # a loss in the same moment cannot be told from it
        host.device_s += value
        host.deliver(BLOCK)
    elif fault == "is muted":
        mute(value, host, listener)
    elif fault == "gives no numbers":
        host.give(np.full((round(value * rate), 2), np.nan, np.float32))
    else:
        lose(fault, value, host, microphone)


def mute(seconds: float, host: FakeHost, listener: Listener) -> None:
    """Nothing but zeros, read as it comes."""
    rate = host.device.sample_rate
    start_s = host.now / rate
    host.muted.append((start_s, start_s + seconds))
    for _ in range(round(seconds * 10)):
        host.deliver(rate // 10)
        listener.poll()
        listener.done()


def lose(fault: str, value: float, host: FakeHost, microphone: SteppedMicrophone) -> None:
    """Gone, looked for, and found."""
    if "full ring" in fault:
        host.stall(3.5)
    microphone.lose()
    if fault == "is exchanged":
        host.exchange(RATES[int(value)])
    if fault == "is busy":
        host.refusals = [STRANGE[i % len(STRANGE)] for i in range(int(value))]
    host.lose(value)
    while not microphone.find_again():
        host.lose(0.5)
    host.deliver(BLOCK)
