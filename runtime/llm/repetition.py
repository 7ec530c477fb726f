"""The repetition guard: an answer's ids in, how many of them come before it repeats itself out."""

from __future__ import annotations

from collections.abc import Sequence

MAX_PERIOD = 24  # tokens of what is repeated
MIN_COPIES = 4  # "seven seven seven" is speech
MIN_TOKENS = 18  # in all copies together


def sound_length(ids: Sequence[int]) -> int:
    """How many leading ids to keep: all, or up to the end of the first copy of what the end repeats.

    A loop is at least four copies in a row, and at least 18 tokens, of 1 to 24 tokens.
    """
    for period in range(1, MAX_PERIOD + 1):
        n_copies = max(MIN_COPIES, -(-MIN_TOKENS // period))
        if len(ids) < period * n_copies:
            continue
        unit = ids[len(ids) - period :]
        if all(ids[len(ids) - period * (n + 1) : len(ids) - period * n] == unit for n in range(1, n_copies)):
            return len(ids) - period * (n_copies - 1)
    return len(ids)
