"""The families that the benches know, by the name in the manifest. A new one is one more line here."""

from __future__ import annotations

from ..models.bundle import FAMILIES as SPECS
from ..models.bundle import FamilySpec
from ..models.salm import FAMILY as SALM
from ..models.salm import RELEASED as SALMS
from ..models.salmonn import FAMILY as SALMONN
from ..models.salmonn import RELEASED as SALMONNS
from . import salm, salmonn
from .family import Family

FAMILIES: dict[str, Family] = {SALMONN: salmonn.DESCRIPTION, SALM: salm.DESCRIPTION}
RELEASED: dict[str, FamilySpec] = {**SALMONNS, **SALMS}
"""Sizes of every released model."""


def family_of(spec: FamilySpec) -> Family:
    """The description that goes with a spec."""
    return FAMILIES[next(name for name, kind in SPECS.items() if isinstance(spec, kind))]
