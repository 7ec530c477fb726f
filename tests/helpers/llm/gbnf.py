"""A second reader of GBNF beside llama.cpp's: rules in, random texts and whether a text follows them out. No model."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

_TOKEN = re.compile(
    r'\s*(?:(?P<text>"(?:\\.|[^"\\])*")|(?P<chars>\[(?:\\.|[^\]\\])*\])|(?P<name>[a-zA-Z0-9-]+)'
    r"|(?P<sign>[()|*+?])|\{(?P<least>\d+)(?P<to>,(?P<most>\d*))?\})"
)
_ESCAPE = re.compile(r"\\(?:x(..)|u(....)|U(.{8})|(.))|(.)", re.DOTALL)
_LETTERS = {"t": "\t", "r": "\r", "n": "\n"}
MANY = 3  # more than a repetition's least, in random texts


@dataclass(frozen=True)
class Chars:
    """One character of these ranges."""

    ranges: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Name:
    name: str


@dataclass(frozen=True)
class Sequence:
    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Choice:
    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Repeat:
    part: Node
    least: int
    most: int | None


Node = Chars | Name | Sequence | Choice | Repeat


class Gbnf:
    """Rules without negated classes and token ids."""

    def __init__(self, text: str) -> None:
        lines = (line.split(" ::= ", 1) for line in text.split("\n"))
        self.rules = {name: _Parser(body).choice() for name, body in lines}
        self._heights = self._least_heights()

    def _least_heights(self) -> dict[str, float]:
        """How deep the shortest text of each rule goes."""
        heights = dict.fromkeys(self.rules, float("inf"))
        for _ in self.rules:
            heights = {name: 1 + self._height(node, heights) for name, node in self.rules.items()}
        return heights

    def _height(self, node: Node, heights: dict[str, float]) -> float:
        if isinstance(node, Name):
            return heights[node.name]
        if isinstance(node, Repeat):
            return self._height(node.part, heights) if node.least else 0
        if isinstance(node, Chars):
            return 0
        parts = [self._height(part, heights) for part in node.parts]
        return min(parts) if isinstance(node, Choice) else max(parts, default=0)

    def sample(self, rng: random.Random, depth: int = 12) -> str:
        """A random text; deeper than this only what must be."""
        return "".join(self._sample(self.rules["root"], rng, depth))

    def _sample(self, node: Node, rng: random.Random, depth: int) -> Iterator[str]:
        if isinstance(node, Chars):
            first, last = rng.choice(node.ranges)
            yield chr(rng.choice([ord(first), ord(last), rng.randint(ord(first), ord(last))]))
        elif isinstance(node, Name):
            yield from self._sample(self.rules[node.name], rng, depth - 1)
        elif isinstance(node, Sequence):
            for part in node.parts:
                yield from self._sample(part, rng, depth)
        elif isinstance(node, Choice):
            heights = [self._height(part, self._heights) for part in node.parts]
            allowed = [part for part, h in zip(node.parts, heights, strict=True) if h <= max(depth, min(heights))]
            yield from self._sample(rng.choice(allowed), rng, depth)
        else:
            most = node.least + MANY if node.most is None else node.most
            n = rng.choice([node.least, most, rng.randint(node.least, most)]) if depth > 0 else node.least
            for _ in range(min(n, node.least + 200)):
                yield from self._sample(node.part, rng, depth)

    def matches(self, text: str) -> bool:
        """Whether the rules give exactly this text."""

        @cache
        def ends(node: Node, start: int) -> frozenset[int]:
            if isinstance(node, Name):
                return ends(self.rules[node.name], start)
            if isinstance(node, Chars):
                inside = start < len(text) and any(a <= text[start] <= b for a, b in node.ranges)
                return frozenset({start + 1} if inside else ())
            if isinstance(node, Choice):
                return frozenset(end for part in node.parts for end in ends(part, start))
            if isinstance(node, Sequence):
                reached = frozenset({start})
                for part in node.parts:
                    reached = frozenset(end for at in reached for end in ends(part, at))
                return reached
            reached, found, n = frozenset({start}), set[int](), 0
            while reached and (node.most is None or n <= node.most):
                if n >= node.least:
                    if reached <= found:
                        break
                    found |= reached
                reached, n = frozenset(end for at in reached for end in ends(node.part, at)), n + 1
            return frozenset(found)

        return len(text) in ends(self.rules["root"], 0)


class _Parser:
    """Recursive descent over one rule's body."""

    def __init__(self, body: str) -> None:
        self._tokens = list[re.Match[str]]()
        at = 0
        while at < len(body.rstrip()):
            token = _TOKEN.match(body, at)
            assert token, body[at:]
            self._tokens.append(token)
            at = token.end()
        self._at = 0

    def _peek(self, group: str = "sign") -> str | None:
        return self._tokens[self._at][group] if self._at < len(self._tokens) else None

    def choice(self) -> Node:
        parts = [self._sequence()]
        while self._peek() == "|":
            self._at += 1
            parts.append(self._sequence())
        return parts[0] if len(parts) == 1 else Choice(tuple(parts))

    def _sequence(self) -> Node:
        parts = list[Node]()
        while self._at < len(self._tokens) and self._peek() not in ("|", ")"):
            parts.append(self._repeated(self._item()))
        return Sequence(tuple(parts))

    def _repeated(self, node: Node) -> Node:
        while self._at < len(self._tokens):
            token = self._tokens[self._at]
            if token["sign"] in ("*", "+", "?"):
                counts = {"*": (0, None), "+": (1, None), "?": (0, 1)}[token["sign"]]
            elif token["least"]:
                least = int(token["least"])
                counts = (least, (int(token["most"]) if token["most"] else None) if token["to"] else least)
            else:
                break
            node = Repeat(node, *counts)
            self._at += 1
        return node

    def _item(self) -> Node:
        token = self._tokens[self._at]
        self._at += 1
        if token["text"] is not None:
            return Sequence(tuple(Chars(((c, c),)) for c, _ in _characters(token["text"][1:-1])))
        if token["chars"] is not None:
            return Chars(tuple(_ranges(token["chars"][1:-1])))
        if token["name"] is not None:
            return Name(token["name"])
        assert token["sign"] == "(", token
        node = self.choice()
        assert self._peek() == ")"
        self._at += 1
        return node


def _characters(body: str) -> list[tuple[str, bool]]:
    """Characters, and whether each stands for itself."""
    found = list[tuple[str, bool]]()
    for two, four, eight, letter, plain in _ESCAPE.findall(body):
        code = two or four or eight
        found.append((chr(int(code, 16)) if code else _LETTERS.get(letter, letter) or plain, bool(plain)))
    return found


def _ranges(body: str) -> Iterator[tuple[str, str]]:
    assert not body.startswith("^")
    characters = _characters(body)
    while characters:
        first, _ = characters.pop(0)
        if len(characters) > 1 and characters[0] == ("-", True):
            last, _ = characters.pop(1)
            characters.pop(0)
            yield first, last
        else:
            yield first, first
