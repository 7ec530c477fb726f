"""Ogg pages: an Ogg file -> where a page begins that is damaged.

FFmpeg passes over a page with a wrong checksum and says nothing. Source of the page's layout: RFC 3533.
"""

from __future__ import annotations

import zlib
from typing import BinaryIO

_MAGIC = b"OggS"
_HEADER = 27  # bytes, before the table of segments
_CHECKSUM = slice(22, 26)
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def damaged_page(file: BinaryIO, n_bytes: int) -> int | None:
    """Bytes before the first damaged page; None when all are whole, or this is no Ogg.

    Behind a last page anything may stand, such as a tag.
    """
    at = 0
    while at + _HEADER <= n_bytes:
        file.seek(at)
        header = file.read(_HEADER)
        if not header.startswith(_MAGIC):
            return at if at and _more_pages(file, at) else None
        table = file.read(header[26])
        body = file.read(sum(table))
        end = at + _HEADER + header[26] + sum(table)
        if end > n_bytes:
            return at
        stated = int.from_bytes(header[_CHECKSUM], "little")
        if page_checksum(header[:22] + bytes(4) + header[26:] + table + body) != stated:
            return at
        at = end
    return None


def page_checksum(page: bytes) -> int:
    """CRC-32 with the polynomial 0x04c11db7, from 0, neither reflected nor inverted: zlib's is both."""
    reflected = zlib.crc32(page.translate(_REVERSED), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return int(f"{reflected:032b}"[::-1], 2)


def _more_pages(file: BinaryIO, at: int) -> bool:
    """Whether pages follow behind what is none."""
    held = b""
    file.seek(at)
    while piece := file.read(1 << 20):
        held = held[-3:] + piece
        if _MAGIC in held:
            return True
    return False
