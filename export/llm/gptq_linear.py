"""GPTQ of one linear: 4 bits in groups of 32, each column's rounding made good in the columns after it.

The solver is GPTQModel's `GPTQ`, the one that optimum.gptq drives too; optimum itself wants the whole model in memory
and token ids, where this project has one layer and audio tokens. Without activation order, so that a group's weights
lie side by side; groups of 32 with a float16 scale, so that GGUF's Q4_0 and Q4_1 hold the result unchanged.

Source: Frantar et al. 2023, arXiv:2210.17323; gptqmodel/quantization/gptq.py and quantizer.py.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Callable, Generator
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from ...models.errors import INSTALL_WHERE, InputError, RunError, install_command
from ..formats.q4_blocks import GROUP, LEVELS, MIDDLE, FourBit

DAMPING = 0.3  # of the mean square of the inputs, added to each: much less fits few recordings too closely
_DIVISORS = torch.arange(5.5, 9.25, 0.25)  # of a group's largest weight: the scales that are tried
_SMALLEST = 2.0**-24  # a scale must not vanish in float16


def require_gptq() -> None:
    """Raises InputError when GPTQModel is not installed, or does not load."""
    _library()


class Solver:
    """One linear, while it is told what it reads. Its weight is the rounded one after `solve`."""

    def __init__(self, linear: nn.Linear, symmetric: bool) -> None:
        library = _library()
        config = library.config(
            bits=4,
            group_size=GROUP,
            sym=symmetric,
            desc_act=False,
            act_group_aware=False,
            offload_to_disk=False,
            fallback=None,  # else it rounds to the nearest, without a word, what it cannot solve
        )
        self._linear = linear
        self._symmetric = symmetric
        with _quietly():
            self._gptq: Any = library.gptq(linear, qcfg=config)
            quantizer = self._gptq.quantizer
            find = _signed if symmetric else partial(_affine, quantizer.find_params)
            quantizer.find_params = partial(find, quantizer)
            quantizer.configure(bits=4, sym=symmetric, perchannel=True)

    def add(self, inputs: Tensor) -> None:
        """float32 [n, n_in]."""
        self._gptq.add_batch(inputs.unsqueeze(0), None)

    def solve(self) -> FourBit:
        """The levels and scales of the weight. Raises RunError when the inputs make no solvable system."""
        try:
            with _quietly():
                # Blocks of columns as wide as a group: a scale sees what earlier groups have added to its weights.
                found = self._gptq.fasterquant(GROUP, DAMPING, group_size=GROUP)
                self._gptq.free()
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except (ValueError, RuntimeError) as error:
            raise RunError(f"GPTQ found no solution ({error}): give --calibrate more recordings") from None
        if not isinstance(found[4], float):  # its loss
            raise RunError("GPTQ found no solution: give --calibrate more recordings")
        return _four_bit(self._linear.weight.detach(), found[0], found[1], self._symmetric)


def _four_bit(weight: Tensor, scales: Tensor, zeros: Tensor, symmetric: bool) -> FourBit:
    """The levels of weights that lie on them."""
    wide = [each.float().to(weight.device).repeat_interleave(GROUP, dim=1) for each in (scales, zeros)]
    levels = torch.round(weight / wide[0] + wide[1])
    off = (wide[0] * (levels - wide[1]) - weight).abs().max()
    if not (levels.min() >= 0 and levels.max() < LEVELS and off <= 1e-5 * weight.abs().max()):
        raise RunError("GPTQModel gave weights that are not on its own grid: install another version of it")
    return FourBit(
        levels.to(torch.uint8).cpu().numpy(),
        scales.half().cpu().numpy(),
        None if symmetric else zeros.to(torch.uint8).cpu().numpy(),
    )


@cache
def _library() -> SimpleNamespace:
    """GPTQModel's solver and its options. Raises InputError."""
    kept = dict(os.environ)
    try:
        with _quietly():
            from gptqmodel import QuantizeConfig  # pyright: ignore[reportMissingImports]
            from gptqmodel.quantization import GPTQ  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise InputError(
            f"GPTQ needs GPTQModel, which is not installed here ({error}): "
            f"{install_command('export,gptq')} {INSTALL_WHERE}"
        ) from None
    except Exception as error:  # it reaches deep into torch and transformers
        raise InputError(
            f"GPTQ needs GPTQModel, which does not load here ({error}): install the version that Auricle asks for"
        ) from None
    finally:
        os.environ.clear()
        os.environ.update(kept)  # its import sets some

    return SimpleNamespace(config=QuantizeConfig, gptq=GPTQ)


def _affine(find: Callable[..., object], quantizer: Any, x: Tensor, weight: bool = False) -> None:
    """GPTQModel's own scale and zero point, the scale in float16."""
    find(x, weight=weight)
    quantizer.scale = quantizer.scale.half().float().clamp(min=_SMALLEST)


def _signed(quantizer: Any, x: Tensor, weight: bool = False) -> None:
    quantizer.scale = best_scales(x.flatten(1))
    quantizer.zero = torch.full_like(quantizer.scale, MIDDLE)


def best_scales(groups: Tensor) -> Tensor:
    """Of groups [n, 32] the scales [n, 1] that round them with the least squared error to scale * (-8 to 7).

    Of either sign, for the levels reach one further below than above; float16 values in float32.
    """
    largest = groups.gather(1, groups.abs().argmax(1, keepdim=True))
    least = torch.full_like(largest, torch.inf)
    best = torch.ones_like(largest)
    for divisor in [*_DIVISORS.tolist(), *(-_DIVISORS).tolist()]:
        scale = (largest / divisor).half().float()
        scale = torch.where(scale.abs() < _SMALLEST, _SMALLEST, scale)
        levels = (groups / scale).round().clamp(-MIDDLE, LEVELS - 1 - MIDDLE)
        error = (scale * levels - groups).square().sum(1, keepdim=True)
        best = torch.where(error < least, scale, best)
        least = torch.minimum(error, least)
    return best


@contextlib.contextmanager
def _quietly() -> Generator[None]:
    """Its banner and its log would go to the terminal, through our progress bar."""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
