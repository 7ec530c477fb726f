"""Random weights by the gigabyte: a pool of random items -> pieces cut at random places.

For bundles that measure speed, which does not depend on what the weights are. Their spread is that of a freshly
initialised model, so that activations neither explode nor vanish. Quantized blocks are made as they lie in a file
(ggml-common.h): random quants, scales that give the spread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import IQ4_NL
from numpy.typing import NDArray

SPREAD = 0.02  # standard deviation of every weight
POOL_BYTES = 16 << 20
_UNIFORM = 12**-0.5  # standard deviation of n equally likely whole numbers is n times this, nearly


class Pool:
    """Rows of random weights, as bytes, that are never used up."""

    def __init__(self, rows: NDArray[Any], rng: np.random.Generator) -> None:
        self._rows = rows
        self._rng = rng

    def take(self, n: int) -> Iterator[NDArray[Any]]:
        """n rows, in pieces no larger than the pool, each from a place of its own."""
        while n > 0:
            start = int(self._rng.integers(len(self._rows)))
            piece = self._rows[start : start + n]
            n -= len(piece)
            yield piece


def float_pool(dtype: type[np.float16] | type[np.float32], rng: np.random.Generator) -> Pool:
    """Normally distributed numbers, one to a row."""
    n = POOL_BYTES // np.dtype(dtype).itemsize
    return Pool((rng.standard_normal(n, np.float32) * np.float32(SPREAD)).astype(dtype), rng)


def weight_pool(kind: GGMLQuantizationType, rng: np.random.Generator) -> Pool:
    """A row is a block of this type; a float is a block of one weight."""
    floats = {GGMLQuantizationType.F32: np.float32, GGMLQuantizationType.F16: np.float16}
    return float_pool(floats[kind], rng) if kind in floats else block_pool(kind, rng)


def block_pool(kind: GGMLQuantizationType, rng: np.random.Generator) -> Pool:
    """Blocks of one quantized type, one to a row: uint8 [n, bytes per block]."""
    n_bytes = GGML_QUANT_SIZES[kind][1]
    blocks = rng.integers(0, 256, (POOL_BYTES // n_bytes, n_bytes), np.uint8)
    _FILL[kind](blocks, rng.uniform(0.8, 1.2, len(blocks)) * SPREAD)
    return Pool(blocks, rng)


def _q8_0(blocks: NDArray[np.uint8], spread: NDArray[np.float64]) -> None:
    """w = d q, q in -128..127."""
    blocks[:, :2] = _half(spread / (256 * _UNIFORM))


def _q4_0(blocks: NDArray[np.uint8], spread: NDArray[np.float64]) -> None:
    """w = d (q - 8), q in 0..15."""
    blocks[:, :2] = _half(spread / (16 * _UNIFORM))


def _q4_1(blocks: NDArray[np.uint8], spread: NDArray[np.float64]) -> None:
    """w = d q + m, q in 0..15."""
    d = spread / (16 * _UNIFORM)
    blocks[:, :2] = _half(d)
    blocks[:, 2:4] = _half(-7.5 * d)


def _q6_k(blocks: NDArray[np.uint8], spread: NDArray[np.float64]) -> None:
    """w = d s (q - 32), q in 0..63; 16 scales of 8 bits, then d at the block's end."""
    scale = 8
    blocks[:, -18:-2] = scale
    blocks[:, -2:] = _half(spread / (64 * _UNIFORM * scale))


def _q4_k(blocks: NDArray[np.uint8], spread: NDArray[np.float64]) -> None:
    _scales_and_minima(blocks, spread, 16)


def _q5_k(blocks: NDArray[np.uint8], spread: NDArray[np.float64]) -> None:
    _scales_and_minima(blocks, spread, 32)


def _scales_and_minima(blocks: NDArray[np.uint8], spread: NDArray[np.float64], n_levels: int) -> None:
    """w = d s q - dmin m, q in 0..n_levels-1; every s and m is 16, which 12 bytes say in 6 bits each."""
    scale = 16
    d = spread / (n_levels * _UNIFORM * scale)
    blocks[:, :2] = _half(d)
    blocks[:, 2:4] = _half(d * (n_levels - 1) / 2)  # the mean becomes 0
    blocks[:, 4:12] = scale | (scale >> 4) << 6
    blocks[:, 12:16] = (scale & 15) | (scale & 15) << 4


def _q3_k(blocks: NDArray[np.uint8], spread: NDArray[np.float64]) -> None:
    """w = d (s - 32) (q - 4), q in 0..7; d at the block's end. Scales are 8 and -8 in turns: the mean becomes 0."""
    blocks[:, 96:104] = 0x88  # the low 4 bits of s, 40 and 24 in fours
    blocks[:, 104:108] = 0b01_10_01_10
    blocks[:, -2:] = _half(spread / (8 * _UNIFORM * 8))


def _iq4_xs(blocks: NDArray[np.uint8], spread: NDArray[np.float64]) -> None:
    """w = d (s - 32) times one of 16 values; scales as in q3_k."""
    blocks[:, :2] = _half(spread / (float(np.std(IQ4_NL.kvalues)) * 8))
    blocks[:, 2:4] = 0b01_10_01_10
    blocks[:, 4:8] = 0x88


def _half(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    return values.astype("<f2").view(np.uint8).reshape(-1, 2)


_FILL = {
    GGMLQuantizationType.Q8_0: _q8_0,
    GGMLQuantizationType.Q4_0: _q4_0,
    GGMLQuantizationType.Q4_1: _q4_1,
    GGMLQuantizationType.IQ4_XS: _iq4_xs,
    GGMLQuantizationType.Q3_K: _q3_k,
    GGMLQuantizationType.Q4_K: _q4_k,
    GGMLQuantizationType.Q5_K: _q5_k,
    GGMLQuantizationType.Q6_K: _q6_k,
}
