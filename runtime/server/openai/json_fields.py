"""Fields of a JSON request: values by name -> checked ones; what is null is as good as absent."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from ..errors import invalid


class Fields:
    """An object of a request; `path` is what errors call it. Every reader raises ApiError."""

    def __init__(self, value: object, path: str = "") -> None:
        if not isinstance(value, Mapping):
            raise invalid(f"{path or 'the request'} must be an object", path or None)
        self._values = cast("Mapping[str, Any]", value)
        self._path = path

    def __contains__(self, name: str) -> bool:
        return self._values.get(name) is not None

    def given(self, name: str) -> bool:
        """Whether it is there, if as null."""
        return name in self._values

    def name(self, name: str) -> str:
        """As errors call a field."""
        return f"{self._path}.{name}" if self._path else name

    def value(self, name: str) -> Any:
        """Whatever it is; None when it is absent."""
        return self._values.get(name)

    def object(self, name: str) -> Fields:
        """An object; an empty one when it is absent."""
        return Fields(self._values.get(name) or {}, self.name(name))

    def objects(self, name: str) -> Iterator[Fields]:
        """A list of objects."""
        for number, each in enumerate(self.list(name)):
            yield Fields(each, f"{self.name(name)}[{number}]")

    def list(self, name: str) -> Sequence[Any]:
        """A list; an empty one when it is absent."""
        values = self._values.get(name)
        if values is not None and not isinstance(values, list):
            raise invalid(f"{self.name(name)} must be a list", self.name(name))
        return cast("list[Any]", values or [])

    def text(self, name: str, default: str = "") -> str:
        """A string."""
        value = self._values.get(name)
        if value is not None and (not isinstance(value, str) or any("\ud800" <= c <= "\udfff" for c in value)):
            raise invalid(f"{self.name(name)} must be a text", self.name(name))
        return default if value is None else value

    def flag(self, name: str, default: bool = False) -> bool:
        """true or false."""
        value = self._values.get(name)
        if value is not None and not isinstance(value, bool):
            raise invalid(f"{self.name(name)} must be true or false", self.name(name))
        return default if value is None else value

    def number(self, name: str, default: float, low: float, high: float) -> float:
        """A number within bounds."""
        value = self._values.get(name)
        if value is None:
            return default
        number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
        if not low <= number <= high:
            raise invalid(f"{self.name(name)} must be a number from {low:g} to {high:g}", self.name(name))
        return number

    def integer(self, name: str, low: int, high: int) -> int | None:
        """A whole number within bounds; None when it is absent."""
        value = self._values.get(name)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise invalid(f"{self.name(name)} must be a whole number from {low} to {high}", self.name(name))
        return value


def read_json(body: bytes) -> Fields:
    """A request's body. Raises ApiError."""
    try:
        return Fields(json.loads(body))
    except (ValueError, RecursionError) as error:
        why = "it lies too deep in itself" if isinstance(error, RecursionError) else "it is no JSON"
        raise invalid(f"the request cannot be read: {why}") from None
