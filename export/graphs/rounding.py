"""Rounding of a linear layer's weights and inputs to 8 bits; and a graph -> the same with its weights rounded well.

Rounding each weight to the nearest step ignores what inputs have in common: an error in one input's weight can be made
good in those of inputs that go with it. That is GPTQ (Frantar et al., arXiv 2210.17323) with one scale per output.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..progress import Report, counter, no_report
from .linear_layers import Floats, Named, chunks, linear_layers, tap, write_tensors
from .onnx_graph import Arrays, read_model

LEVELS = 127.0  # weights are -127 to 127; on x86 without VNNI the runtime asks onnxruntime for exact sums
INPUT_LEVELS, MIDDLE = 255.0, 128  # of inputs, in uint8
SMALLEST_SCALE = 1e-12
MOST_INPUTS = 8192
"""Of a layer that is fitted to what it reads on feeds: of 20,000 (a lexicon's) most are not heard there, and who says
one later is rounded as if nobody did; their products alone take 1.6 GB and minutes."""
_DAMPING = 0.01  # of the mean square of inputs
_ZEROS = (128, 96, 64, 48, 32, 24, 16, 12, 8)
_BLOCK = 128  # inputs whose errors are handed on together


def quantize_weight(weight: Floats) -> tuple[NDArray[np.int8], Floats]:
    """int8 [in, out] and the scale of each column, float32 [out]."""
    scale = np.maximum(np.abs(weight).max(axis=0), 1e-30) / np.float32(LEVELS)
    return np.rint(weight / scale).astype(np.int8), scale.astype(np.float32)


def rounded_weight(weight: Floats) -> Floats:
    """float32 [in, out] in the steps that int8 has."""
    integers, scale = quantize_weight(weight)
    return integers * scale


def by_tensor(rows: Floats, low: float, high: float) -> Floats:
    """Inputs [n, in] as DynamicQuantizeLinear rounds them, when those of the whole tensor go from low to high."""
    low, high = min(low, 0.0), max(high, 0.0)
    step = max((high - low) / INPUT_LEVELS, 1e-30)
    zero = np.rint(-low / step)
    return (np.clip(np.rint(rows / step) + zero, 0, INPUT_LEVELS) - zero) * np.float32(step)


def by_row(rows: Floats, zero: int = MIDDLE) -> Floats:
    """Inputs [n, in] with a scale for each row, whose zero is this level of uint8."""
    step = _row_steps(rows, zero)
    return np.clip(np.rint(rows / step), -zero, INPUT_LEVELS - zero) * step


def best_zero(rows: Floats) -> int:
    """The level of zero that leaves rows [n, in] the finest steps: below MIDDLE where positive ones reach further."""
    span = np.maximum(rows.max(axis=1, keepdims=True) - rows.min(axis=1, keepdims=True), SMALLEST_SCALE)
    return min(_ZEROS, key=lambda zero: float(np.square(_row_steps(rows, zero) / span).mean()))


def _row_steps(rows: Floats, zero: int) -> Floats:
    high, low = rows.max(axis=1, keepdims=True), rows.min(axis=1, keepdims=True)
    return np.maximum(np.maximum(high / (INPUT_LEVELS - zero), -low / zero), SMALLEST_SCALE).astype(np.float32)


def round_weights(path_in: Path, path_out: Path, feeds: Sequence[Arrays], report: Report = no_report) -> None:
    """Write a float graph whose linear layers' weights are of int8's steps, chosen for what they read on the feeds.

    A layer of more than MOST_INPUTS stays as it is.
    """
    model = read_model(path_in, weights=False)
    layers = {name: each for name, each in linear_layers(model).items() if each.weight.dims[0] <= MOST_INPUTS}
    names = {layer.weight.name for layer in layers.values()}
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in names]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    n_bytes = sum(4 * math.prod(layer.weight.dims) for layer in layers.values())
    tick = counter(report, f"round {path_out.name.split('.')[0]}", len(feeds) + len(layers))

    def rounded() -> Named:
        done: set[str] = set()
        for chunk in chunks(layer.source for layer in layers.values()):
            products = dict[str, Tensor]()
            for feed in feeds:
                for name, values in tap(path_in, chunk, feed).items():
                    rows = torch.from_numpy(values.reshape(-1, values.shape[-1]))
                    products[name] = products.get(name, 0) + rows.T @ rows
            for layer in layers.values():
                if layer.source in products and layer.weight.name not in done:
                    done.add(layer.weight.name)
                    yield layer.weight.name, round_weight(layer.values(path_in.parent), products[layer.source])
                    tick(1)

    write_tensors(model, n_bytes, rounded(), path_in.parent, path_out)


def round_weight(weight: Floats, products: Tensor) -> Floats:
    """float32 [in, out] in int8's steps; products [in, in] are the inputs' sums of products, X^T X."""
    left = torch.from_numpy(weight.copy())
    scale = left.abs().amax(0).clamp(min=1e-30) / LEVELS
    largest = left.abs().argmax(0)
    onto = _factor(products)
    rounded = torch.zeros_like(left)
    for start in range(0, len(left), _BLOCK):
        end = min(start + _BLOCK, len(left))
        errors = torch.zeros(end - start, left.shape[1])
        for row in range(start, end):
            steps = (left[row] / scale).round().clamp(-LEVELS, LEVELS)
            # a column's largest weight keeps its level: whoever quantizes the result finds the same scale
            rounded[row] = torch.where(largest == row, LEVELS * left[row].sign(), steps) * scale
            errors[row - start] = (left[row] - rounded[row]) / onto[row, row]
            left[row + 1 : end] -= onto[row, row + 1 : end, None] * errors[row - start]
        left[end:] -= onto[start:end, end:].T @ errors
    return rounded.numpy()


def _factor(products: Tensor) -> Tensor:
    """Upper triangular: how an error of one input's weight is made good in those that follow."""
    damped = products.double()
    damped.diagonal().add_(_DAMPING * damped.diagonal().mean() + SMALLEST_SCALE)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    return torch.linalg.cholesky(inverse, upper=True).float()
