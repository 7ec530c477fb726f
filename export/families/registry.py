"""The families that can be exported, by their subcommand. A new one is one more line here, and its options there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...models.bundle import Manifest
from ...models.families.salm import FAMILY as SALM
from ...models.families.salmonn import FAMILY as SALMONN
from ..options import ExportOptions
from ..progress import Report
from . import salm, salmonn


@dataclass(frozen=True)
class Exporter:
    """How one family is exported."""

    options: type[ExportOptions]
    export: Callable[[Any, Report], Manifest]
    """With those options."""
    files: tuple[str, ...]
    """The options that are files, or ids of models."""
    licences: tuple[str, ...]
    """Of the released model."""


FAMILIES = {
    SALMONN: Exporter(
        salmonn.SalmonnExport, salmonn.export_salmonn, ("whisper", "beats", "vicuna", "salmonn"), salmonn.LICENCES
    ),
    SALM: Exporter(salm.SalmExport, salm.export_salm, ("checkpoint", "qwen"), salm.LICENCES),
}
