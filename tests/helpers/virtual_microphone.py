"""A microphone for PortAudio where there is no hardware: PulseAudio's null sink, whose monitor is what it plays.

    paplay clip.wav -> PulseAudio's sink "air" -> its monitor -> ALSA's pulse plugin -> PortAudio

Everything lies in one folder; the daemon of the user's session, if there is one, is not touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from auricle.models.audio import Waveform
from auricle.models.errors import AuricleError
from auricle.runtime.sources.portaudio import PortAudio, list_devices

NAME = "auricle_test_microphone"
PROGRAMS = ("pulseaudio", "paplay", "pactl")
START_SECONDS = 20.0


class VirtualMicrophone:
    """Starts plugged in and silent."""

    def __init__(self, folder: Path) -> None:
        self.name = NAME
        self._socket = folder / "native"
        self._home = {
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder),
            "PULSE_RUNTIME_PATH": str(folder),
            "PULSE_STATE_PATH": str(folder),
        }
        self._daemon: subprocess.Popen[bytes] | None = None
        config = folder / "asound.conf"
        config.write_text(
            "</usr/share/alsa/alsa.conf>\n"
            f'pcm.{NAME} {{ type pulse server "unix:{self._socket}" device "air.monitor" '
            'hint { show on description "plays what a test says" } }\n'
        )
        self.environment = {
            "ALSA_CONFIG_PATH": str(config),
            "PULSE_SERVER": f"unix:{self._socket}",
            "PULSE_COOKIE": str(folder / "cookie"),
        }
        """What a program needs to see it."""
        self.plug()

    def plug(self) -> None:
        """Start the daemon."""
        modules = [
            "module-null-sink sink_name=air",
            f"module-native-protocol-unix auth-anonymous=1 socket={self._socket}",
        ]
        options = ["-n", "--daemonize=no", "--use-pid-file=no", "--exit-idle-time=-1", "--disable-shm=yes"]
        options += ["--realtime=no", "--high-priority=no", *(f"--load={module}" for module in modules)]
        environment = {**os.environ, **self.environment, **self._home}
        self._daemon = subprocess.Popen(["pulseaudio", *options], env=environment, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while not self._socket.exists():
            if self._daemon.poll() is not None or time.monotonic() > deadline:
                raise AuricleError("pulseaudio does not start")
            time.sleep(0.02)

    def unplug(self) -> None:
        """Kill the daemon: every stream breaks."""
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.wait()
            self._socket.unlink(missing_ok=True)
            self._daemon = None

    def pactl(self, *words: str) -> str:
        """What `pactl` answers."""
        environment = {**os.environ, **self.environment, **self._home}
        return subprocess.run(["pactl", *words], env=environment, check=True, capture_output=True, text=True).stdout

    def wait_for_listener(self) -> None:
        """Until somebody records."""
        deadline = time.monotonic() + 60
        while not self.pactl("list", "short", "source-outputs").strip():
            assert time.monotonic() < deadline, "nobody records"
            time.sleep(0.1)

    def play(self, clip: Path, sink: str = "air") -> subprocess.Popen[bytes]:
        """Start to play a WAV file into the air, or into another sink; wait() for it."""
        environment = {**os.environ, **self.environment, **self._home}
        return subprocess.Popen(["paplay", f"--device={sink}", "--latency-msec=1000", str(clip)], env=environment)


def missing() -> str | None:
    """Why there can be no virtual microphone here."""
    if not sys.platform.startswith("linux"):
        return "PulseAudio's null sink behind ALSA is for Linux"
    absent = [program for program in PROGRAMS if not shutil.which(program)]
    if not any(Path("/usr/lib").glob("**/alsa-lib/libasound_module_pcm_pulse.so")):
        absent.append("ALSA's pulse plugin")
    return f"not installed: {', '.join(absent)} (scripts/system-packages.sh)" if absent else None


def seen(monkeypatch: pytest.MonkeyPatch, microphone: VirtualMicrophone) -> None:
    """This process's PortAudio sees it until monkeypatch is undone, and must rescan() then."""
    for name, value in microphone.environment.items():
        monkeypatch.setenv(name, value)
    PortAudio().rescan()
    assert any(device.name == NAME for device in list_devices())


def lag(clip: Waveform, part: Waveform) -> tuple[int, float]:
    """Where a part lies in a clip, samples, and how well it fits, 0 to 1."""
    n = 1 << (len(clip) + len(part)).bit_length()
    product = np.fft.irfft(np.fft.rfft(clip, n) * np.conj(np.fft.rfft(part, n)), n)[: len(clip) - len(part)]
    at = int(product.argmax())
    there = clip[at : at + len(part)]
    return at, float(product[at] / np.sqrt(np.dot(there, there) * np.dot(part, part)))
