"""JSON schemas: a schema in, the GBNF rules of the answers that hold it out, and what a whole answer says.

Properties come in the schema's order, with at most one space between two signs. What a schema does not speak of is not
written: a property that is not listed only where `additionalProperties` or `required` asks for it, an item behind
`prefixItems` only where `items` or `minItems` does.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from ....models.errors import InputError
from ...events import FinishReason
from .forms import Form, Forms, Subschemas, pointers
from .gbnf import read_text
from .keywords import MAX_DIGITS, Subschema, check_schema
from .literals import BASICS, braced, integers, name_of, other_name, repeated, spelled

MAX_RULES = 20_000


class JsonSchema:
    """A schema that answers are held to."""

    gbnf: str
    """Its rules, from `root` on."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        """Raises InputError for a schema that is none, that nothing holds, or that the rules cannot hold."""
        root = dict(schema)
        check_schema(root)
        self._forms = Forms(root)
        self._whole: Subschemas = (Subschema(root, ""),)
        self.gbnf = _Writer(self._forms).gbnf(self._whole)

    def value(self, text: str, finish_reason: FinishReason = "eos") -> Any:
        """What an answer says. Raises ValueError when it was cut, or does not hold the schema."""
        if finish_reason not in ("eos", "length") or (finish_reason == "length" and text.rstrip()[-1:] not in '}]"'):
            raise ValueError("the answer was cut")  # of a number nobody can tell
        try:
            value: Any = json.loads(text, parse_constant=_no_number)
        except RecursionError:
            raise ValueError("it lies too deep in itself") from None
        if not self._forms.accept(self._whole, value):
            raise ValueError("it does not hold the schema")
        return value

    def is_held(self, text: str, finish_reason: FinishReason = "eos") -> bool:
        """Whether an answer is whole and holds the schema."""
        try:
            self.value(text, finish_reason)
        except ValueError:
            return False
        return True


class _Writer:
    """Rules, one for every set of subschemas."""

    def __init__(self, forms: Forms) -> None:
        self._forms = forms
        self._rules: list[str] = []
        self._names: dict[str, str] = {}
        """By a rule's alternatives."""
        self._values: dict[tuple[str, ...], str | None] = {}
        """By the pointers of what must hold."""

    def gbnf(self, schemas: Subschemas) -> str:
        """All rules. Raises InputError when nothing holds the schema."""
        root = self._value(schemas)
        if root is None:
            raise InputError("the JSON schema cannot be held: no value fits it, so loosen its conditions")
        # SentencePiece begins a text with a space, so a model that was trained to answer in JSON does too.
        return "\n".join([f"root ::= space {root}", *self._rules, BASICS])

    def _rule(self, alternatives: str) -> str:
        """The name of the rule with these alternatives, which may be a name themselves."""
        alternatives = alternatives.strip()
        if alternatives.isalnum():
            return alternatives
        name = self._names.setdefault(alternatives, f"r{len(self._names)}")
        if len(self._names) > len(self._rules):
            self._rules.append(f"{name} ::= {alternatives}")
        if len(self._rules) > MAX_RULES:
            raise InputError(f"the JSON schema cannot be held: it takes over {MAX_RULES} rules, so simplify it")
        return name

    def _value(self, schemas: Subschemas) -> str | None:
        """The rule of values that hold all of these; None: there are none."""
        key = pointers(schemas)
        if key not in self._values:
            forms = self._forms.of(schemas)
            alternatives = dict.fromkeys(part for form in forms for part in self._alternatives(form))
            self._values[key] = self._union([*alternatives])
        return self._values[key]

    def _union(self, alternatives: list[str]) -> str | None:
        if alternatives == _ANY:
            return "value"
        return self._rule(" | ".join(alternatives)) if alternatives else None

    def _alternatives(self, form: Form) -> Iterable[str]:
        if form.values is not None:
            return [spelled(value) for value in form.values.values() if self._forms.fits(form, value)]
        meant = form.meant()
        parts = [kind for kind in ("null", "boolean", "number") if kind in meant]
        if "integer" in meant and "number" not in meant:
            parts += integers(form.bounds.low, form.bounds.high)
        if "string" in meant and form.length.low <= form.length.high:
            parts.append(_string(form))
        if "array" in meant:
            parts += self._array(form)
        if "object" in meant:
            parts += self._object(form)
        return parts

    def _array(self, form: Form) -> list[str]:
        """Item after item, each optional from the smallest number on; [] when there is no such array."""
        least, most = form.n_items.low, form.n_items.high
        n_prefix = len(form.prefix)
        if not n_prefix and form.items is None and (least, most) == (0, math.inf):
            return ["array"]
        if n_prefix and form.items is None:
            most = min(most, max(n_prefix, least))
        places = [self._value(form.item(i)) for i in range(n_prefix + 1)]
        most = min([most, *(i for i, rule in enumerate(places) if rule is None)])
        if least > most:
            return []
        rest = ""
        if most > n_prefix:
            more = self._rule(f"{_COMMA} {places[-1]} space")
            done = max(n_prefix, 1)
            rest = repeated(more, max(least - done, 0), most - done)
        for i in reversed(range(min(max(n_prefix, 1), int(min(most, n_prefix + 1))))):
            item = f"{_COMMA if i else ''} {places[i]} space {rest}"
            rest = item if i < least else self._optional(item)
        return [braced("[]", [rest] if rest else [])]

    def _optional(self, alternatives: str) -> str:
        return f"{self._rule(alternatives)}?"

    def _object(self, form: Form) -> list[str]:
        """Property after property, a comma before all but the first; [] when there is no such object."""
        names = dict.fromkeys([*form.properties, *form.required])
        if not names and form.additional is None:
            return ["object"]
        rules = {name: self._value(form.property(name)) for name in names}
        if any(rules[name] is None for name in form.required):
            return []
        first, later = self._additional(form, names)
        for name in reversed([name for name in names if rules[name] is not None]):
            member = self._rule(f"{name_of(name)} {rules[name]} space")
            starting = f"{member} {later}"
            if name in form.required:
                first = starting
                later = self._rule(f"{_COMMA} {starting}")
            else:
                first = self._rule(f"{starting} | {first}") if first else self._optional(starting)
                later = self._rule(f"{self._optional(f'{_COMMA} {member}')} {later}")
        return [braced("{}", [first] if first else [])]

    def _additional(self, form: Form, names: Iterable[str]) -> tuple[str, str]:
        """Properties that are not listed: where they are the first, and behind others."""
        rule = None if form.additional is None else self._value(form.additional)
        if rule is None:
            return "", ""
        member = self._rule(f'{other_name([*names], self._rule)} space ":" space {rule} space')
        more = repeated(self._rule(f"{_COMMA} {member}"), 0, math.inf)
        return self._optional(f"{member} {more}"), more


_COMMA = '"," space'
_ANY = ["null", "boolean", "number", "string", "array", "object"]


def _string(form: Form) -> str:
    low, high = form.length.low, form.length.high
    if (low, high) == (0, math.inf):
        return "string"
    return " ".join(part for part in ('"\\""', repeated("char", low, high), '"\\""') if part)


def read_schema(path: Path) -> dict[str, Any]:
    """The JSON schema in a file. Raises InputError."""
    text = read_text(path, "a JSON schema")
    try:
        schema: Any = json.loads(text, parse_int=_integer, parse_constant=_no_number, object_pairs_hook=_no_doubles)
    except ValueError as error:
        raise InputError(f"{path} is no JSON ({error}): give the file of a JSON schema") from None
    except RecursionError:
        raise InputError(f"{path} lies too deep in itself to be read: simplify the schema") from None
    if not isinstance(schema, dict):
        raise InputError(f"{path} is no JSON schema: it must be an object such as {{'type': 'object', ...}}")
    return cast("dict[str, Any]", schema)


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"an integer has {len(digits)} digits, {MAX_DIGITS} are read")
    return int(digits)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        doubled = next(name for i, (name, _) in enumerate(pairs) if any(name == other for other, _ in pairs[:i]))
        raise ValueError(f"{json.dumps(doubled)} stands twice in one object")
    return members
