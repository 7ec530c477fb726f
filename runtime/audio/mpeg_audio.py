"""MPEG audio: an MP3 or ADTS AAC file -> its frames without the tags between them, and where it is damaged.

    ID3v2 | Info | frame frame frame | TAG | ID3v2 | Info | frame frame | APEv2        two clips joined, both healthy
            `-- size and checksum of the frames up to TAG

Neither has a table of contents: a frame's header leads to the next. Where it leads to what is neither a frame nor a
tag, and frames follow, the file is damaged; before the first frame and behind the last anything may stand.
Source of the Info tag's layout: LAME's libmp3lame/VbrTag.c.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import BinaryIO

from .crc16 import crc16

_MPEG_RATES = (44_100, 48_000, 32_000)
_ADTS_RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350)
_KBITS = {  # by (MPEG 1, layer)
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_HEADER = 7  # bytes, of the longer of both
_FRAMES_IN_A_ROW = 3  # that are no coincidence
_TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN")
_LYRICS_MAX = 1 << 20
_WINDOW = 1 << 20  # bytes in memory
_NEAR = 1 << 16  # bytes at both ends of a file in which mp3gain says that it was there


@dataclass(frozen=True)
class FrameHeader:
    """What a frame says of itself."""

    size: int  # bytes, header included
    rate: int  # Hz
    info_at: int = 0  # where an Info tag would stand, bytes from the frame's beginning; 0: nowhere


@dataclass
class Frames:
    """What a walk over a file found."""

    pieces: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    """First byte and end of what holds no tag between frames, nor an Info tag but the first."""
    damaged: bool = False
    """Behind the last piece there is what is neither a frame nor a tag, and then frames."""
    stated_end: int = 0
    """Where the frames end as their Info tags have it."""
    wrong_checksum: bool = False
    """Some frames have not the checksum that their Info tag has."""

    @property
    def whole(self) -> bool:
        """Nothing has to be left out."""
        return not self.damaged and len(self.pieces) < 2

    @property
    def seams(self) -> list[int]:
        """Where the pieces behind the first begin when all stand one behind the other."""
        return [*itertools.accumulate(end - start for start, end in self.pieces)][:-1]


@dataclass(frozen=True)
class _Info:
    """What an Info tag says of the frames that follow it: bytes from the beginning of the file."""

    stated_end: int
    end: int = 0  # of the frames that it has a checksum of
    checksum: int = 0


class _Bytes:
    """A file's bytes by their place, a few of them in memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = file.seek(0, os.SEEK_END)
        self._start = 0
        self._window = b""

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, place: slice) -> bytes:
        start = place.start or 0
        stop = min(place.stop if place.stop is not None else self._size, self._size)
        if start < self._start or stop > self._start + len(self._window):
            self._file.seek(start)
            self._start = start
            self._window = self._file.read(max(_WINDOW, stop - start))
        return self._window[start - self._start : max(start, stop) - self._start]

    def find(self, wanted: bytes, start: int, stop: int | None = None) -> int:
        """Where the next of such bytes begin before stop; -1: nowhere."""
        stop = min(stop or self._size, self._size)
        while start < stop and self[start : start + len(wanted)]:
            found = self._window.find(wanted, start - self._start)
            if found >= 0:
                return self._start + found
            start = max(start, self._start + len(self._window) - len(wanted)) + 1
        return -1

    def blocks(self, start: int, stop: int) -> Iterator[bytes]:
        """All of a stretch."""
        for at in range(start, stop, _WINDOW):
            yield self[at : min(stop, at + _WINDOW)]


Parse = Callable[[bytes], FrameHeader | None]


def walk_frames(file: BinaryIO, parse: Parse) -> Frames:
    """All frames of a regular file that is not empty. parse: mp3_header or adts_header."""
    return _walk(_Bytes(file), parse)


@lru_cache(4096)
def mp3_header(head: bytes) -> FrameHeader | None:
    """Layers 1 to 3 of MPEG 1, 2 and 2.5; None for what is no header or leaves its bit rate open."""
    if len(head) < 4 or head[0] != 0xFF or head[1] < 0xE0:
        return None
    version = head[1] >> 3 & 3
    layer = 4 - (head[1] >> 1 & 3)
    bitrate = head[2] >> 4
    rate = head[2] >> 2 & 3
    if version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return None
    mpeg1 = version == 3
    hz = _MPEG_RATES[rate] >> {3: 0, 2: 1, 0: 2}[version]
    bits = 1000 * _KBITS[mpeg1, layer][bitrate]
    padding = head[2] >> 1 & 1
    if layer == 1:
        return FrameHeader(4 * (12 * bits // hz + padding), hz)
    samples = 1152 if mpeg1 or layer == 2 else 576
    mono = head[3] >> 6 == 3
    side_info = (17 if mono else 32) if mpeg1 else (9 if mono else 17)
    return FrameHeader(samples // 8 * bits // hz + padding, hz, 4 + side_info if layer == 3 else 0)


def adts_header(head: bytes) -> FrameHeader | None:
    """AAC in ADTS; None for what is no header."""
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0:
        return None
    rate = head[2] >> 2 & 15
    size = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    if rate >= len(_ADTS_RATES) or size < 7:
        return None
    return FrameHeader(size, _ADTS_RATES[rate])


def _walk(data: _Bytes, parse: Parse) -> Frames:
    found = Frames()
    first = _next_frame(data, _behind_tags(data, 0), parse)
    if first is None:
        return found
    at = first
    start = rate = 0
    open_sums: dict[int, tuple[int, int]] = {}  # end of some frames -> their beginning, their checksum
    while True:
        if at in open_sums and at <= len(data):
            begin, checksum = open_sums.pop(at)
            found.wrong_checksum |= crc16(data.blocks(begin, at)) != checksum
        header = parse(data[at : at + _HEADER])
        if header is None or (header.rate != rate and rate and _next_frame(data, at, parse) != at):
            behind = _behind_tags(data, at)
            follows = _next_frame(data, behind, parse)
            end = len(data) if follows is None else at
            found.pieces.append((start, end))
            if follows != behind:
                found.damaged = follows is not None
                break
            start = at = behind
            continue
        info = _info(data, at, header)
        behind = at + header.size
        rate = header.rate
        if info is not None:
            found.stated_end = max(found.stated_end, info.stated_end)
            open_sums |= {info.end: (behind, info.checksum)} if info.end > behind else {}
        if info is not None and at != first:  # FFmpeg would take it for sound
            found.pieces.append((start, at))
            start = behind
        at = behind
    return found


def _next_frame(data: _Bytes, at: int, parse: Parse) -> int | None:
    """Where the next frame begins: one of several in a row, or that ends where the file or a tag does."""
    while (at := data.find(b"\xff", at)) >= 0:
        end = at
        for _ in range(_FRAMES_IN_A_ROW):
            header = parse(data[end : end + _HEADER])
            if header is None:
                break
            end += header.size
            if end == len(data) or data[end : end + 11].startswith(_TAGS):
                return at
        else:
            return at
        at += 1
    return None


def _behind_tags(data: _Bytes, at: int) -> int:
    """Where the tags that begin at a place end; there, where none does."""
    while (size := _tag_bytes(data, at)) > 0:
        at += size
    return at


def _tag_bytes(data: _Bytes, at: int) -> int:
    head = data[at : at + 32]
    if head.startswith(b"ID3") and len(head) >= 10 and max(head[6:10]) < 0x80:
        size = sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        return 10 + size + (10 if head[5] & 0x10 else 0)
    if head.startswith(b"TAG+"):
        return 227
    if head.startswith(b"TAG"):
        return 128
    if head.startswith(b"APETAGEX") and len(head) == 32:
        is_header = head[23] & 0x20
        return 32 + (int.from_bytes(head[12:16], "little") if is_header else 0)
    if head.startswith(b"LYRICSBEGIN"):
        ends = [data.find(end, at, at + _LYRICS_MAX) for end in (b"LYRICS200", b"LYRICSEND")]
        return min((end + 9 - at for end in ends if end >= 0), default=0)
    return 0


def _info(data: _Bytes, at: int, header: FrameHeader) -> _Info | None:
    """A frame that is no sound: a tag of Xing's, LAME's or Fraunhofer's kind."""
    if not header.info_at:
        return None
    tag = at + header.info_at
    if data[tag : tag + 4] not in (b"Xing", b"Info"):
        return _Info(0) if data[at + 36 : at + 40] == b"VBRI" else None
    flags = int.from_bytes(data[tag + 4 : tag + 8], "big")
    place = tag + 8 + (4 if flags & 1 else 0)
    stated_end = at + int.from_bytes(data[place : place + 4], "big") if flags & 2 else 0
    place += (4 if flags & 2 else 0) + (100 if flags & 4 else 0) + (4 if flags & 8 else 0)
    if not data[place : place + 4].startswith((b"LAME", b"Lavf", b"Lavc")) or _was_amplified(data, place):
        return _Info(stated_end)
    end = at + int.from_bytes(data[place + 28 : place + 32], "big")
    checksum = int.from_bytes(data[place + 32 : place + 34], "big")
    return _Info(stated_end, end if checksum else 0, checksum)


def _was_amplified(data: _Bytes, lame: int) -> bool:
    """Whether mp3gain went over the frames, which leaves their checksum as it was."""
    ends = data[:_NEAR] + data[max(0, len(data) - _NEAR) :]
    return data[lame + 25 : lame + 26] != b"\0" or b"MP3GAIN" in ends.upper()
