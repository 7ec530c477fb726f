"""Filter bank: spectra -> the power in each band, as every front end computes it.

A few frames at a time. OpenBLAS, which numpy multiplies with, gives a larger product to a thread on every core, and
these spin for a tenth of a second when they are done: on two cores the graphs and the language model that come next
take half as long again. Frames this few stay on the thread that asks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ALONE = 1 << 18
"""Multiplications that OpenBLAS does not divide (its interface/gemm.c: 65,536 x GEMM_MULTITHREAD_THRESHOLD)."""


def band_power(spectrum: NDArray[np.complex128], filters: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n_frames, n_bins] and [n_bins, n_bands] -> [n_frames, n_bands]."""
    power = spectrum.real**2 + spectrum.imag**2
    n_together = max(1, ALONE // filters.size)
    n_blocks = len(power) // n_together
    n_in_blocks = n_blocks * n_together
    blocks = power[:n_in_blocks].reshape(n_blocks, n_together, power.shape[1]) @ filters
    return np.concatenate([blocks.reshape(n_in_blocks, filters.shape[1]), power[n_in_blocks:] @ filters])
