"""Frozen dataclasses to JSON and back, strictly, and the JSON Schema that says the same.

One truth: the dataclass. `decode` refuses a missing key, an unknown key and a wrong type, naming the place
(`graphs.whisper.inputs[0].name`); where several dataclasses are allowed, that one is meant which has most of the keys.
`json_schema` writes those rules down for other tools.
"""

from __future__ import annotations

import dataclasses
import sys
import types
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")
Json = Any  # what json.loads returns

_LARGEST = int(sys.float_info.max)
_SCALARS = {int: "integer", float: "number", str: "string", bool: "boolean", type(None): "null"}


class DecodeError(ValueError):
    """A JSON value that does not fit; the message starts with its place."""


def encode(value: object) -> Json:
    """A dataclass, or anything built of tuples, dicts and scalars, as what json.dumps takes."""
    if dataclasses.is_dataclass(value):
        return {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): encode(item) for key, item in cast("dict[object, object]", value).items()}
    if isinstance(value, tuple | list):
        return [encode(item) for item in cast("list[object]", value)]
    return value


def decode(kind: type[T], value: Json, where: str = "") -> T:
    """`value` as a `kind`. Raises DecodeError naming the place that does not fit."""
    return cast(T, _decode(kind, value, where))


def _decode(kind: Any, value: Json, where: str) -> object:
    origin = get_origin(kind)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(cast("type[object]", kind), value, where)
    if origin is Literal:
        return _expect(value in get_args(kind), value, where, " or ".join(map(repr, get_args(kind))))
    if origin in (Union, types.UnionType):
        return _decode_union(get_args(kind), value, where)
    if origin is tuple:
        _expect(isinstance(value, list), value, where, "a list")
        return tuple(_decode(get_args(kind)[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        _expect(isinstance(value, dict), value, where, "an object")
        return {key: _decode(get_args(kind)[1], item, _join(where, key)) for key, item in value.items()}
    if kind is float and type(value) is int:
        return float(_expect(abs(value) <= _LARGEST, value, where, "a number that a float can hold"))
    return _expect(type(value) is kind, value, where, _SCALARS[kind])


def _decode_union(kinds: tuple[Any, ...], value: Json, where: str) -> object:
    real = [kind for kind in kinds if kind is not type(None)]
    if value is None and len(real) < len(kinds):
        return None
    if len(real) == 1:  # optional: the one real kind's own message says more
        return _decode(real[0], value, where)
    if all(dataclasses.is_dataclass(kind) for kind in real) and isinstance(value, dict):
        keys = set(cast("dict[str, Json]", value))
        return _decode(max(real, key=lambda kind: len(keys & {f.name for f in dataclasses.fields(kind)})), value, where)
    for kind in real:
        try:
            return _decode(kind, value, where)
        except DecodeError:
            continue
    raise DecodeError(f"{where}: {_short(value)} is none of what is allowed here")


def _decode_dataclass(kind: type[object], value: Json, where: str) -> object:
    _expect(isinstance(value, dict), value, where or "the document", "an object")
    hints = get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(cast(Any, kind))]
    missing = [n for n in names if n not in value]
    unknown = [n for n in value if n not in names]
    if missing or unknown:
        problem = "lacks " + ", ".join(missing) if missing else "has unknown " + ", ".join(unknown)
        raise DecodeError(f"{where or 'the document'} {problem}")
    return kind(**{name: _decode(hints[name], value[name], _join(where, name)) for name in names})


def _expect(condition: bool, value: Json, where: str, wanted: str) -> Json:
    if not condition:
        raise DecodeError(f"{where}: {_short(value)} is not {wanted}")
    return value


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _short(value: Json) -> str:
    try:
        text = repr(value)
    except ValueError:  # of an integer with thousands of digits
        text = f"{value:#x}"
    return text if len(text) <= 60 else text[:57] + "..."


def json_schema(kind: type[object], title: str) -> dict[str, Json]:
    """The draft 2020-12 schema of what `decode` accepts, one definition per dataclass."""
    definitions: dict[str, Json] = {}
    root = _schema(kind, definitions)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **root, "$defs": definitions}


def _schema(kind: Any, definitions: dict[str, Json]) -> dict[str, Json]:
    origin = get_origin(kind)
    arguments = get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _schema_dataclass(cast("type[object]", kind), definitions)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(argument, definitions) for argument in arguments]}
    if origin is tuple:
        return {"type": "array", "items": _schema(arguments[0], definitions)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(arguments[1], definitions)}
    return {"type": _SCALARS[kind]}


def _schema_dataclass(kind: type[object], definitions: dict[str, Json]) -> dict[str, Json]:
    if kind.__name__ not in definitions:
        definitions[kind.__name__] = {}  # reserves the name, should a dataclass hold itself
        hints = get_type_hints(kind)
        names = [f.name for f in dataclasses.fields(cast(Any, kind))]
        definitions[kind.__name__] = {
            "type": "object",
            "properties": {name: _schema(hints[name], definitions) for name in names},
            "required": names,
            "additionalProperties": False,
        }
    return {"$ref": f"#/$defs/{kind.__name__}"}
