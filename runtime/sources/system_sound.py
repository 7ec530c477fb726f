"""System sound: what this computer plays -> chunks with their times, as of a microphone.

Linux     PulseAudio or PipeWire: the default sink's monitor -> parec -> callback; pactl says when it changes
Windows   WASAPI's loopback device of the default output     -> PortAudio
macOS     a virtual device that gives back what it is played -> PortAudio
"""

from __future__ import annotations

import math
import os
import select
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import IO

import numpy as np

from ...models.errors import RunError
from .microphone import Host, Microphone, MicrophoneOptions
from .portaudio import FrameCallback, InputDevice, PortAudio, default_output, list_devices

RATE = 48_000
LATENCY_MS = 50
PATIENCE_S = 5.0  # with a sound server that does not answer
GIVING_BACK = ("[loopback]", "blackhole", "loopback audio", "soundflower", "cable output", "stereo mix")


class SystemSound(Microphone):
    """What this computer plays, from the moment it is made; the output that the system plays to is followed.

    A source as source.Source says. Silence is no mute here.
    """

    def __init__(self) -> None:
        """Raises RunError where there is no way to hear it, with the remedy."""
        super().__init__(None, MicrophoneOptions(muted_s=math.inf), system_host())


def system_host() -> Host:
    """Where what this computer plays comes from."""
    return PulseMonitor() if sys.platform.startswith("linux") else LoopbackDevice()


class PulseMonitor:
    """The default sink's monitor, of PulseAudio or of PipeWire in its place."""

    def find(self, wanted: int | str | None) -> InputDevice:
        """The sink that is played to now. Raises RunError."""
        sink = default_sink()
        if f"{sink}.monitor" not in _pactl("list", "short", "sources").split():
            raise RunError(
                f"output {sink} has no monitor that could be recorded: choose another output in the settings"
            )
        return InputDevice(-1, sink, "PulseAudio", 1, RATE, default=True)

    def rescan(self) -> None:
        """Nothing is remembered."""

    def open(self, device: InputDevice, on_frames: FrameCallback) -> PulseStream:
        """Start recording. Raises RunError."""
        return PulseStream(device.name, on_frames)


class PulseStream:
    """A sink's monitor that is recorded, as long as that sink is the default."""

    def __init__(self, sink: str, on_frames: FrameCallback) -> None:
        """Raises RunError."""
        self._sink = sink
        self._on_frames = on_frames
        self._is_default = True
        how = ["--format=float32le", f"--rate={RATE}", "--channels=1", f"--latency-msec={LATENCY_MS}"]
        self._recorder = _start("parec", f"--device={sink}.monitor", *how)
        self._changes = _start("pactl", "subscribe")
        for work in (self._record, self._follow):
            threading.Thread(target=work, name="system sound", daemon=True).start()

    def alive(self) -> bool:
        """False when the sound server ended it, or plays elsewhere by default."""
        return self._is_default and self._recorder.poll() is None

    def close(self) -> None:
        """Twice is fine."""
        for process in (self._recorder, self._changes):
            process.kill()
            process.wait()

    def _record(self) -> None:
        n_frames, rest = 0, b""
        with _output(self._recorder) as pipe:
            while data := os.read(pipe.fileno(), 1 << 16):
                rest += data
                n = len(rest) // 4
                frames = np.frombuffer(rest, "<f4", n).reshape(-1, 1)
                rest = rest[4 * n :]
                start_s, n_frames = n_frames / RATE, n_frames + n
                self._on_frames(frames, start_s, n_frames / RATE, False)

    def _follow(self) -> None:
        with _output(self._changes) as pipe:
            while not select.select([pipe], [], [], 0.1)[0]:
                self._compare()  # a client that comes is an event, once events are told
            self._compare()
            for line in pipe:
                if b" on server" in line:
                    self._compare()

    def _compare(self) -> None:
        try:
            self._is_default = self._is_default and default_sink() == self._sink
        except RunError:  # the recorder ends as well
            self._is_default = False


def default_sink() -> str:
    """The name of the output that the sound server plays to. Raises RunError."""
    lines = _pactl("info").splitlines()
    name = next((line.partition(": ")[2] for line in lines if line.startswith("Default Sink: ")), "")
    if name in ("", "n/a", "@DEFAULT_SINK@"):
        raise RunError("the sound server has no output whose sound could be heard: plug one in, or choose one")
    return name


class LoopbackDevice(PortAudio):
    """A recording device that gives back what is played."""

    def find(self, wanted: int | str | None) -> InputDevice:
        """The default output's, or else the first. Raises RunError."""
        return choose_loopback(list_devices(), default_output("Windows WASAPI"))


def choose_loopback(devices: Sequence[InputDevice], output: str) -> InputDevice:
    """That of the named output, or else the first. Raises RunError where there is none, with the system's remedy."""
    found = [device for device in devices if any(word in device.name.casefold() for word in GIVING_BACK)]
    if found:
        return next((device for device in found if output and device.name.startswith(output)), found[0])
    remedy = "install BlackHole, and play to a Multi-Output Device that contains it"
    if sys.platform == "win32":
        remedy = "turn on Stereo Mix, or install VB-CABLE and play to it"
    raise RunError(f"no recording device gives back what this computer plays: {remedy}")


def _pactl(*words: str) -> str:
    """What it prints. Raises RunError."""
    try:
        run = subprocess.run(
            ["pactl", *words], env=_english(), capture_output=True, text=True, errors="replace", timeout=PATIENCE_S
        )
    except FileNotFoundError:
        raise _absent("pactl") from None
    except subprocess.TimeoutExpired:
        raise RunError(f"the sound server has not answered for {PATIENCE_S:.0f} s: start it again") from None
    if run.returncode:
        reason = " ".join(run.stderr.split()).replace(": ", ", ") or f"status {run.returncode}"
        raise RunError(
            f"no PulseAudio or PipeWire answers ({reason}): start one with `systemctl --user start pipewire-pulse`, "
            "and run this as the user who is logged in"
        )
    return run.stdout


def _start(*words: str) -> subprocess.Popen[bytes]:
    """In a session of its own, which Ctrl-C does not reach: what came before it is still heard. Raises RunError."""
    none = subprocess.DEVNULL
    try:
        return subprocess.Popen(
            words, env=_english(), stdin=none, stdout=subprocess.PIPE, stderr=none, start_new_session=True
        )
    except FileNotFoundError:
        raise _absent(words[0]) from None


def _absent(program: str) -> RunError:
    return RunError(
        f"{program} is not installed, which records what this computer plays: apt-get install pulseaudio-utils"
    )


def _output(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdout is not None
    return process.stdout


def _english() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C"}
