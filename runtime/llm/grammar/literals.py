"""JSON values, and sets of them that need more than a word, in GBNF: literals, ranges of integers, other names.

Every piece ends before the optional space that may follow it; whoever joins the pieces writes `space` between them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, cast

from .keywords import MAX_BOUND

BASICS = r"""
space ::= " "?
hex ::= [0-9a-fA-F]
raw ::= [\x20-\x21\x23-\x5B\x5D-\uD7FF\uE000-\U0010FFFF]
char ::= raw | "\\" (["\\/bfnrt] | "u" (unit | high "\\u" low))
unit ::= [0-9a-cA-CefEF] hex hex hex | [dD] [0-7] hex hex
high ::= [dD] [89abAB] hex hex
low ::= [dD] [c-fC-F] hex hex
string ::= "\"" char* "\""
integer ::= "0" | "-"? [1-9] [0-9]{0,15}
number ::= "-"? ("0" | [1-9] [0-9]{0,15}) ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,2})?
boolean ::= "true" | "false"
null ::= "null"
array ::= "[" space (value space ("," space value space)*)? "]"
object ::= "{" space (member ("," space member)*)? "}"
member ::= string space ":" space value space
value ::= null | boolean | number | string | array | object
""".strip()
"""Every JSON value. One character of a string is one `char`, however it is spelled; numbers stay below 1e116."""
_ESCAPED = re.compile(r'["\\\x00-\x1f]')


def quoted(text: str) -> str:
    """Text without control characters as a GBNF literal."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def spelled(value: Any) -> str:
    """One JSON value, its members in their order."""
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value).items()
        return braced("{}", [f"{name_of(name)} {spelled(member)} space" for name, member in members])
    if isinstance(value, list):
        return braced("[]", [f"{spelled(item)} space" for item in cast("list[Any]", value)])
    return quoted(json.dumps(value, ensure_ascii=False))


def name_of(name: str) -> str:
    """A property's name and the colon."""
    return f'{spelled(name)} space ":" space'


def braced(braces: str, members: Sequence[str]) -> str:
    """Members between braces, each with the space that may follow it."""
    inner = ' "," space '.join(members)
    return " ".join(part for part in (f'"{braces[0]}" space', inner, f'"{braces[1]}"') if part)


def repeated(rule: str, least: float, most: float) -> str:
    """A rule so many times; "" for never."""
    if most == 0:
        return ""
    if (least, most) == (0, math.inf):
        return f"{rule}*"
    counts = f"{least:.0f}" if least == most else f"{least:.0f},{'' if most == math.inf else f'{most:.0f}'}"
    return f"{rule}{{{counts}}}"


def integers(low: float, high: float) -> list[str]:
    """The whole numbers from low to high, as alternatives."""
    if (low, high) == (-math.inf, math.inf):
        return ["integer"]
    least = int(max(low, -MAX_BOUND))
    most = int(min(high, MAX_BOUND))
    negative = [f'"-" {part}' for part in _naturals(max(1, -most), -least)]
    return [*negative, *_naturals(max(0, least), most)]


def _naturals(low: int, high: int) -> Iterator[str]:
    """From low to high, neither below 0: those with the same number of digits together."""
    while low <= high:
        longest = 10 ** len(str(low)) - 1
        yield from _same_length(str(low), str(min(high, longest)))
        low = longest + 1


def _same_length(low: str, high: str) -> Iterator[str]:
    """345 to 678 are 345, 34[6-9], 3[5-9][0-9], [4-5][0-9]{2}, 6[0-6][0-9], 67[0-7] and 678."""
    n = len(low)
    differ = next((i for i in range(n) if low[i] != high[i]), n)
    yield quoted(low)
    for i in range(n - 1, differ, -1):
        yield from _digits(low[:i], int(low[i]) + 1, 9, n - i - 1)
    if differ < n:
        yield from _digits(low[:differ], int(low[differ]) + 1, int(high[differ]) - 1, n - differ - 1)
        for i in range(differ + 1, n):
            yield from _digits(high[:i], 0, int(high[i]) - 1, n - i - 1)
        yield quoted(high)


def _digits(prefix: str, first: int, last: int, n: int) -> Iterator[str]:
    """The prefix, a digit from first to last, and n digits of any kind; nothing where first is behind last."""
    parts = (quoted(prefix) if prefix else "", f"[{first}-{last}]", f"[0-9]{{{n}}}" if n else "")
    if first <= last:
        yield " ".join(part for part in parts if part)


def other_name(names: Collection[str], add: Callable[[str], str]) -> str:
    """A property's name that is none of these. add: makes a rule of alternatives and gives its name.

    Its characters stand for themselves, so none of the names is written in another way; a rule for every prefix.
    """
    spellable = {name for name in names if not _ESCAPED.search(name)}
    prefixes = {name[:n] for name in spellable for n in range(len(name) + 1)} | {""}
    following: dict[str, dict[str, str]] = {prefix: {} for prefix in prefixes}
    rule = ""
    for prefix in sorted(prefixes, key=len, reverse=True):
        parts = [f"{quoted(character)} {rest}" for character, rest in sorted(following[prefix].items())]
        parts.append(f'{_raw_but(following[prefix])} raw* "\\""')
        rule = add(" | ".join(parts if prefix in spellable else [*parts, '"\\""']))
        if prefix:
            following[prefix[:-1]][prefix[-1]] = rule
    return f'"\\"" {rule}'


def _raw_but(characters: Iterable[str]) -> str:
    """One character that stands for itself in a string, and is none of these."""
    excluded = sorted([*((ord(c), ord(c)) for c in characters), (0x22, 0x22), (0x5C, 0x5C), (0xD800, 0xDFFF)])
    ranges: list[str] = []
    start = 0x20
    for first, last in [*excluded, (0x110000, 0x110000)]:
        if start < first:
            ranges.append(f"\\U{start:08X}-\\U{first - 1:08X}")
        start = last + 1
    return f"[{''.join(ranges)}]"
