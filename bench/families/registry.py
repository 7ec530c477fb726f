"""Families that the benches know, by the name in the manifest. A new one is one more line here."""

from __future__ import annotations

from ...models.families.registry import FAMILIES as SPECS
from ...models.families.registry import FamilySpec
from ...models.families.salm import FAMILY as SALM
from ...models.families.salmonn import FAMILY as SALMONN
from . import salm, salmonn
from .base import Family

FAMILIES: dict[str, Family] = {SALMONN: salmonn.DESCRIPTION, SALM: salm.DESCRIPTION}


def family_of(spec: FamilySpec) -> Family:
    """The description that goes with a spec."""
    return FAMILIES[next(name for name, kind in SPECS.items() if isinstance(spec, kind))]
