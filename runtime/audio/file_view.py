"""File view: pieces of a file and bytes to put in their place -> a readable file without what would mislead FFmpeg."""

from __future__ import annotations

import io
import itertools
import os
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class FileView(io.RawIOBase):
    """Pieces [first, end) of a file, one behind the other; replaced: bytes by their place in the view."""

    def __init__(
        self, path: Path, pieces: Sequence[tuple[int, int]], replaced: Mapping[int, bytes] | None = None
    ) -> None:
        self.name = str(path)
        self._file = path.open("rb")
        self._pieces = [piece for piece in pieces if piece[1] > piece[0]]
        self._starts = [0, *itertools.accumulate(end - start for start, end in self._pieces)]
        self._replaced = dict(replaced or {})
        self._at = 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """To a place in the view."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._starts[-1]}[whence]
        self._at = max(0, origin + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Up to the end of a piece."""
        number = bisect_right(self._starts, self._at) - 1
        if number >= len(self._pieces):
            return 0
        start, end = self._pieces[number]
        at = start + self._at - self._starts[number]
        self._file.seek(at)
        data = bytearray(self._file.read(min(len(buffer), end - at)))
        for place, content in self._replaced.items():
            for i, byte in enumerate(content, place - at):
                if 0 <= i < len(data):
                    data[i] = byte
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        """And the file."""
        if not self.closed:
            self._file.close()
        super().close()
