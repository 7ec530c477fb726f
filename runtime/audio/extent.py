"""Extent: a PCM container's header and what lies behind its samples -> where the samples begin and end.

    header | samples, as many bytes as the header states | chunks: LIST, id3, bext ...      a healthy file
    header | samples, so many bytes | samples ------------------------------------- end      a size that wrapped at 4 GB

RIFF, RF64, BW64, W64, AIFF, AIFC, CAF and AU. FFmpeg obeys the size in silence, so whoever opens a file looks
here first. Knows nothing about codecs; reads headers and the last MiB, whatever the file's length.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Literal

_TAIL = 1 << 20  # bytes at the end of a file in which trailing chunks are looked for
_FILES = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM", b"caff", b".snd", b"riff\x2e\x91\xcf\x11")
_TAGS = (b"TAG", b"ID3", b"APETAGEX")  # appended by taggers that know no chunks
_W64_KIND = bytes.fromhex("f3acd3118cd100c04f8edb8a")  # every W64 chunk's id ends so, but the first one's
_AIFC_BYTES = {b"ulaw": 1, b"ULAW": 1, b"alaw": 1, b"ALAW": 1}


@dataclass(frozen=True)
class Extent:
    """Where a file's samples lie: bytes from its beginning."""

    start: int
    end: int
    """Of what is there, whole frames."""
    stated_end: int | None
    """As the header has it; None: left open, as a live recorder does."""
    true_sizes: Mapping[int, bytes] | None
    """What stands where in a header that tells the truth; None: it has no room for that."""
    joined: bool = False
    """Another file, or its samples, begin behind the samples."""


@dataclass(frozen=True)
class _Layout:
    """How a container writes its chunks."""

    order: Literal["<", ">"]
    id_bytes: int
    size_code: Literal["I", "Q", "q"]
    first: int  # where the first chunk begins
    data: bytes  # the id of the chunk that holds the samples
    format: bytes  # and of the one that says what a sample is
    known: bytes  # a pattern of ids that stand behind the samples
    align: int = 1
    whole: bool = False  # a size counts the chunk's own header
    prefix: int = 0  # bytes between the data chunk's header and the first sample

    @property
    def header(self) -> int:
        return self.id_bytes + struct.calcsize(self.size_code)


@dataclass(frozen=True)
class _Chunk:
    id: bytes
    size_at: int
    start: int  # of its body
    size: int  # of its body, as it is stated

    @property
    def end(self) -> int:
        return self.start + self.size


_RIFF_IDS = rb"LIST|id3 |ID3 |bext|cue |smpl|inst|fact|PEAK|iXML|_PMX|JUNK|junk|PAD |FLLR|axml|chna|acid|levl|umid|DISP"
_AIFF_IDS = rb"COMM|NAME|AUTH|\(c\) |ANNO|COMT|MARK|INST|MIDI|AESD|APPL|SAXL|ID3 |id3 |FVER|CHAN|PEAK"
_CAF_IDS = rb"info|chan|pakt|mark|regn|inst|midi|ovvw|peak|edct|umid|uuid|free|strg|kuki"
_RIFF = _Layout("<", 4, "I", 12, b"data", b"fmt ", _RIFF_IDS, align=2)
_AIFF = _Layout(">", 4, "I", 12, b"SSND", b"COMM", _AIFF_IDS, align=2, prefix=8)
_CAF = _Layout(">", 4, "q", 8, b"data", b"desc", _CAF_IDS, prefix=4)
_W64 = _Layout(
    "<", 16, "Q", 40, b"data" + _W64_KIND, b"fmt " + _W64_KIND, b"...." + re.escape(_W64_KIND), align=8, whole=True
)


def sample_extent(file: BinaryIO, n_bytes: int) -> Extent | None:
    """Where the samples lie; None for another container, or a header that breaks off before them.

    file: seekable, opened in binary mode; n_bytes: its size.
    """
    file.seek(0)
    head = file.read(40)
    if head[:4] == b".snd" and len(head) >= 24:
        return _au_extent(file, n_bytes, head)
    layout = _layout(head)
    if layout is None:
        return None
    return _chunk_extent(file, n_bytes, layout, rf64=head[:4] in (b"RF64", b"BW64"))


def _layout(head: bytes) -> _Layout | None:
    magic = head[:4]
    if magic in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return _RIFF
    if magic == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return _AIFF
    if magic == b"caff":
        return _CAF
    return _W64 if magic == b"riff" and head[24:40] == b"wave" + _W64_KIND else None


def _chunk_extent(file: BinaryIO, n_bytes: int, layout: _Layout, rf64: bool) -> Extent | None:
    frame = 1
    long: _Chunk | None = None
    for chunk in _chunks(file, layout, layout.first, n_bytes):
        if chunk.id == b"ds64" and rf64:
            long = _ds64(file, chunk)
        elif chunk.id == layout.format:
            frame = _frame_bytes(file, layout, chunk)
        elif chunk.id == layout.data:
            start = chunk.start + layout.prefix
            size = (long or chunk).size - layout.prefix
            n_stated = None if _is_open(size, start, n_bytes) else size
            end, joined = _end(file, n_bytes, layout, start, n_stated, frame)
            true_sizes = _true_sizes(layout, long or chunk, end - chunk.start, end)
            return Extent(start, end, None if n_stated is None else start + n_stated, true_sizes, joined)
    return None


def _au_extent(file: BinaryIO, n_bytes: int, head: bytes) -> Extent:
    start, size, encoding, _rate, channels = struct.unpack(">5I", head[4:24])
    frame = max(1, channels) * {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}.get(encoding, 1)
    n_stated = None if _is_open(size, start, n_bytes) else size
    end, joined = _end(file, n_bytes, None, start, n_stated, frame)
    return Extent(start, end, None if n_stated is None else start + n_stated, {8: b"\xff\xff\xff\xff"}, joined)


def _chunks(file: BinaryIO, layout: _Layout, at: int, n_bytes: int) -> Iterator[_Chunk]:
    """From a place on, as far as the sizes lead; the last may reach beyond the end."""
    while at + layout.header <= n_bytes:
        file.seek(at)
        name, size = struct.unpack(f"{layout.order}{layout.id_bytes}s{layout.size_code}", file.read(layout.header))
        chunk = _Chunk(name, at + layout.id_bytes, at + layout.header, size - layout.header if layout.whole else size)
        yield chunk
        if chunk.size < 0:
            return
        at = chunk.end + -chunk.size % layout.align


def _ds64(file: BinaryIO, chunk: _Chunk) -> _Chunk:
    """RF64's size of the data chunk, in 64 bits. Source: EBU Tech 3306."""
    file.seek(chunk.start + 8)
    return _Chunk(b"data", chunk.start + 8, 0, int.from_bytes(file.read(8), "little"))


def _frame_bytes(file: BinaryIO, layout: _Layout, chunk: _Chunk) -> int:
    """Bytes of one sample of all channels; 1 where the codec has none."""
    file.seek(chunk.start)
    body = file.read(32).ljust(32, b"\0")
    if layout is _CAF:
        return max(1, int.from_bytes(body[16:20], "big"))
    if layout is _AIFF:
        channels, _, bits = struct.unpack(">HIH", body[:8])
        return max(1, channels * _AIFC_BYTES.get(body[18:22], (bits + 7) // 8))
    return max(1, int.from_bytes(body[12:14], "big" if layout.order == ">" else "little"))


def _is_open(size: int, start: int, n_bytes: int) -> bool:
    """Whether a size is one that a live recorder leaves: none, all ones, or the most that a signed number holds."""
    beyond = start + size > n_bytes
    marks = 0x7EFF_0000 <= size <= 0x8000_FFFF or 0xFFFF_0000 <= size <= 0xFFFF_FFFF
    return size <= 0 or size >= 1 << 62 or (beyond and marks)


def _end(
    file: BinaryIO, n_bytes: int, layout: _Layout | None, start: int, n_stated: int | None, frame: int
) -> tuple[int, bool]:
    """Where the samples end, and whether another file begins behind them."""
    end = start + (n_stated or 0)
    if end >= n_bytes:
        return n_bytes, False
    pad = -end % layout.align if layout else 0
    torn = -(end - start) % frame
    if torn <= pad:  # the stated size ends inside a sample, so what would be padding is the sample's rest
        end = end + torn
        pad = pad - torn
    file.seek(end)
    padded = pad > 0 and (pad < frame or not any(file.read(pad)))
    for at in (end, end + pad) if padded else (end,):
        behind = _behind(file, n_bytes, layout, at)
        if behind != "sound":
            return end, behind == "file"
    tail = _tail(file, n_bytes, layout, end)
    if layout and (tail < n_bytes or frame < layout.align == 2):
        return _unpadded(file, layout, start, tail, frame), False
    return tail - (tail - start) % frame, False


def _unpadded(file: BinaryIO, layout: _Layout, start: int, tail: int, frame: int) -> int:
    """Where the samples before a chunk or the end end, in whole frames: zeros that align what follows are none."""
    first = max(start, tail - layout.align + 1)
    file.seek(first)
    zeros = len(padding := file.read(tail - first)) - len(padding.rstrip(b"\0"))
    for at in range(tail - zeros, tail):
        if (at - start) % frame == 0 and at + -at % layout.align == tail:
            return at
    return tail - (tail - start) % frame


def _behind(file: BinaryIO, n_bytes: int, layout: _Layout | None, at: int) -> Literal["chunks", "file", "sound"]:
    """What lies between a place and the end. A chunk of a known name may be cut short."""
    file.seek(at)
    head = file.read(12)
    if not head or head.startswith(_TAGS):
        return "chunks"
    if layout is None:
        return "file" if head.startswith(_FILES) else "sound"
    trusted = False
    for chunk in _chunks(file, layout, at, n_bytes):
        if chunk.id.startswith(_FILES) or chunk.id == layout.data:
            return "file"
        known = re.fullmatch(layout.known, chunk.id, re.DOTALL) is not None
        trusted = trusted or known
        if chunk.size < 0 or not (known or all(0x20 <= byte < 0x7F for byte in chunk.id)):
            return "chunks" if trusted else "sound"
        at = chunk.end
        if at >= n_bytes:
            return "chunks" if trusted or at == n_bytes else "sound"
    return "chunks" if trusted or at < n_bytes <= at + -at % layout.align else "sound"


def _tail(file: BinaryIO, n_bytes: int, layout: _Layout | None, least: int) -> int:
    """Where the chunks or the tag at the end of the file begin, or its end."""
    start = max(least, n_bytes - _TAIL)
    file.seek(start)
    tail = file.read(n_bytes - start)
    if tail[-128:].startswith(b"TAG"):
        return n_bytes - 128
    for found in re.finditer(layout.known, tail, re.DOTALL) if layout else ():
        at = start + found.start()
        ends = [chunk.end for chunk in _chunks(file, layout, at, n_bytes)] if layout else []
        if ends and n_bytes - ends[-1] in (0, 1):  # 1: padding
            return at
    return n_bytes


def _true_sizes(layout: _Layout, stated: _Chunk, body: int, end: int) -> Mapping[int, bytes] | None:
    """The size of the data chunk's body, and that of the whole where FFmpeg reads no chunk beyond it."""
    if layout is _CAF:
        return {stated.size_at: struct.pack(">q", body)}
    if layout is _W64:
        return {16: struct.pack("<Q", end), stated.size_at: struct.pack("<Q", layout.header + body)}
    if layout is _AIFF:
        fits = end < 1 << 32
        return {4: struct.pack(">I", end - 8), stated.size_at: struct.pack(">I", body)} if fits else None
    if not stated.start:  # RF64's, in its ds64
        return {stated.size_at: struct.pack("<Q", body)}
    return {stated.size_at: b"\xff\xff\xff\xff"}  # to the end of the file
