"""MP3 check: packets and what was decoded of them -> where a frame does not keep to the format.

A frame whose codes run beyond its end decodes all the same, to whatever the broken codes say. FFmpeg has a strict way,
which mutes what is so: where it differs, the frame is damaged. Encoders that count wrongly do so all the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.codec import CodecContext
from av.error import FFmpegError
from av.packet import Packet

_RESERVOIR = 10  # frames that may need bits from before the beginning, where an MP3 was cut out of another
_WATCHED = 64  # frames after the first odd one
_HABIT = 16  # odd ones among them that are the encoder's way


class Mp3Check:
    """A second decoder beside the first."""

    def __init__(self, codec: str, seams: Sequence[int]) -> None:
        """seams: bytes at which another clip begins."""
        self._strict: Any = CodecContext.create(codec, "r")
        self._strict.options = {"err_detect": "compliant"}
        self._seams = list(seams)
        self._n_excused = _RESERVOIR
        self._odd_s: float | None = None
        self._n_watched = 0
        self._n_odd = 0
        self._habit = False

    def add(self, packet: Packet[AudioStream], frames: Sequence[AudioFrame], start_s: float) -> float | None:
        """Seconds at which damage was found, if it was. start_s: where the packet's sound begins."""
        if self._habit:
            return None
        if self._seams and packet.pos is not None and packet.pos >= self._seams[0]:
            self._seams.pop(0)
            self._n_excused = _RESERVOIR
        odd = self._differs(packet, frames)
        if self._n_excused:
            self._n_excused -= 1
            return None
        if odd and self._odd_s is None:
            self._odd_s = start_s
        if self._odd_s is None:
            return None
        self._n_odd += odd
        self._n_watched += 1
        if self._n_watched < _WATCHED:
            return None
        self._habit = self._n_odd > _HABIT
        return None if self._habit else self._odd_s

    def finish(self) -> float | None:
        """The same, at the end."""
        return None if self._habit else self._odd_s

    def _differs(self, packet: Packet[AudioStream], frames: Sequence[AudioFrame]) -> bool:
        again: list[AudioFrame] = []
        try:
            again = self._strict.decode(packet)
        except FFmpegError:
            return bool(frames)
        return len(again) != len(frames) or any(
            not np.array_equal(one.to_ndarray(), other.to_ndarray()) for one, other in zip(frames, again, strict=True)
        )


def mp3_check(context: AudioCodecContext, seams: Sequence[int]) -> Mp3Check | None:
    """For an MP3's decoder; None for another's."""
    return Mp3Check(context.name, seams) if context.name in ("mp3", "mp3float") else None
