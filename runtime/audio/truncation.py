"""Truncation: a sound file -> how many bytes it promises and does not hold, where a copy was cut short.

FFmpeg plays what is there and says nothing, so the promise is read here: AVI lists, ISO media (mp4, m4a, mov) boxes,
the Matroska/WebM segment, ASF's data, VOC's blocks, SoX's samples, the last Ogg page; extent.py has the containers of
PCM, mpeg_audio.py mp3. A size that a live recorder left open (0 or all ones) promises nothing. Knows nothing about
codecs.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO

from .extent import sample_extent

_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_MATROSKA = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"
_CLUSTER = b"\x1f\x43\xb6\x75"
_MATROSKA_INFO = b"\x15\x49\xa9\x66"  # the element that holds TimestampScale and Duration; near the front
_MATROSKA_ELEMENTS = (  # with those that may stand in a Segment or a Cluster: SeekHead, Tracks ... SimpleBlock
    *(_MATROSKA, _SEGMENT, _CLUSTER, _MATROSKA_INFO, b"\x11\x4d\x9b\x74", b"\x16\x54\xae\x6b"),
    *(b"\x1c\x53\xbb\x6b", b"\x12\x54\xc3\x67", b"\x10\x43\xa7\x70", b"\x19\x41\xa4\x69", b"\x58\x54"),
    *(b"\xec", b"\xbf", b"\xe7", b"\xa7", b"\xab", b"\xa3", b"\xa0", b"\xaf"),
)
_MATROSKA_HEAD = 8192
_OPEN_SIZE = 0x7FFF_0000  # RIFF sizes from here up are what a recorder writes before it knows the length
_OGG_PAGE_MAX = 65_307
_OGG_LAST = 4  # the flag of a page that ends a stream
_SLACK = 192  # bytes: some writers count a header or a 128-byte tag that is not there
_MP4_BOXES = set(b"ftyp styp moov moof mdat mfra free skip wide uuid meta pdin sidx ssix prft emsg".split())


def missing_bytes(file: BinaryIO, n_bytes: int) -> int:
    """Bytes that the container's sizes promise beyond the end of the file; 0 when all are there.

    file: seekable, opened in binary mode; n_bytes: its size.
    """
    extent = sample_extent(file, n_bytes)
    if extent is not None:
        return beyond(extent.stated_end or 0, n_bytes)
    file.seek(0)
    head = file.read(24)
    for magic, offset, walk in _CONTAINERS:
        if head[offset : offset + len(magic)] == magic:
            file.seek(0)
            return beyond(walk(file, n_bytes), n_bytes)
    return 0


def beyond(end: int, n_bytes: int) -> int:
    """Bytes between a file's end and where its container states it; 0 for a few."""
    return end - n_bytes if end - n_bytes > _SLACK else 0


def ogg_is_open(file: BinaryIO, n_bytes: int) -> bool:
    """Whether an Ogg file's last page is not marked as the end of a stream; False for other files."""
    file.seek(0)
    if file.read(4) != b"OggS":
        return False
    page = _ogg_tail(file, n_bytes)
    return len(page) > 5 and not page[5] & _OGG_LAST


def flac_samples(file: BinaryIO) -> int:
    """Samples per channel that a FLAC's STREAMINFO promises; 0 when left open or this is no FLAC."""
    head = file.read(42)
    if len(head) < 42 or head[:4] != b"fLaC":
        return 0
    return int.from_bytes(head[18:26], "big") & 0xF_FFFF_FFFF


def matroska_seconds(file: BinaryIO) -> float:
    """Seconds that the header of a Matroska or WebM file promises; 0 when left open or this is none."""
    head = file.read(_MATROSKA_HEAD)
    info = head.find(_MATROSKA_INFO)
    if not head.startswith(_MATROSKA) or info < 0:
        return 0.0
    found = re.search(rb"\x44\x89(?:\x84(.{4})|\x88(.{8}))", head[info:], re.DOTALL)
    if found is None:
        return 0.0
    ticks: float = struct.unpack(">f" if found[1] else ">d", found[1] or found[2])[0]
    scale = re.search(rb"\x2a\xd7\xb1([\x81-\x84])(.{4})", head[info:], re.DOTALL)
    tick_ns = int.from_bytes(scale[2][: scale[1][0] & 7], "big") if scale else 1_000_000
    seconds = ticks * tick_ns / 1e9
    return seconds if 0 < seconds < math.inf else 0.0


def _avi_end(file: BinaryIO, n_bytes: int) -> int:
    """The end of the last RIFF list: an AVI above 1 GB is several, one behind the other."""
    at = 0
    while at + 12 <= n_bytes:
        file.seek(at)
        head = file.read(12)
        size = int.from_bytes(head[4:8], "little")
        if head[:4] != b"RIFF" or head[8:] not in (b"AVI ", b"AVIX"):
            return at
        if size == 0 or size >= _OPEN_SIZE:
            return 0
        at += 8 + size + size % 2
    return at


def _asf_end(file: BinaryIO, n_bytes: int) -> int:
    """The end of the Data object, which follows the Header object."""
    file.seek(16)
    at = int.from_bytes(file.read(8), "little")
    if at + 24 > n_bytes:
        return at if at < 1 << 62 else 0
    file.seek(at)
    head = file.read(24)
    if head[:16] != _ASF_DATA:
        return 0
    size = int.from_bytes(head[16:24], "little")
    return at + size if size < 1 << 62 else 0


def second_movie(file: BinaryIO, n_bytes: int) -> int | None:
    """Where another mp4, m4a or mov file begins behind the first: FFmpeg knows one index; None: nowhere."""
    file.seek(4)
    if file.read(4) != b"ftyp":
        return None
    n_indices = 0
    begun = 0
    for name, at, _end in _mp4_boxes(file, n_bytes):
        n_indices += name == b"moov"
        begun = at if name == b"ftyp" else begun
        if n_indices == 2:
            return begun or at
    return None


def _mp4_end(file: BinaryIO, n_bytes: int) -> int:
    """The end of the last top-level box; 0 where one is open or unknown."""
    end = 0
    for name, _at, end in _mp4_boxes(file, n_bytes):
        if end == 0 or name not in _MP4_BOXES:
            return 0
    return end


def _voc_end(file: BinaryIO, n_bytes: int) -> int:
    """The end of the last block; a block of type 0 has no size and is the last."""
    file.seek(20)
    at = int.from_bytes(file.read(2), "little")
    while at + 4 <= n_bytes:
        file.seek(at)
        block = file.read(4)
        if block[0] == 0:
            return at + 1
        at += 4 + int.from_bytes(block[1:], "little")
    return at


def _sox_end(file: BinaryIO, _n_bytes: int) -> int:
    """The end of the samples, four bytes each; none are stated by a writer that did not know."""
    file.seek(4)
    header_bytes, n_samples = struct.unpack("<IQ", file.read(12).ljust(12, b"\0"))
    return 4 + header_bytes + 4 * n_samples


def _mp4_boxes(file: BinaryIO, n_bytes: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, beginning and end of each top-level box; an end of 0, of the last: that of the file."""
    at = 0
    while at + 8 <= n_bytes:
        file.seek(at)
        head = file.read(16)
        size = int.from_bytes(head[:4], "big")
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        end = at + max(size, 8) if size else 0
        yield head[4:8], at, end
        if size == 0:
            return
        at = end


def _matroska_end(file: BinaryIO, n_bytes: int) -> int:
    """The end of the Segment; where a live recorder left its size open, of the last element in it."""
    at = 0
    while at < n_bytes:
        file.seek(at)
        head = file.read(12)
        id_bytes = 9 - head[0].bit_length()
        element = head[:id_bytes]
        first = head[id_bytes] if len(head) > id_bytes else 0
        if first == 0 or element not in _MATROSKA_ELEMENTS:
            return 0
        width = 9 - first.bit_length()
        if len(head) < id_bytes + width:
            return at + id_bytes + width
        size = int.from_bytes(head[id_bytes : id_bytes + width], "big") - (1 << (7 * width))
        at += id_bytes + width
        if size == (1 << (7 * width)) - 1:  # open
            if element not in (_SEGMENT, _CLUSTER):
                return 0
            continue
        at += size
        if element == _SEGMENT:
            return at
    return at


def _ogg_end(file: BinaryIO, n_bytes: int) -> int:
    """The end of the last page that begins in the file."""
    tail = _ogg_tail(file, n_bytes)
    if not tail:
        return 0
    n_segments = tail[26] if len(tail) > 26 else 0
    return n_bytes - len(tail) + 27 + n_segments + sum(tail[27 : 27 + n_segments])


def _ogg_tail(file: BinaryIO, n_bytes: int) -> bytes:
    """The last page of an Ogg file and what follows it."""
    file.seek(max(0, n_bytes - 2 * _OGG_PAGE_MAX))
    tail = file.read()
    at = tail.rfind(b"OggS")
    return tail[at:] if at >= 0 else b""


_CONTAINERS: tuple[tuple[bytes, int, Callable[[BinaryIO, int], int]], ...] = (
    (b"AVI ", 8, _avi_end),
    (_ASF, 0, _asf_end),
    (b"ftyp", 4, _mp4_end),
    (_MATROSKA, 0, _matroska_end),
    (b"OggS", 0, _ogg_end),
    (b"Creative Voice File", 0, _voc_end),
    (b".SoX", 0, _sox_end),
)
