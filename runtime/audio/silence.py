"""Silence: a clip of which what was selected is silent -> the sentence that says where else in it there is sound."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.error import FFmpegError
from av.packet import Packet
from numpy.typing import NDArray

from ...models.errors import AudioError
from .container import open_sound
from .decode import as_waveform, frame_samples, scaled
from .level import SILENCE_DBFS, is_silent
from .selection import Selection

_LEAST_SWING = 2 * 10 ** (SILENCE_DBFS / 20)  # from peak to peak, of what is no silence


@dataclass
class _Peaks:
    """How far each channel of a track has swung."""

    low: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    high: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))

    def audible(self, frame: AudioFrame) -> list[int]:
        """Adds a frame -> the channels that have had sound, from 1."""
        samples = scaled(frame_samples(frame).astype(np.float64), frame.format.packed.name)
        if samples.shape[1] == len(self.low):  # or it is the first, or the channels have changed
            samples = np.vstack([self.low, self.high, samples])
        self.low = samples.min(axis=0)
        self.high = samples.max(axis=0)
        return [int(i) + 1 for i in np.flatnonzero(self.high - self.low >= _LEAST_SWING)]


def silent_file(path: str | os.PathLike[str], selection: Selection, name: str) -> AudioError:
    """What to say of a file. Decodes it once more, up to the first sound in another track or channel."""
    if not Path(path).is_file():  # a pipe, which has been read
        return _silent(name)
    with closing(open_sound(path, selection, name)) as sound:
        streams = sound.container.streams.audio
        own = streams.index(sound.stream) + 1
        peaks = {stream.index: (track, _Peaks()) for track, stream in enumerate(streams, 1)}
        for packet in sound.container.demux(streams):
            track, peak = peaks[packet.stream.index]
            for frame in _decoded(packet):
                for channel in peak.audible(frame):
                    if track != own or selection.mix or channel != (selection.channel or 1):
                        return _silent(name, _where(track, channel, frame.layout.nb_channels, own, selection))
    return _silent(name)


def silent_array(samples: NDArray[Any], sample_rate: int, selection: Selection, name: str) -> AudioError:
    """What to say of an array [n] or [n, channels]."""
    n = samples.shape[1] if samples.ndim == 2 else 1
    for channel in range(1, n + 1):
        if not is_silent(as_waveform(samples, sample_rate, Selection(channel=channel))):
            return _silent(name, f"{_channel(channel, n)} has sound: Selection(channel={channel})")
    return _silent(name)


def _decoded(packet: Packet[AudioStream]) -> Iterator[AudioFrame]:
    """Nothing of a packet that is damaged: what matters of the other tracks is whether there is sound."""
    try:
        yield from packet.decode()
    except FFmpegError:
        return


def _where(track: int, channel: int, n_channels: int, own: int, selection: Selection) -> str:
    """Where there is sound, and the options for it."""
    place = _channel(channel, n_channels)
    other = f" --channel {channel}"
    if track == own:
        return f"{place} has sound:{f' --track {track}' if selection.track else ''}{other}"
    if channel == 1:
        return f"track {track} has sound: --track {track}"
    return f"{place} of track {track} has sound: --track {track}{other}"


def _channel(channel: int, n: int) -> str:
    return ("the left channel", "the right channel")[channel - 1] if n == 2 else f"channel {channel}"


def _silent(name: str, elsewhere: str | None = None) -> AudioError:
    return AudioError(f"{name} is silent: {elsewhere or 'check the recording, or the microphone that made it'}")
