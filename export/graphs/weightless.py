"""Modules without weights, so that a graph of any size can be built: a module -> the same on the meta device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from ...models.graph_io import GraphInfo
from .onnx_graph import Shape

SaveGraph = Callable[
    [nn.Module, Mapping[str, torch.Tensor], Mapping[str, Shape], Path, Mapping[str, Mapping[int, str]] | None],
    GraphInfo,
]
"""What an exporter writes its module with: `graph.save_graph`, or `RandomWeights`."""


M = TypeVar("M", bound=nn.Module)


SMALL = 4096  # weights; a smaller tensor has values of its own, and keeps them


def weightless(module: M) -> M:
    """Give a module that was made on the meta device weights that take no memory: small ones are real.

    Norms are near 1, the rest near 0, and no two weights equal, so that the exporter cannot leave anything out.
    """
    generator = torch.Generator().manual_seed(0)
    n = 0

    def weights(like: torch.Tensor, centre: float) -> torch.Tensor:
        nonlocal n
        n += 1
        if like.numel() > SMALL:
            return torch.full((1,) * like.ndim, 1e-4 * n).expand(like.shape)
        return centre + torch.randn(like.shape, generator=generator) * 0.02

    for owner in module.modules():
        centre = float(isinstance(owner, nn.LayerNorm))
        for name, parameter in list(owner.named_parameters(recurse=False)):
            value = weights(parameter, centre if name == "weight" else 0.0)
            owner.register_parameter(name, nn.Parameter(value, requires_grad=False))
        for name, buffer in list(owner.named_buffers(recurse=False)):
            if buffer.is_meta:  # a table that is computed has its numbers already
                owner.register_buffer(name, weights(buffer, 0.0))
    return module.eval()
