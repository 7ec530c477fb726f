"""Forms: a checked JSON schema in, its alternatives out, each a list of conditions that all hold, with no `anyOf` left.

`allOf`, `$ref` and neighbouring keywords are met (all must hold), `anyOf` and `oneOf` multiply the alternatives.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from ....models.errors import InputError
from .keywords import TYPES, Subschema, refusal, resolve

MAX_FORMS = 500  # of one schema: llama.cpp follows all of them at once
_ABOUT = {
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), "integer"),
    **dict.fromkeys(("minLength", "maxLength"), "string"),
    **dict.fromkeys(("items", "prefixItems", "minItems", "maxItems", "uniqueItems"), "array"),
    **dict.fromkeys(("properties", "required", "additionalProperties"), "object"),
}
"""Which type each keyword says something about: of the others it asks nothing."""
Subschemas = tuple[Subschema, ...]
"""Schemas that must all hold; none: anything does."""


@dataclass(frozen=True)
class Range:
    """Whole numbers from low to high."""

    low: float = -math.inf
    high: float = math.inf

    def meet(self, other: Range) -> Range:
        """What lies in both."""
        return Range(max(self.low, other.low), min(self.high, other.high))

    def apart(self, other: Range) -> bool:
        """Nothing lies in both."""
        both = self.meet(other)
        return both.low > both.high

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


COUNT = Range(0)


@dataclass(frozen=True)
class Form:
    """What a value must be: conditions that all hold, each for values of its own type."""

    types: frozenset[str] = frozenset(TYPES)
    typed: bool = False
    """The types were given; otherwise what the keywords speak about is meant."""
    about: frozenset[str] = frozenset()
    """The types that keywords speak about."""
    values: dict[object, Any] | None = None
    """Of `enum` and `const`, by their identity; None: any."""
    bounds: Range = Range()
    length: Range = COUNT
    n_items: Range = COUNT
    prefix: tuple[Subschemas, ...] = ()
    items: Subschemas | None = None
    """Of those behind the prefix; None: nothing is said."""
    properties: dict[str, Subschemas] = field(default_factory=dict[str, Subschemas])
    required: tuple[str, ...] = ()
    additional: Subschemas | None = None
    """Of properties that are not listed; None: nothing is said."""

    def meant(self) -> frozenset[str]:
        """The types an answer may have: those given, or else those spoken about, or else all."""
        return self.types if self.typed or not self.about else self.types & self.about

    def property(self, name: str) -> Subschemas:
        """What the value of this name must be."""
        return self.properties.get(name, self.additional or ())

    def item(self, i: int) -> Subschemas:
        """What the item at this place must be."""
        return self.prefix[i] if i < len(self.prefix) else self.items or ()

    def meet(self, other: Form) -> Form:
        """The conditions of both."""
        names = [*self.properties, *(name for name in other.properties if name not in self.properties)]
        n_prefix = max(len(self.prefix), len(other.prefix))
        return Form(
            types=_common(self.types, other.types),
            typed=self.typed or other.typed,
            about=self.about | other.about,
            values=_both(self.values, other.values),
            bounds=self.bounds.meet(other.bounds),
            length=self.length.meet(other.length),
            n_items=self.n_items.meet(other.n_items),
            prefix=tuple(self.item(i) + other.item(i) for i in range(n_prefix)),
            items=_all(self.items, other.items),
            properties={name: self.property(name) + other.property(name) for name in names},
            required=tuple(dict.fromkeys(self.required + other.required)),
            additional=_all(self.additional, other.additional),
        )


class Forms:
    """The forms of every part of one schema, which keywords.check_schema has let through."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._known: dict[tuple[str, ...], tuple[Form, ...]] = {}

    def of(self, schemas: Subschemas) -> tuple[Form, ...]:
        """The alternatives of schemas that must all hold; none: nothing can hold them. Raises InputError."""
        key = pointers(schemas)
        if key not in self._known:
            self._known[key] = self._alternatives(self._parts(schemas))
        return self._known[key]

    def _parts(self, schemas: Subschemas) -> list[Subschema]:
        """These, and what they name by `$ref` or join by `allOf`, each once."""
        parts: dict[str, Subschema] = {}
        waiting = [*schemas]
        while waiting:
            schema, pointer = found = waiting.pop(0)
            if pointer in parts or schema is True:
                continue
            parts[pointer] = found
            if schema and "$ref" in schema:
                waiting.append(resolve(self._root, schema["$ref"], f"{pointer}/$ref"))
            waiting += found.children("allOf") if schema else ()
        return [*parts.values()]

    def _alternatives(self, parts: list[Subschema]) -> tuple[Form, ...]:
        if any(part.schema is False for part in parts):
            return ()
        factors: list[Iterable[Form]] = [[_form(part)] for part in parts]
        for part in parts:
            if "anyOf" in part.schema:
                factors.append([form for branch in part.children("anyOf") for form in self.of((branch,))])
        forms = _product(factors)
        for part in parts:
            if "oneOf" in part.schema:
                forms = self._exclusive(part, forms)
        return forms

    def _exclusive(self, found: Subschema, neighbours: tuple[Form, ...]) -> tuple[Form, ...]:
        """The alternatives of `oneOf` and its neighbours, when no value can fit two of them. Raises InputError."""
        branches = [_product([neighbours, self.of((branch,))]) for branch in found.children("oneOf")]
        for j, later in enumerate(branches):
            for i, earlier in enumerate(branches[:j]):
                if not all(self.apart(f, g) for f, g in product(earlier, later)):
                    why = f"a value may fit {i} and {j} at once: give types, make them exclude each other or use anyOf"
                    raise refusal(f"{found.pointer}/oneOf", why)
        return tuple(form for branch in branches for form in branch)

    def apart(self, form: Form, other: Form) -> bool:
        """Whether it is certain that no value fits both."""
        for one, another in ((form, other), (other, form)):
            if one.values is not None:
                return not any(self.fits(one, value) and self.fits(another, value) for value in one.values.values())
        tests = {
            "integer": form.bounds.apart(other.bounds),
            "string": form.length.apart(other.length),
            "array": form.n_items.apart(other.n_items),
            "object": any(self._nothing_in_both(form, other, name) for name in form.required + other.required),
        }
        return all(tests.get(kind, False) for kind in _common(form.types, other.types))

    def _nothing_in_both(self, form: Form, other: Form, name: str) -> bool:
        pairs = product(self.of(form.property(name)), self.of(other.property(name)))
        return all(self.apart(f, g) for f, g in pairs)

    def accept(self, schemas: Subschemas, value: Any) -> bool:
        """Whether a JSON value holds these schemas."""
        return any(self.fits(form, value) for form in self.of(schemas))

    def fits(self, form: Form, value: Any) -> bool:
        """Whether a JSON value has this form."""
        if form.values is not None and identity(value) not in form.values:
            return False
        kind = type_of(value)
        if kind not in form.types and not (kind == "integer" and "number" in form.types):
            return False
        if kind == "integer":
            return value in form.bounds
        if kind == "string":
            return len(value) in form.length
        if kind == "array":
            fitting = (self.accept(form.item(i), item) for i, item in enumerate(value))
            return len(value) in form.n_items and all(fitting)
        if kind == "object":
            fitting = (self.accept(form.property(name), member) for name, member in value.items())
            return value.keys() >= {*form.required} and all(fitting)
        return True


def pointers(schemas: Subschemas) -> tuple[str, ...]:
    """Where those stand that say something, each once."""
    return tuple(dict.fromkeys(found.pointer for found in schemas if found.schema is not True))


def type_of(value: Any) -> str:
    """The narrowest JSON type of a value: 1.0 is an integer."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else "boolean"
    if isinstance(value, int | float):
        return "integer" if value % 1 == 0 else "number"
    return "string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"


def identity(value: Any) -> object:
    """Equal for equal JSON values, and for no others: 1 is 1.0, and not true."""
    kind = type_of(value)
    if kind == "array":
        return kind, tuple(identity(item) for item in value)
    if kind == "object":
        return kind, frozenset((name, identity(member)) for name, member in value.items())
    return kind, value


def _form(found: Subschema) -> Form:
    """The conditions of a schema's own keywords, without those that join schemas."""
    schema: dict[str, Any] = found.schema
    types = schema.get("type", TYPES)
    form = Form(
        types=_common(frozenset([types] if isinstance(types, str) else types), frozenset(TYPES)),
        typed="type" in schema,
        about=frozenset(_ABOUT[keyword] for keyword in schema if keyword in _ABOUT),
        bounds=_bounds(schema),
        length=_count(schema, "minLength", "maxLength"),
        n_items=_count(schema, "minItems", "maxItems"),
        prefix=tuple((part,) for part in found.children("prefixItems")),
        items=(found.child("items"),) if "items" in schema else None,
        properties={name: (found.child("properties", name),) for name in schema.get("properties", ())},
        required=tuple(schema.get("required", ())),
        additional=(found.child("additionalProperties"),) if "additionalProperties" in schema else None,
    )
    if "enum" in schema:
        form = form.meet(Form(values={identity(value): value for value in schema["enum"]}))
    if "const" in schema:
        form = form.meet(Form(values={identity(schema["const"]): schema["const"]}))
    return form


def _bounds(schema: dict[str, Any]) -> Range:
    low = [math.ceil(schema["minimum"])] if "minimum" in schema else []
    low += [math.floor(schema["exclusiveMinimum"]) + 1] if "exclusiveMinimum" in schema else []
    high = [math.floor(schema["maximum"])] if "maximum" in schema else []
    high += [math.ceil(schema["exclusiveMaximum"]) - 1] if "exclusiveMaximum" in schema else []
    return Range(max(low, default=-math.inf), min(high, default=math.inf))


def _count(schema: dict[str, Any], least: str, most: str) -> Range:
    high = schema.get(most)
    return Range(int(schema.get(least, 0)), math.inf if high is None else int(high))


def _common(types: frozenset[str], others: frozenset[str]) -> frozenset[str]:
    """Types in both, where every integer is a number."""
    both = types & others
    if ("number" in types and "integer" in others) or ("integer" in types and "number" in others):
        both |= {"integer"}
    return both - {"integer"} if "number" in both else both


def _both(values: dict[object, Any] | None, others: dict[object, Any] | None) -> dict[object, Any] | None:
    """The values in both; None is every value."""
    if values is None or others is None:
        return others if values is None else values
    return {key: value for key, value in values.items() if key in others}


def _all(schemas: Subschemas | None, others: Subschemas | None) -> Subschemas | None:
    return None if schemas is None and others is None else (schemas or ()) + (others or ())


def _product(factors: Iterable[Iterable[Form]]) -> tuple[Form, ...]:
    """Every way to take one form of each factor, met. Raises InputError when they are too many."""
    forms: list[Form] = [Form()]
    for factor in factors:
        forms = [form.meet(other) for form, other in product(forms, factor)]
        if len(forms) > MAX_FORMS:
            raise InputError(f"the JSON schema cannot be held: its anyOf, oneOf and allOf make over {MAX_FORMS} cases")
    return tuple(forms)
