"""Families by name: a bundle -> its encoders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...models.families.salm import FAMILY as SALM
from ...models.families.salmonn import FAMILY as SALMONN
from ..encoders.base import Encoders
from ..system.ort import Session
from .salm import SalmEncoders
from .salmonn import SalmonnEncoders

ENCODERS: dict[str, Callable[[Mapping[str, Session], Any, Path], Encoders]] = {
    SALMONN: SalmonnEncoders,
    SALM: SalmEncoders,
}
"""By family, with its spec and the bundle's directory."""
