"""Detokenizer: token ids in as they come, text out: no half characters, no specials, no space before the first word."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable


class Detokenizer:
    """State of one text. As SentencePiece decodes: bytes that make no character become U+FFFD.

    piece: id -> its UTF-8 bytes with a space for every "▁"; a byte piece gives one byte, a special none.
    """

    def __init__(self, piece: Callable[[int], bytes]) -> None:
        self._piece = piece
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._started = False

    def add(self, token: int) -> str:
        """The text that this token completes; "" while a character waits for its other bytes."""
        data = self._piece(token)
        if data and not self._started:
            self._started = True
            data = data.removeprefix(b" ")  # the dummy prefix of the tokenizer, not a space of the text
        return self._decoder.decode(data)

    def finish(self) -> str:
        """What is left: U+FFFD when the last character lacks bytes, else ""."""
        return self._decoder.decode(b"", final=True)


def detokenize(ids: Iterable[int], piece: Callable[[int], bytes]) -> str:
    """The whole text of ids at once."""
    detokenizer = Detokenizer(piece)
    return "".join([*(detokenizer.add(token) for token in ids), detokenizer.finish()])
