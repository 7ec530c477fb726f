"""JSON schemas by hypothesis: those that can be held, those that say things that cannot, and any JSON at all."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

from auricle.runtime.llm.grammar.json_schema import JsonSchema, read_schema
from gbnf import Gbnf
from hunting import Case
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from schemas import EXACT, any_schema

BLOCK = 100
SLOW = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large, HealthCheck.large_base_example]
KEYWORDS = (
    *("type", "enum", "const", "properties", "required", "additionalProperties", "items", "prefixItems", "minItems"),
    *("maxItems", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum", "anyOf", "oneOf", "allOf", "not"),
    *(
        "$ref",
        "$defs",
        "pattern",
        "format",
        "if",
        "title",
        "default",
        "description",
        "examples",
        "$schema",
        "multipleOf",
    ),
)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
)
TYPES = st.sampled_from(("string", "integer", "number", "object", "array", "boolean", "null", "any", "#/$defs/a", "#"))
STRANGE = st.recursive(
    ANY | TYPES,
    lambda inner: st.dictionaries(st.sampled_from(KEYWORDS), inner, max_size=5) | st.lists(inner, max_size=3),
    max_leaves=12,
)
SCHEMAS: st.SearchStrategy[Any] = any_schema() | EXACT | STRANGE | STRANGE


def drawn(strategy: st.SearchStrategy[Any], seed: int, n: int = BLOCK) -> list[Any]:
    """The same examples for the same seed."""
    found = list[Any]()

    @seeded(seed)
    @settings(max_examples=n, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=SLOW)
    @given(strategy)
    def take(value: Any) -> None:
        found.append(value)

    take()
    return (found * n)[:n]


@cache
def _block(seed: int, number: int) -> list[Any]:
    return drawn(SCHEMAS, seed * 1_000_003 + number)


def make_case(seed: int, number: int) -> Case:
    """Text of a schema: the odd ones with bytes of it changed, now and then."""
    schema = _block(seed, number // BLOCK)[number % BLOCK]
    rng = random.Random(f"schema {seed} {number}")
    text = json.dumps(schema, ensure_ascii=rng.random() < 0.5).encode(errors="surrogatepass")
    title = "as drawn"
    if rng.random() < 0.15:
        at = rng.randrange(len(text) + 1)
        piece = rng.choice((b"", b"[" * 100_000, b"\xff", b"1" * 2000, b'"', b"\0", b"\xef\xbb\xbf", text))
        text = text[:at] + piece + text[at + rng.randrange(3) :]
        title = f"{piece[:5]!r} at {at}"
    return Case(title, text, ".json", lambda wrong: wrong)


def run_case(case: Case, folder: Path) -> str | None:
    """An answer by the rules that does not hold the schema."""
    path = folder / "schema.json"
    path.write_bytes(case.content)
    schema = JsonSchema(read_schema(path))
    rules = Gbnf(schema.gbnf)
    for seed in range(3):
        answer = rules.sample(random.Random(seed), depth=6)
        if not schema.is_held(answer):
            return f"by its rules this is an answer: {answer!r}"
    return None
