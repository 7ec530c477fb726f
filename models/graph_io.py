"""Interface of a graph: names and shapes of what goes in and comes out. Every family's spec has its own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TensorInfo:
    """One float32 input or output of a graph; a word in the shape is a dynamic axis."""

    name: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class GraphInfo:
    """One ONNX file and its interface."""

    file: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


Profile = tuple[int, int, int]
"""Least, usual and most length of a dynamic axis."""
