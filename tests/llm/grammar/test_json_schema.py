"""JSON schemas: every text the rules give holds the schema, and every value that holds it can be said."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from auricle.models.errors import InputError
from auricle.runtime.llm.grammar.json_schema import JsonSchema, read_schema
from gbnf import Gbnf
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from schemas import EXACT, any_schema, changed, dumps, plain_numbers, values

jsonschema = pytest.importorskip("jsonschema")
quick = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)

SWITCH: dict[str, Any] = {
    "type": "object",
    "properties": {
        "action": {"enum": ["turn on", "turn off"]},
        "device": {"type": "string", "maxLength": 20},
        "level": {"type": "integer", "minimum": 0, "maximum": 100},
    },
    "required": ["action", "device"],
}
TEXTS = (
    *("line one\nline two", "a\tb", "\r\b\f\v", "\x00\x01\x1f\x7f", "back\\slash", "\\", "\\n", "\\u0041", "\\x41"),
    *('say "hi"', '"', "'", "😀 happy", "\U0010ffff", "é", "\u0085\u2028\ufeff", "", " ", "/", "[a-z]*", "{1,2} | (x)"),
    *("# no comment", "</s>", "$ref", "a::= b"),
)


def compiled(schema: Any) -> tuple[JsonSchema, Gbnf]:
    """A schema and its rules; what is refused is no example."""
    try:
        found = JsonSchema(schema)
    except InputError:
        assume(False)
        raise
    return found, Gbnf(found.gbnf)


def accepts(schema: Any, text: str) -> bool:
    return Gbnf(JsonSchema(schema).gbnf).matches(text)


def said(schema: Any, n: int = 20) -> list[Any]:
    """What random answers say."""
    rules = Gbnf(JsonSchema(schema).gbnf)
    return [json.loads(rules.sample(random.Random(seed))) for seed in range(n)]


@quick
@given(schema=any_schema() | EXACT.filter(lambda found: isinstance(found, dict)), seed=st.integers(0, 1 << 30))
def test_what_the_rules_give_holds_the_schema(schema: dict[str, Any], seed: int) -> None:
    found, rules = compiled(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for step in range(5):
        text = rules.sample(random.Random(seed + step))
        validator.validate(json.loads(text))
        assert found.is_held(text), text


@quick
@given(schema=EXACT.filter(lambda found: isinstance(found, dict)), drawn=values(), seed=st.integers(0, 1 << 30))
def test_every_value_that_holds_the_schema_can_be_said_and_no_other(
    schema: dict[str, Any], drawn: Any, seed: int
) -> None:
    """Drawn ones, and those that the rules give with one part changed."""
    found, rules = compiled(schema)
    validator = jsonschema.Draft202012Validator(schema)
    rng = random.Random(seed)
    near = [plain_numbers(changed(json.loads(rules.sample(rng)), drawn, rng)) for _ in range(6)]
    for value in (drawn, *near):
        holds = validator.is_valid(value)
        assert found.is_held(dumps(value)) == holds
        assert rules.matches(dumps(value)) == holds or (holds and not _in_order(schema, value))


def _in_order(schema: Any, value: Any) -> bool:
    """Joined schemas list properties in the order in which they are joined, alternatives in their own."""
    return not any(word in dumps(schema) for word in ("allOf", "anyOf", "oneOf")) or not isinstance(value, dict | list)


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_a_text_is_said_as_it_is(text: str) -> None:
    """As a value, in a list, as a property's name and in an object that is a value."""
    for schema, value in (
        ({"enum": [text, "other"]}, text),
        ({"const": [text, {text: text}]}, [text, {text: text}]),
        ({"type": "object", "properties": {text: {"const": 1}}, "required": [text]}, {text: 1}),
        ({"type": "object", "required": [text], "additionalProperties": {"type": "null"}}, {text: None}),
    ):
        assert accepts(schema, dumps(value)), schema
        assert all(found == value or found == "other" or text in found for found in said(schema))


@pytest.mark.parametrize(
    ("written", "spelled"),
    [
        *(("1.0", "1.0"), ("1", "1"), ("1e5", "100000.0"), ("-0", "0"), ("-0.0", "-0.0"), ("1E-7", "1e-07")),
        *((digits, digits) for digits in ("0.1", "12345678901234567890123", "-9007199254740993")),
    ],
)
def test_a_number_is_said_as_it_was_written(written: str, spelled: str) -> None:
    schema = json.loads(f'{{"enum": [{written}]}}')
    assert accepts(schema, spelled) and all(found == json.loads(written) for found in said(schema))


def test_true_is_not_one() -> None:
    assert not accepts({"enum": [1, 0.0]}, "true") and not accepts({"const": True}, "1")
    assert accepts({"enum": [1], "type": "integer"}, "1") and not JsonSchema({"const": 1}).is_held("true")
    assert accepts({"allOf": [{"enum": [1, True]}, {"enum": [1.0, "a"]}]}, "1")


@quick
@given(bounds=st.tuples(st.integers(-(10**6), 10**6), st.integers(0, 10**4)), n=st.integers(-(10**6), 10**6))
def test_integers_stay_between_their_bounds(bounds: tuple[int, int], n: int) -> None:
    low, high = bounds[0], bounds[0] + bounds[1]
    rules = Gbnf(JsonSchema({"type": "integer", "minimum": low, "maximum": high}).gbnf)
    for value in (low - 1, low, high, high + 1, n, (low + high) // 2, -low, 0):
        assert rules.matches(str(value)) == (low <= value <= high), (value, low, high)


@pytest.mark.parametrize(
    ("bounds", "inside", "outside"),
    [
        ({"minimum": 1.5}, ("2", "999999999999999999"), ("1", "-2", "02", "1000000000000000000")),
        ({"maximum": -1}, ("-1", "-10", "-999999999999999999"), ("0", "-0", "1")),
        ({"exclusiveMinimum": 3, "exclusiveMaximum": 5}, ("4",), ("3", "5", "4.0", "+4")),
        ({"exclusiveMaximum": 0.5, "minimum": -0.5}, ("0",), ("-0", "1", "-1")),
        ({"minimum": 999999999999999999}, ("999999999999999999",), ("99999999999999999",)),
    ],
    ids=str,
)
def test_bounds_of_integers(bounds: dict[str, Any], inside: tuple[str, ...], outside: tuple[str, ...]) -> None:
    schema = {"type": "integer", **bounds}
    assert [accepts(schema, text) for text in inside] == [True] * len(inside)
    assert [accepts(schema, text) for text in outside] == [False] * len(outside)


@quick
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=6), counts=st.tuples(*[st.integers(0, 5)] * 2))
def test_lengths_count_characters(text: str, counts: tuple[int, int]) -> None:
    schema = {"type": "string", "minLength": min(counts), "maxLength": max(counts)}
    held = min(counts) <= len(text) <= max(counts)
    assert accepts(schema, dumps(text)) == held
    assert accepts(schema, json.dumps(text)) == held or "\x7f" in text  # \ud83d\ude00 is one character


def test_half_a_surrogate_pair_is_never_said() -> None:
    for text in (r'"\ud83d"', r'"\ude00\ud83d"', r'"\uD83Dx"', '"\ud83d"'):
        assert not accepts({"type": "string"}, text)
    assert accepts({"type": "string"}, r'"\ud83d\ude00 \uD7FF\uE000"')


@quick
@given(names=st.lists(st.text('ab"\\é', max_size=4), max_size=5), name=st.text('ab"\\é', max_size=4))
def test_a_name_that_is_listed_is_no_other_name(names: list[str], name: str) -> None:
    schema = {"type": "object", "properties": dict.fromkeys(names, False), "additionalProperties": {"const": 1}}
    assert accepts(schema, dumps({name: 1})) == (name not in names and not {'"', "\\"} & {*name})


def test_a_name_that_is_required_is_said_even_where_nothing_describes_it() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "null"}}, "required": ["b"]}
    assert all(found.keys() in ({"b"}, {"a", "b"}) for found in said(schema))
    assert not accepts(schema, '{"a": null}') and accepts(schema, '{"a": null, "b": [1, {}]}')


@pytest.mark.parametrize(
    "text",
    [
        '{"action": "turn on", "device": "lamp"}',
        '{"action":"turn on","device":"lamp","level":7}',
        ' { "action" : "turn on" , "device" : "lamp" , "level" : 100 }',
    ],
)
def test_a_space_may_stand_between_two_signs(text: str) -> None:
    assert accepts(SWITCH, text) and not accepts(SWITCH, text.replace(":", ":  ")) and not accepts(SWITCH, text + " ")


def test_a_schema_without_types_means_those_that_it_speaks_of() -> None:
    assert all(isinstance(found, dict) for found in said({"required": ["a"]}))
    assert all(isinstance(found, str | list) for found in said({"minLength": 1, "maxItems": 1}))
    assert {type(found) for found in said({}, 200)} == {dict, list, str, int, float, bool, type(None)}


def test_alternatives_that_exclude_each_other_are_held() -> None:
    on = {"properties": {"kind": {"const": "on"}, "level": {"type": "integer"}}, "required": ["kind", "level"]}
    off = {"properties": {"kind": {"const": "off"}}, "required": ["kind"]}
    schema = {"type": "object", "oneOf": [on, off]}
    assert accepts(schema, '{"kind": "on", "level": 3}') and accepts(schema, '{"kind": "off"}')
    assert not accepts(schema, '{"kind": "on"}')
    with pytest.raises(InputError, match=r"oneOf at /oneOf\): a value may fit 0 and 1 at once"):
        JsonSchema({"oneOf": [on, off]})  # as "x" does, of which neither says anything
    closed = [{"required": [name], "properties": {name: {}}, "additionalProperties": False} for name in "ab"]
    assert accepts({"type": "object", "oneOf": closed}, '{"a": 1}')


def test_what_is_no_whole_answer_is_no_value() -> None:
    schema = JsonSchema(SWITCH)
    whole = '{"action": "turn on", "device": "lamp"}'
    assert schema.value(whole) == schema.value(whole, "length") == json.loads(whole)
    for text in (whole[:-1], "", whole.replace("on", "of"), "[" * 100_000, '{"action": "turn on"}', "null"):
        assert not schema.is_held(text)
    assert not schema.is_held(whole, "time") and not JsonSchema({"type": "number"}).is_held("NaN")
    assert JsonSchema({"type": "integer"}).is_held("12") and not JsonSchema({"type": "integer"}).is_held("12", "length")


def test_a_file_that_is_no_schema_is_a_sentence(tmp_path: Path) -> None:
    for name, text in (
        *(("half.json", b'{"type": '), ("list.json", b"[1, 2]"), ("true.json", b"true"), ("bytes.json", b"\xff\xfe{}")),
        ("long.json", b'{"const": ' + b"9" * 5000 + b"}"),
        *(("nan.json", b'{"const": NaN}'), ("twice.json", b'{"type": "string", "type": "null"}')),
    ):
        (tmp_path / name).write_bytes(text)
        with pytest.raises(InputError, match=name):
            read_schema(tmp_path / name)
    with pytest.raises(InputError, match=r"absent\.json cannot be read"):
        read_schema(tmp_path / "absent.json")


def test_a_large_schema_is_read_quickly_or_refused() -> None:
    many = {f"p{i}": {"type": "string"} for i in range(300)}
    assert len(JsonSchema({"type": "object", "properties": many}).gbnf) < 200_000
    laughs = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(20)} | {"d20": {"type": "null"}}
    assert accepts({"$ref": "#/$defs/d0", "$defs": laughs}, "null")
    twice = {
        "$ref": "#/$defs/x",
        "allOf": [{"$ref": "#/$defs/x"}],
        "$defs": {"x": {"anyOf": [{"const": i} for i in range(300)]}},
    }
    assert accepts(twice, "299")
    cases = {"allOf": [{"anyOf": [{"maxLength": i}, {"maxItems": i}]} for i in range(20)]}
    with pytest.raises(InputError, match="over 500 cases"):
        JsonSchema(cases)
