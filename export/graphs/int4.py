"""int4 graphs for the CPU: int8 graphs, of whose linear layers all that bear it have weights of 4 bits.

    x ─► MatMulNBits(4-bit weights, a scale and a zero for each 32 of a column, bias) ─► y

onnxruntime rounds, packs and multiplies; at accuracy level 4 it quantizes x by blocks as it comes and multiplies
integers. Small rather than fast: on x86, with as many rows as an encoder has, such a product takes three times as long
as one of int8.py's.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from ...models.errors import RunError
from ..progress import Report, no_report
from .attention import find_attention, rewrite_attention, separate_heads
from .builder import DOMAIN
from .int8 import Errors, Quantized, int8_weights, meet_budget, rank, use_integers
from .linear_layers import Floats, Layer, Named, channel_error, linear_layers, replace_products, write_tensors
from .onnx_graph import Arrays, read_model
from .patterns import Attention

BITS = 4
BLOCK = 32  # weights of a column that share a scale and a zero; also the narrowest layer that is quantized
ACCURACY = 4  # x in 8 bits, by blocks; level 1 is float, as accurate here and slower
_ROWS = 256  # of a layer's input are looked at


def to_int4(
    path_in: Path, path_out: Path, feeds: Sequence[Arrays], budget: float, report: Report = no_report
) -> Quantized:
    """Write an int4 copy that differs from the float graph by at most `budget` (relative rms, worst feed).

    Each layer's own error is measured on `feeds` (real features); the worst are left at 8 bits until the budget is met.
    Raises RunError when it cannot be met with at least one layer in 4 bits.
    """
    layers = _layers(read_model(path_in, weights=False), path_in)
    ranked = rank(path_in, feeds, layers, _errors, report)
    found = meet_budget(path_in, path_out, feeds, budget, tuple(ranked), partial(write_int4, path_in), report)
    if found is None:
        raise RunError(f"{path_in.name} cannot be int4 within a relative error of {budget}: export it as int8")
    return found


def write_int4(path_in: Path, path_out: Path, eight_bits: Collection[str] = ()) -> None:
    """Write a copy whose linear layers have 4 bits, or 8 where named; attention is as in int8.

    Raises RunError when there is no linear layer to quantize.
    """
    model = read_model(path_in, weights=False)
    place = path_in.parent
    layers = _layers(model, path_in)
    eight = {name: layer for name, layer in layers.items() if name in eight_bits}
    four = {name: layer for name, layer in layers.items() if name not in eight_bits}
    rewrite_attention(model, (), find_attention(model).values(), place)
    separate_heads(model)
    use_integers(model, eight)
    replace_products(model, four, lambda *parts: [_product(*parts)])
    n_bytes = sum(math.prod(layer.weight.dims) for layer in eight.values())
    n_bytes += sum(math.prod(layer.weight.dims) // 2 for layer in four.values())
    write_tensors(model, n_bytes, chain(int8_weights(eight, place), _weights(four, place)), place, path_out)


def round_weight(weight: Floats) -> tuple[NDArray[np.uint8], Floats, NDArray[np.uint8]]:
    """float32 [in, out] as onnxruntime rounds it: values [out, blocks, BLOCK / 2], scales [out, blocks], zeros."""
    library = _quantizer()
    config = library.DefaultWeightOnlyQuantConfig(block_size=BLOCK, is_symmetric=False, bits=BITS)
    packed, scales, zeros = library.DefaultWeightOnlyQuantizer(config).qbits_block_quant(weight)
    return packed, scales, zeros


def rounded_weight(weight: Floats) -> Floats:
    """float32 [in, out] as 4 bits have it."""
    packed, scales, zeros = round_weight(weight)
    levels, zero = (np.stack([x & 15, x >> 4], axis=-1).astype(np.float32) for x in (packed, zeros))
    n_out, n_blocks = scales.shape
    centred = levels.reshape(n_out, n_blocks, BLOCK) - zero.reshape(n_out, -1)[:, :n_blocks, np.newaxis]
    return (centred * scales[..., np.newaxis]).reshape(n_out, -1).T[: len(weight)]


@cache
def _quantizer() -> Any:
    """onnxruntime's module, without the log handler that it gives the whole process when it is imported."""
    root = logging.getLogger()
    handlers = list(root.handlers)
    level = root.level
    from onnxruntime.quantization import matmul_nbits_quantizer

    root.handlers[:] = handlers
    root.setLevel(level)
    return matmul_nbits_quantizer


def _layers(model: onnx.ModelProto, path: Path) -> dict[str, Layer]:
    found = {name: layer for name, layer in linear_layers(model).items() if min(layer.weight.dims) >= BLOCK}
    if not found:
        raise RunError(f"{path.name} has no linear layer to quantize")
    return found


def _errors(layer: Layer | Attention, seen: Mapping[str, Floats], directory: Path) -> Errors:
    assert isinstance(layer, Layer)
    rows = seen[layer.source].reshape(-1, layer.weight.dims[0])
    rows = rows[:: max(1, len(rows) // _ROWS)]
    weight = layer.values(directory)
    return (channel_error(rows @ rounded_weight(weight), rows @ weight),)


def _product(layer: Layer, bias: str, output: str) -> onnx.NodeProto:
    n_in, n_out = layer.weight.dims
    inputs = [layer.source, *_names(layer), "", bias]
    sizes: dict[str, Any] = {"K": n_in, "N": n_out, "bits": BITS, "block_size": BLOCK, "accuracy_level": ACCURACY}
    return helper.make_node("MatMulNBits", inputs if bias else inputs[:4], [output], layer.name, domain=DOMAIN, **sizes)


def _weights(layers: Mapping[str, Layer], directory: Path) -> Named:
    for layer in layers.values():
        yield from zip(_names(layer), round_weight(layer.values(directory)), strict=True)


def _names(layer: Layer) -> tuple[str, str, str]:
    return f"{layer.name}/bits", f"{layer.name}/scales", f"{layer.name}/zeros"
