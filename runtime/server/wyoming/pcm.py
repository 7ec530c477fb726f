"""PCM: payloads of chunks in the format that each states -> mono samples; a payload may end inside a sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....models.audio import Waveform
from ...audio.container import MAX_CHANNELS, MAX_RATE, MIN_RATE
from .framing import bad_event

MAX_WIDTH = 4  # bytes


@dataclass(frozen=True)
class PcmFormat:
    """Of a chunk: integers, little-endian; 8 bits are unsigned, as in a WAV file."""

    rate: int
    width: int
    """Bytes of a sample."""
    channels: int

    @property
    def frame(self) -> int:
        """Bytes of a sample of every channel."""
        return self.width * self.channels


def pcm_format(data: Mapping[str, Any]) -> PcmFormat:
    """As an event states it. Raises ApiError for one that no sound has."""
    return PcmFormat(
        _whole(data, "rate", MIN_RATE, MAX_RATE),
        _whole(data, "width", 1, MAX_WIDTH),
        _whole(data, "channels", 1, MAX_CHANNELS),
    )


class PcmDecoder:
    """One command's payloads, in order."""

    def __init__(self) -> None:
        self._format: PcmFormat | None = None
        self._torn = b""

    def push(self, payload: bytes, form: PcmFormat) -> Waveform:
        """The samples that are whole now, the mean of the channels. What was torn when the format changes is lost."""
        data = payload if form != self._format else self._torn + payload
        n = len(data) // form.frame * form.frame
        self._format = form
        self._torn = data[n:]
        samples = _samples(data[:n], form.width)
        return samples.reshape(-1, form.channels).mean(axis=1, dtype=np.float32)


def _samples(data: bytes, width: int) -> Waveform:
    if width == 1:
        return (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / np.float32(2**7)
    if width == 2:
        return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(2**15)
    if width == 3:
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        data = wide.tobytes()
    return (np.frombuffer(data, "<i4") / 2**31).astype(np.float32)


def _whole(data: Mapping[str, Any], name: str, least: int, most: int) -> int:
    value = data.get(name)
    if type(value) is not int or not least <= value <= most:
        raise bad_event(f"{name} must be {least} to {most}")
    return value
