"""4-bit blocks: what GPTQ finds, a scale for every 32 weights of a row -> GGUF's Q4_0 and Q4_1, bit for bit.

    Q4_0  w = d (q - 8)     d in float16, 16 bytes: q of weight i in the low half, of weight i + 16 in the high half
    Q4_1  w = d q + m       d and m in float16, the same bytes; m = -d z

Source: ggml/src/ggml-common.h, block_q4_0 and block_q4_1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray

from .gguf_writer import rotary_rows

GROUP = 32  # weights of a row with one scale: a GGUF block
LEVELS = 16
MIDDLE = 8  # the level that stands for 0 where no zero point is kept


@dataclass(frozen=True)
class FourBit:
    """One matrix [rows, n_in]."""

    quants: NDArray[np.uint8]
    """[rows, n_in], 0 to 15."""
    scales: NDArray[np.float16]
    """[rows, n_in / 32]."""
    zeros: NDArray[np.uint8] | None
    """[rows, n_in / 32], the level that stands for 0; None: MIDDLE everywhere."""

    @property
    def kind(self) -> Kind:
        """The GGUF type that holds it."""
        return Kind.Q4_0 if self.zeros is None else Kind.Q4_1

    def weights(self) -> NDArray[np.float32]:
        """[rows, n_in] as they were found, before any rounding of a minimum."""
        zeros = MIDDLE if self.zeros is None else self.zeros.astype(np.float32)[..., None]
        levels = self.quants.astype(np.float32).reshape(len(self.quants), -1, GROUP) - zeros
        return (self.scales.astype(np.float32)[..., None] * levels).reshape(self.quants.shape)

    def blocks(self) -> NDArray[np.uint8]:
        """[rows, bytes] as a GGUF file holds them."""
        levels = self.quants.reshape(len(self.quants), -1, 2, GROUP // 2)
        halves = [self.scales] if self.zeros is None else [self.scales, self._minimums().astype(np.float16)]
        header = np.stack(halves, axis=-1).astype("<f2").view(np.uint8)
        return np.concatenate([header, levels[:, :, 0] | levels[:, :, 1] << np.uint8(4)], axis=-1).reshape(
            len(levels), -1
        )

    def minimum_error(self) -> float:
        """How far float16 moves a group's minimum, in steps of that group, at worst; 0 for Q4_0, which has none."""
        if self.zeros is None:
            return 0.0
        exact = self._minimums()
        steps = np.abs(exact.astype(np.float16).astype(np.float32) - exact) / np.abs(self.scales.astype(np.float32))
        return float(steps.max(initial=0.0))

    def rotary(self, n_heads: int) -> FourBit:
        """The rows in llama.cpp's rotary order: gguf_file.rotary_rows."""
        zeros = None if self.zeros is None else rotary_rows(self.zeros, n_heads)
        return replace(
            self, quants=rotary_rows(self.quants, n_heads), scales=rotary_rows(self.scales, n_heads), zeros=zeros
        )

    def _minimums(self) -> NDArray[np.float32]:
        assert self.zeros is not None
        return -self.scales.astype(np.float32) * self.zeros
