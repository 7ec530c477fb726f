"""Random JSON schemas of what grammars hold, and random values of the same few words."""

from __future__ import annotations

import json
import random
from typing import Any

from hypothesis import strategies as st

NAMES = ("a", "b", "ä", "a b", '"', "\\n", "\n", "😀", "")
LEAVES = st.none() | st.booleans() | st.integers(-12, 12) | st.just(0.5) | st.sampled_from(NAMES)
COUNTS = st.integers(0, 3)


def values(names: tuple[str, ...] = NAMES) -> st.SearchStrategy[Any]:
    """JSON values, their properties in the names' order."""

    def containers(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        members = st.fixed_dictionaries({}, optional=dict.fromkeys(names, children))
        return st.lists(children, max_size=4) | members.map(lambda found: {n: found[n] for n in names if n in found})

    return st.recursive(LEAVES, containers, max_leaves=6)


def dumps(value: Any) -> str:
    """As answers are spelled."""
    return json.dumps(value, ensure_ascii=False)


def changed(value: Any, other: Any, rng: random.Random) -> Any:
    """A value with one of its parts replaced by another, or left out, its numbers among those of LEAVES."""
    if isinstance(value, list) and value and rng.random() < 0.8:
        i = rng.randrange(len(value))
        return [*value[:i], *([changed(value[i], other, rng)] if rng.random() < 0.8 else []), *value[i + 1 :]]
    if isinstance(value, dict) and value and rng.random() < 0.8:
        name = rng.choice([*value])
        kept = {n: changed(v, other, rng) if n == name else v for n, v in value.items()}
        return kept if rng.random() < 0.8 else {n: v for n, v in kept.items() if n != name}
    return other if rng.random() < 0.7 else value


def plain_numbers(value: Any) -> Any:
    """The same with 0.5 for every float: others have spellings of which an answer has one."""
    if isinstance(value, list):
        return [plain_numbers(item) for item in value]
    if isinstance(value, dict):
        return {name: plain_numbers(member) for name, member in value.items()}
    return 0.5 if isinstance(value, float) else value


@st.composite
def typed(draw: st.DrawFn, children: st.SearchStrategy[Any]) -> dict[str, Any]:
    """A schema of one or two types with some keywords of each, closed where it lists properties or items."""
    kinds = draw(st.lists(st.sampled_from(("integer", "string", "array", "object", "null")), min_size=1, max_size=2))
    schema: dict[str, Any] = {"type": kinds[0] if len(kinds) == 1 else kinds}
    if "integer" in kinds:
        bounds = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
        schema |= draw(st.fixed_dictionaries({}, optional=dict.fromkeys(bounds, st.integers(-15, 15))))
    if "string" in kinds:
        schema |= draw(st.fixed_dictionaries({}, optional={"minLength": COUNTS, "maxLength": COUNTS}))
    if "array" in kinds:
        schema |= draw(st.fixed_dictionaries({"items": children}, optional={"minItems": COUNTS, "maxItems": COUNTS}))
        schema |= draw(st.fixed_dictionaries({}, optional={"prefixItems": st.lists(children, min_size=1, max_size=2)}))
    if "object" in kinds:
        listed = draw(
            st.lists(st.sampled_from(NAMES), unique=True, max_size=4).map(lambda f: sorted(f, key=NAMES.index))
        )
        schema["properties"] = {name: draw(children) for name in listed}
        schema["required"] = draw(st.lists(st.sampled_from(listed), unique=True)) if listed else []
        schema["additionalProperties"] = False
    return schema


def _joined(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(children, min_size=1, max_size=3)
    return st.sampled_from(("anyOf", "allOf", "oneOf")).flatmap(lambda word: lists.map(lambda found: {word: found}))


EXACT: st.SearchStrategy[Any] = st.recursive(
    st.booleans()
    | st.lists(values(), min_size=1, max_size=4).map(lambda members: {"enum": members})
    | values().map(lambda value: {"const": value})
    | st.sampled_from(("null", "boolean", "integer", "number", "string")).map(lambda kind: {"type": kind}),
    lambda children: typed(children) | typed(children) | _joined(children),
    max_leaves=5,
)
"""Schemas that say everything: what fits them is what may be answered."""


@st.composite
def _open(draw: st.DrawFn, children: st.SearchStrategy[Any]) -> dict[str, Any]:
    optional = {
        "properties": st.dictionaries(st.sampled_from(NAMES), children, max_size=3),
        "required": st.lists(st.sampled_from(NAMES), max_size=2, unique=True),
        "additionalProperties": children,
        "prefixItems": st.lists(children, min_size=1, max_size=2),
        "items": children,
        "minItems": COUNTS,
        "maxItems": COUNTS,
        "minLength": COUNTS,
        "enum": st.lists(values(), min_size=1, max_size=3),
        "anyOf": st.lists(children, min_size=1, max_size=2),
        "allOf": st.lists(children, min_size=1, max_size=2),
        "oneOf": st.lists(children, min_size=1, max_size=2),
        "$ref": st.just("#/$defs/x"),
    }
    words = draw(st.lists(st.sampled_from(sorted(optional)), max_size=4, unique=True))
    return {word: draw(optional[word]) for word in words}


def any_schema() -> st.SearchStrategy[dict[str, Any]]:
    """Schemas that may leave much unsaid, with a definition that they refer to."""
    children = st.recursive(EXACT, lambda deeper: _open(deeper), max_leaves=4)
    return st.builds(lambda schema, x: schema | {"$defs": {"x": x}}, _open(children), EXACT)
