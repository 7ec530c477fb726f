"""Alignment: the attention scores of a text's tokens -> when each token begins, by dynamic time warping.

Source: openai/whisper timing.py.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Floats = NDArray[np.float32]
MEDIAN_WIDTH = 7  # frames of 20 ms
_BOTH, _NEXT_ROW, _NEXT_COLUMN = range(3)


def token_frames(scores: Floats, n_prompt: int, n_frames: int) -> NDArray[np.int64]:
    """The frame at which each token begins and, behind them, that at which the last one ends: never falling.

    scores: [n_heads, n_prompt + n_tokens + 1, n_positions], before the softmax, of a prompt, a text and its end. A row
    shows what was looked at when the token behind it was foretold. n_frames: how many positions hold sound.
    """
    return first_columns(attention(scores[:, :, :n_frames])[n_prompt - 1 : -1])


def attention(scores: Floats) -> NDArray[np.float64]:
    """Normalized over the tokens, filtered along the sound, the mean of the heads: [n_tokens, n_frames]."""
    weights = scores.astype(np.float64)
    weights = np.exp(weights - weights.max(2, keepdims=True))
    weights /= weights.sum(2, keepdims=True)
    deviation = weights.std(1, keepdims=True)
    weights = (weights - weights.mean(1, keepdims=True)) / np.maximum(deviation, 1e-20)
    return _median(weights).mean(0)


def _median(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    side = MEDIAN_WIDTH // 2
    if weights.shape[2] <= side:
        return weights
    padded = np.pad(weights, ((0, 0), (0, 0), (side, side)), mode="reflect")
    return np.median(sliding_window_view(padded, MEDIAN_WIDTH, axis=2), axis=3)


def first_columns(matrix: NDArray[np.float64]) -> NDArray[np.int64]:
    """The column at which the best path from corner to corner enters each row: [n_rows].

    A step goes to the next row, the next column, or both: to both where that is best alone, and at a tie to the next
    column. One diagonal after another is computed, whose cells do not depend on each other.
    """
    n_rows, n_columns = matrix.shape
    cost = np.full((n_rows + 1, n_columns + 1), np.inf)
    cost[0, 0] = 0.0
    steps = np.full((n_rows + 1, n_columns + 1), _NEXT_COLUMN, np.int8)
    steps[1:, 0] = _NEXT_ROW
    for diagonal in range(2, n_rows + n_columns + 1):
        rows = np.arange(max(1, diagonal - n_columns), min(n_rows, diagonal - 1) + 1, dtype=np.int64)
        columns = diagonal - rows
        before = np.stack([cost[rows - 1, columns - 1], cost[rows - 1, columns], cost[rows, columns - 1]])
        both, next_row, next_column = before
        step = np.where((next_row < both) & (next_row < next_column), _NEXT_ROW, _NEXT_COLUMN)
        step = np.where((both < next_row) & (both < next_column), _BOTH, step)
        steps[rows, columns] = step
        cost[rows, columns] = before[step, np.arange(len(rows))] - matrix[rows - 1, columns - 1]
    return _backwards(steps)


def _backwards(steps: NDArray[np.int8]) -> NDArray[np.int64]:
    row, column = steps.shape[0] - 1, steps.shape[1] - 1
    first = np.zeros(row, np.int64)
    while row > 0:
        first[row - 1] = max(column - 1, 0)
        step = steps[row, column]
        row -= step != _NEXT_COLUMN
        column -= step != _NEXT_ROW
    return first
