"""Families that can be exported, by their subcommand. A new one is one more line here, and its options there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...models.families.salm import FAMILY as SALM
from ...models.families.salmonn import FAMILY as SALMONN
from ..family import Family
from ..options import ExportOptions
from . import salm, salmonn


@dataclass(frozen=True)
class Exporter:
    """How one family is exported."""

    options: type[ExportOptions]
    open: Callable[[Any], Family]
    """Reads the checkpoints with those options. Raises CheckpointError."""
    licences: tuple[str, ...]
    """Of the released model."""


FAMILIES = {
    SALMONN: Exporter(salmonn.SalmonnExport, salmonn.open_family, salmonn.LICENCES),
    SALM: Exporter(salm.SalmExport, salm.open_family, salm.LICENCES),
}
