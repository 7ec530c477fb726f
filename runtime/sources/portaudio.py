"""PortAudio: the microphones of this machine -> a list, the chosen one, its frames to a callback."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models.errors import InputError, RunError
from ..system.stderr import silenced_stderr

MAX_CHANNELS = 2  # virtual devices offer 32, of which most are empty: their mean would be too quiet
LATENCY_S = 0.1  # what PortAudio may hold back: a Python callback on a busy machine is late at times


@dataclass(frozen=True)
class InputDevice:
    """A device that can record."""

    number: int
    """PortAudio's; it may change when devices come and go."""
    name: str
    host: str
    """The operating system's sound interface: ALSA, Core Audio, Windows WASAPI ..."""
    channels: int
    sample_rate: int
    """Its own, Hz."""
    default: bool

    @property
    def label(self) -> str:
        """Name and host: what stays the same when numbers change."""
        return f"{self.name}, {self.host}"


FrameCallback = Callable[[NDArray[np.float32], float, float, bool], None]
"""Called for frames [n, channels] with the time of the first and the time now, both on the device's clock in
seconds, and whether the device lost some before them. Must return at once."""


def list_devices() -> list[InputDevice]:
    """Every device that can record, as PortAudio saw them last. Raises RunError without PortAudio."""
    sd = _sounddevice()
    try:
        with silenced_stderr():
            hosts: Any = sd.query_hostapis()
            found: list[dict[str, Any]] = [dict(device) for device in sd.query_devices()]
    except sd.PortAudioError as error:
        raise RunError(f"PortAudio cannot list devices ({_reason(error)}): `auricle doctor` says more") from error
    default = _default_number(sd)
    return [
        InputDevice(
            number=int(device["index"]),
            name=str(device["name"]),
            host=str(hosts[device["hostapi"]]["name"]),
            channels=int(device["max_input_channels"]),
            sample_rate=int(device["default_samplerate"]),
            default=int(device["index"]) == default,
        )
        for device in found
        if device["max_input_channels"] > 0
    ]


def choose_device(devices: Sequence[InputDevice], wanted: int | str | None) -> InputDevice:
    """By number, by name or a part of it (with or without the host), or None: the system's choice.

    Raises RunError when there is no device at all, InputError when the choice fits none or several.
    """
    if not devices:
        raise RunError("there is no microphone: plug one in, or give a sound file")
    if wanted is None:
        return next((device for device in devices if device.default), devices[0])
    fitting = _fitting(devices, wanted)
    if len(fitting) > 1:  # the same device through several of Windows' hosts
        own_host = next((device.host for device in devices if device.default), None)
        fitting = [device for device in fitting if device.host == own_host] or fitting
    if len(fitting) == 1:
        return fitting[0]
    shown = "; ".join(f"{device.number} {device.label}" for device in fitting or devices)
    if fitting:
        raise InputError(f"microphone {wanted!r} is not one but {len(fitting)}: choose one by its number: {shown}")
    raise InputError(f"microphone {wanted!r} is not there: choose one of {shown}")


def _fitting(devices: Sequence[InputDevice], wanted: int | str) -> list[InputDevice]:
    """An exact fit wins over a part of a name."""
    if isinstance(wanted, int) or wanted.isdecimal():
        return [device for device in devices if device.number == int(wanted)]
    name = wanted.casefold()
    exact = [device for device in devices if name in (device.name.casefold(), device.label.casefold())]
    return exact or [device for device in devices if name in device.label.casefold()]


def _default_number(sd: Any) -> int:
    try:
        return int(sd.query_devices(kind="input")["index"])
    except (sd.PortAudioError, ValueError):  # there is none
        return -1


def default_output(host: str) -> str:
    """The name of a host's default output; empty where there is none. Raises RunError without PortAudio."""
    sd = _sounddevice()
    try:
        with silenced_stderr():
            numbers = [int(each["default_output_device"]) for each in sd.query_hostapis() if each["name"] == host]
            return str(sd.query_devices(numbers[0])["name"]) if numbers and numbers[0] >= 0 else ""
    except sd.PortAudioError:
        return ""


class PortAudio:
    """The microphones of this machine. Other hosts, in tests, have the same three methods."""

    def find(self, wanted: int | str | None) -> InputDevice:
        """As choose_device, among those that are plugged in."""
        return choose_device(list_devices(), wanted)

    def rescan(self) -> None:
        """Look for devices anew; every open stream must be closed before."""
        sd = _sounddevice()
        with silenced_stderr():
            for step in (sd._terminate, sd._initialize):  # after a start that failed there is nothing to end
                with contextlib.suppress(sd.PortAudioError):
                    step()

    def open(self, device: InputDevice, on_frames: FrameCallback) -> PortAudioStream:
        """Start recording, at the device's own rate. Raises RunError."""
        sd = _sounddevice()

        def callback(frames: NDArray[np.float32], n: int, time: Any, status: Any) -> None:
            now_s: float = time.currentTime
            on_frames(frames, time.inputBufferAdcTime or now_s, now_s, bool(status.input_overflow))

        with silenced_stderr():
            try:
                stream = sd.InputStream(
                    device=device.number,
                    samplerate=device.sample_rate,
                    channels=min(device.channels, MAX_CHANNELS),
                    dtype="float32",
                    latency=LATENCY_S,
                    callback=callback,
                )
                stream.start()
            except sd.PortAudioError as error:
                raise RunError(
                    f"microphone {device.label} cannot be opened ({_reason(error)}): close what else uses it, "
                    "allow access in the system's settings, or choose another"
                ) from error
        return PortAudioStream(stream)


class PortAudioStream:
    """A device that is recording."""

    def __init__(self, stream: Any) -> None:
        self._stream: Any = stream

    def alive(self) -> bool:
        """False once PortAudio gave it up; some devices only fall silent."""
        try:
            return bool(self._stream.active)
        except Exception:  # whatever it raises, it records no more
            return False

    def close(self) -> None:
        """Free the device, whether it is still there or not."""
        with silenced_stderr(), contextlib.suppress(Exception):
            self._stream.close()


def _sounddevice() -> Any:
    try:
        with silenced_stderr():  # ALSA and JACK report every absent device
            return importlib.import_module("sounddevice")
    except ImportError:
        raise RunError("sounddevice is not installed: pip install sounddevice") from None
    except OSError:
        raise RunError("PortAudio is not installed: apt-get install libportaudio2, or brew install portaudio") from None
    except Exception as error:  # sounddevice.PortAudioError, which cannot be imported either
        raise RunError(f"PortAudio does not start ({_reason(error)}): `auricle doctor` says more") from error


def _reason(error: Exception) -> str:
    return " ".join(str(error.args[0] if error.args else error).split()) or type(error).__name__
