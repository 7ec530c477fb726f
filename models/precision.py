"""Encoder precisions: the name that an option or a manifest gives in, one row with all that is decided by it out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PrecisionName = Literal["fp32", "fp16", "int8", "int4"]


@dataclass(frozen=True)
class Precision:
    """How the graphs of the encoders keep their weights and multiply."""

    name: PrecisionName
    """As `--encoders` and the manifest have it; the exporter chooses a graph's writer by it."""
    weight_bytes: float
    """Of a weight in a linear layer."""
    other_bytes: int
    """Of any other weight."""
    integer: bool
    """Quantized: the graph is made from one of fp32, and its products are onnxruntime's integer ones, for the CPU."""
    tolerance: float
    """Relative rms of a stage against the torch reference; the last stage gets the errors of those before it too."""
    self_check_tolerance: float
    """The same for the same graphs on another machine. In int8 a float's last bit turns roundings here and there, and
    what follows from them: the demo's Whisper is 1.6 to 2.6 % off on aarch64, and under another onnxruntime."""
    budget: float = 0.0
    """Relative rms that quantizing one graph may add; layers that cost more stay in float, or at 8 bits in int4."""


_ROWS = (
    Precision("fp32", 4, 4, integer=False, tolerance=1e-3, self_check_tolerance=1e-3),
    Precision("fp16", 2, 2, integer=False, tolerance=2e-2, self_check_tolerance=1e-2),
    Precision("int8", 1, 4, integer=True, tolerance=0.15, self_check_tolerance=4e-2, budget=0.1),
    # 32 weights share a float scale and half a byte of zero
    Precision("int4", (16 + 4 + 0.5) / 32, 4, integer=True, tolerance=0.3, self_check_tolerance=4e-2, budget=0.2),
)
PRECISIONS: dict[str, Precision] = {row.name: row for row in _ROWS}
"""Every precision of the encoders by its name, most precise first."""
DEFAULT_PRECISION: PrecisionName = "int8"
