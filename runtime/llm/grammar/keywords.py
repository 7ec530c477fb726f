"""The keywords of JSON Schema that a grammar holds: a schema in, an InputError out for the first that it cannot hold.

An allowlist: what does not stand here is refused by its name and its JSON pointer, never left out in silence.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast
from urllib.parse import unquote

from ....models.errors import InputError

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
MAX_COUNT = 1999
"""llama.cpp reads {2000} as an error and {0,2001} as no limit at all."""
MAX_BOUND = 10**18 - 1
MAX_DEPTH = 64
MAX_DIGITS = 1000
"""Of an integer that is a value. Python spells up to 4300."""
_RECURSIVE = "it comes back to itself by $ref, and recursive schemas are not held"
_NOT_HELD = "leave this keyword out, and check its condition yourself"
_MAX_SHOWN = 120  # characters of a pointer in a sentence
_ANNOTATIONS = {
    *("$schema", "$comment", "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"),
}


class Subschema(NamedTuple):
    """A schema and where it stands."""

    schema: Any
    """An object, True or False."""
    pointer: str
    """Its JSON pointer from the root, RFC 6901."""

    def child(self, *path: str | int) -> Subschema:
        """The schema below it; the path is there."""
        found = self.schema
        pointer = self.pointer
        for step in path:
            found = found[step]
            pointer = f"{pointer}/{_escaped(step)}"
        return Subschema(found, pointer)

    def children(self, keyword: str) -> tuple[Subschema, ...]:
        """The schemas of a keyword that holds a list of them, or nothing."""
        return tuple(self.child(keyword, i) for i in range(len(self.schema.get(keyword, ()))))


def refusal(pointer: str, why: str) -> InputError:
    """The sentence about what stands at a JSON pointer."""
    shown = json.dumps(pointer)[1:-1]
    if len(shown) > _MAX_SHOWN:
        shown = f"{shown[:_MAX_SHOWN]}..."
    keyword = shown.rpartition("/")[2] if len(shown) <= _MAX_SHOWN else ""
    where = f"{keyword} at {shown}" if keyword else shown or "its root"
    if len(why) > 4 * _MAX_SHOWN:  # it quotes the schema
        why = f"{why[:_MAX_SHOWN]}...{why[-_MAX_SHOWN:]}"
    return InputError(f"the JSON schema cannot be held ({where}): {why}")


def resolve(root: Any, reference: Any, pointer: str) -> Subschema:
    """What a `$ref` names. Raises InputError."""
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        raise refusal(pointer, "only what stands in the same file can be named, such as #/$defs/name")
    found = Subschema(root, "")
    for part in unquote(reference[1:]).split("/")[1:]:
        step = part.replace("~1", "/").replace("~0", "~")
        is_item = isinstance(found.schema, list) and step.isascii() and step.isdigit()
        try:
            found = found.child(int(step) if is_item else step)
        except (KeyError, IndexError, TypeError, ValueError):  # ValueError: a number of thousands of digits
            raise refusal(pointer, f"{json.dumps(reference)} names nothing in this file") from None
    return found


def check_schema(schema: Any) -> None:
    """Raises InputError for a keyword that cannot be held, wherever it stands, or that has no valid value."""
    _Check(schema).visit(Subschema(schema, ""), 0)


class _Check:
    def __init__(self, root: Any) -> None:
        self._root = root
        self._heights: dict[str, int | None] = {}
        """By pointer, the levels below a schema; None while it is visited."""

    def visit(self, found: Subschema, depth: int) -> int:
        """Levels below and with this schema."""
        schema, pointer = found
        height = self._heights.get(pointer, 0)
        if height is None:
            raise refusal(pointer, _RECURSIVE)
        if depth + height > MAX_DEPTH:
            raise InputError(f"the JSON schema lies over {MAX_DEPTH} levels deep in itself: simplify it")
        if height:
            return height
        self._heights[pointer] = None
        if isinstance(schema, dict):
            below = self._below(Subschema(cast("dict[Any, Any]", schema), pointer))
            height = max((self.visit(child, depth + 1) for child in below), default=0)
        elif not isinstance(schema, bool):
            raise refusal(pointer, "a schema is an object, true or false")
        self._heights[pointer] = height + 1
        return height + 1

    def _below(self, found: Subschema) -> list[Subschema]:
        """The schemas inside one, and what it refers to, its own keywords checked."""
        below: list[Subschema] = []
        for keyword, value in found.schema.items():
            if not isinstance(keyword, str):
                raise refusal(found.pointer, f"its key {keyword!r} is no string")
            pointer = f"{found.pointer}/{_escaped(keyword)}"
            if keyword in _ANNOTATIONS or (keyword == "$id" and not found.pointer):
                continue
            if keyword == "$ref":
                named = resolve(self._root, value, pointer)
                if self._heights.get(named.pointer, 0) is None:
                    raise refusal(pointer, _RECURSIVE)
                below.append(named)
            elif keyword in _CHILDREN:
                below += _CHILDREN[keyword](found, keyword, pointer)
            elif keyword in _VALUES:
                _VALUES[keyword](value, pointer)
            else:
                raise refusal(pointer, _NOT_HELD)
        _check_together(found)
        return below


def _check_together(found: Subschema) -> None:
    """What one keyword needs of its neighbours."""
    schema = found.schema
    for keyword in _BOUNDS & schema.keys():
        types = schema.get("type", "number")
        if "number" in ([types] if isinstance(types, str) else types):
            raise refusal(f"{found.pointer}/{keyword}", 'only integers can be held to it: give "type": "integer"')


def _one(found: Subschema, keyword: str, _pointer: str) -> list[Subschema]:
    return [found.child(keyword)]


def _listed(found: Subschema, keyword: str, pointer: str) -> list[Subschema]:
    if not isinstance(found.schema[keyword], list) or not found.schema[keyword]:
        raise refusal(pointer, "it must be a list of schemas")
    return [*found.children(keyword)]


def _named(found: Subschema, keyword: str, pointer: str) -> list[Subschema]:
    named = found.schema[keyword]
    if not isinstance(named, dict):
        raise refusal(pointer, "it must be an object with a schema for each name")
    for name in cast("dict[Any, Any]", named):
        _check_text(name, pointer)
    return [found.child(keyword, name) for name in cast("dict[str, Any]", named)]


def _items(found: Subschema, keyword: str, pointer: str) -> list[Subschema]:
    if isinstance(found.schema[keyword], list):
        raise refusal(pointer, "a list of schemas is called prefixItems now")
    return [found.child(keyword)]


_CHILDREN: dict[str, Callable[[Subschema, str, str], list[Subschema]]] = {
    "$defs": _named,
    "definitions": _named,
    "properties": _named,
    "additionalProperties": _one,
    "items": _items,
    "prefixItems": _listed,
    "allOf": _listed,
    "anyOf": _listed,
    "oneOf": _listed,
}


def _check_types(value: Any, pointer: str) -> None:
    names = cast("list[Any]", value) if isinstance(value, list) else [value]
    if not names or any(name not in TYPES for name in names):
        raise refusal(pointer, f"it must be one of {', '.join(TYPES)}, or a list of them")


def _check_enum(value: Any, pointer: str) -> None:
    if not isinstance(value, list) or not value:
        raise refusal(pointer, "it must be a list of values")
    for i, member in enumerate(cast("list[Any]", value)):
        _check_literal(member, f"{pointer}/{i}")


def _check_literal(value: Any, pointer: str, depth: int = 0) -> None:
    """Raises InputError for a value that JSON cannot spell."""
    if depth > MAX_DEPTH:
        raise refusal(pointer, f"its values lie over {MAX_DEPTH} levels deep in each other: simplify them")
    if isinstance(value, str):
        _check_text(value, pointer)
    elif isinstance(value, Mapping):
        for name, member in cast("Mapping[Any, Any]", value).items():
            _check_text(name, pointer)
            _check_literal(member, pointer, depth + 1)
    elif isinstance(value, list):
        for member in cast("list[Any]", value):
            _check_literal(member, pointer, depth + 1)
    elif isinstance(value, int):
        if abs(value) >= 10**MAX_DIGITS:
            raise refusal(pointer, f"an integer has over {MAX_DIGITS} digits: give a shorter one")
    elif value is not None and not (isinstance(value, float) and math.isfinite(value)):
        raise refusal(pointer, f"{value!r} is no JSON value")


def _check_text(text: Any, pointer: str) -> None:
    if not isinstance(text, str):
        raise refusal(pointer, f"its key {text!r} is no string")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise refusal(pointer, f"{json.dumps(text)} holds half of a surrogate pair, which is no character")


def _check_bound(value: Any, pointer: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise refusal(pointer, "it must be a number")
    if abs(value) > MAX_BOUND:
        raise refusal(pointer, "integers up to 18 digits can be held: give a nearer bound, or none")


def _check_count(value: Any, pointer: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0 or value % 1:
        raise refusal(pointer, "it must be a whole number, 0 or more")
    if value > MAX_COUNT:
        raise refusal(pointer, f"{value} is more than the {MAX_COUNT} that can be held: give a smaller one, or none")


def _check_required(value: Any, pointer: str) -> None:
    if not isinstance(value, list):
        raise refusal(pointer, "it must be a list of names")
    for name in cast("list[Any]", value):
        _check_text(name, pointer)


def _check_unique(value: Any, pointer: str) -> None:
    if value is not False:
        raise refusal(pointer, _NOT_HELD)


_BOUNDS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
_VALUES: dict[str, Callable[[Any, str], None]] = {
    "type": _check_types,
    "enum": _check_enum,
    "const": _check_literal,
    "required": _check_required,
    "uniqueItems": _check_unique,
    **dict.fromkeys(_BOUNDS, _check_bound),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), _check_count),
}


def _escaped(step: str | int) -> str:
    return str(step).replace("~", "~0").replace("/", "~1")
