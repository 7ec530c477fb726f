"""Families by name, and the released models: what a manifest may say."""

from __future__ import annotations

from . import salm, salmonn
from .salm import RELEASED as SALMS
from .salm import SalmSpec
from .salmonn import RELEASED as SALMONNS
from .salmonn import SalmonnSpec

RELEASED: dict[str, FamilySpec] = {**SALMONNS, **SALMS}
"""Sizes of every released model."""


FamilySpec = SalmonnSpec | SalmSpec


FAMILIES: dict[str, type[FamilySpec]] = {salmonn.FAMILY: SalmonnSpec, salm.FAMILY: SalmSpec}
