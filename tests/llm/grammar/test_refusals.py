"""What no grammar holds is refused by its keyword and its JSON pointer, before anything is heard."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from auricle.models.errors import InputError
from auricle.runtime.__main__ import main
from auricle.runtime.cli import ask, caption, chat
from auricle.runtime.cli.live import assist, listen
from auricle.runtime.llm.grammar.json_schema import JsonSchema

specifications = pytest.importorskip("jsonschema_specifications")

HELD = {
    *("type", "enum", "const", "properties", "required", "additionalProperties", "items", "prefixItems", "minItems"),
    *("maxItems", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    *("allOf", "anyOf", "oneOf", "$ref", "$defs", "definitions", "uniqueItems"),
    *("$schema", "$id", "$comment", "title", "description", "default", "examples", "deprecated", "readOnly"),
    *("writeOnly",),
}
OTHERS = ("nullable", "discriminator", "xml", "x-order", "minimun", "optional", "enumNames", "divisibleBy")
NESTED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("", {}),
    ("/properties/a~1b", {"type": "object", "properties": {"a/b": {}}}),
    ("/items", {"type": "array", "items": {}}),
    ("/prefixItems/0", {"type": "array", "prefixItems": [{}]}),
    ("/anyOf/1", {"anyOf": [{"type": "null"}, {}]}),
    ("/oneOf/0", {"oneOf": [{}]}),
    ("/allOf/0", {"allOf": [{}]}),
    ("/additionalProperties", {"type": "object", "additionalProperties": {}}),
    ("/$defs/never used", {"$defs": {"never used": {}}}),
)


def keywords() -> Iterator[str]:
    """Every keyword of the meta-schemas of draft-03 to 2020-12."""
    for identifier in specifications.REGISTRY:
        schema = specifications.REGISTRY.contents(identifier)
        yield from schema.get("properties", {}) if isinstance(schema, dict) else ()


def placed(outer: dict[str, Any], pointer: str, inner: dict[str, Any]) -> dict[str, Any]:
    """A copy of the outer schema with the inner one at its pointer."""
    copy = json.loads(json.dumps(outer))
    found: Any = copy
    for step in pointer.split("/")[1:]:
        found = found[int(step) if isinstance(found, list) else step.replace("~1", "/")]
    found |= inner
    return copy


def test_the_meta_schemas_are_read() -> None:
    found = {*keywords()}
    assert found >= HELD - {"definitions"} and len(found - HELD) > 20
    assert found >= {"not", "if", "multipleOf", "unevaluatedProperties", "dependentRequired", "dependencies", "pattern"}


@pytest.mark.parametrize("keyword", sorted({*keywords(), *OTHERS} - HELD))
def test_a_keyword_that_is_not_held_is_named_wherever_it_stands(keyword: str) -> None:
    for pointer, outer in NESTED:
        for value in (True, {}, 1, "x", None):
            with pytest.raises(InputError) as caught:
                JsonSchema(placed(outer, pointer, {keyword: value}))
            assert str(caught.value) == (
                f"the JSON schema cannot be held ({keyword} at {pointer}/{keyword}): "
                "leave this keyword out, and check its condition yourself"
            )


def test_annotations_say_nothing() -> None:
    notes = {"$schema": "x", "$comment": 1, "title": "t", "description": {}, "default": math.nan, "examples": [object]}
    flags = {"deprecated": True, "readOnly": True, "writeOnly": True}
    for pointer, outer in NESTED:
        assert JsonSchema(placed(outer, pointer, {"type": "object", **flags}))
        assert JsonSchema({"type": "object", "properties": {"a": {**notes, **flags}}, **notes}).is_held('{"a": 1}')
    assert JsonSchema({"$id": "https://example.com/x", "type": "null"})
    with pytest.raises(InputError, match=r"\$id at /items/\$id"):  # it would change what $ref means
        JsonSchema({"items": {"$id": "https://example.com/x"}})


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"type": "nonsense"}, "type at /type"),
    ({"type": []}, "type at /type"),
    ({"type": {"a": 1}}, "type at /type"),
    ({"enum": []}, "enum at /enum"),
    ({"enum": {"a": 1}}, "enum at /enum"),
    ({"enum": ["a", "\ud800"]}, "1 at /enum/1"),
    ({"const": {"\udfff": 1}}, "const at /const"),
    ({"const": math.inf}, "const at /const"),
    ({"const": 1 << 20_000}, "const at /const"),
    ({"const": [(1, 2)]}, "const at /const"),
    ({"properties": 3}, "properties at /properties"),
    ({"properties": {"a": 3}}, "a at /properties/a"),
    ({"properties": {"\ud800": {}}}, "properties at /properties"),
    ({"properties": {"a\nb": {"not": {}}}}, r"not at /properties/a\nb/not"),
    ({"items": [{}]}, "items at /items"),
    ({"prefixItems": {}}, "prefixItems at /prefixItems"),
    ({"anyOf": []}, "anyOf at /anyOf"),
    ({"anyOf": ["string"]}, "0 at /anyOf/0"),
    ({"required": "a"}, "required at /required"),
    ({"required": [1]}, "required at /required"),
    ({"minLength": -1}, "minLength at /minLength"),
    ({"minLength": "1"}, "minLength at /minLength"),
    ({"maxLength": True}, "maxLength at /maxLength"),
    ({"maxLength": 2000}, "maxLength at /maxLength"),
    ({"maxItems": math.inf}, "maxItems at /maxItems"),
    ({"maxItems": 1.5}, "maxItems at /maxItems"),
    ({"uniqueItems": True}, "uniqueItems at /uniqueItems"),
    ({"minimum": 3}, "minimum at /minimum"),
    ({"type": "number", "maximum": 3}, "maximum at /maximum"),
    ({"type": ["null", "number"], "exclusiveMaximum": 3}, "exclusiveMaximum at /exclusiveMaximum"),
    ({"type": "integer", "exclusiveMinimum": True}, "exclusiveMinimum at /exclusiveMinimum"),
    ({"type": "integer", "minimum": 10**18}, "minimum at /minimum"),
    ({"type": "integer", "minimum": math.nan}, "minimum at /minimum"),
    ({"$ref": "#/nowhere"}, "$ref at /$ref"),
    ({"$ref": "https://example.com/schema"}, "$ref at /$ref"),
    ({"$ref": "#anchor"}, "$ref at /$ref"),
    ({"$ref": 3}, "$ref at /$ref"),
    ({"$ref": "#"}, "$ref at /$ref"),
    ({"items": {"$ref": "#"}}, "$ref at /items/$ref"),
    ({"anyOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}}, "$ref at /$defs/a"),
    ({"$ref": "#/enum/0", "enum": [{"not": {}}]}, "not at /enum/0/not"),
    ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf at /oneOf"),
    ({"oneOf": [{"enum": [1, 2]}, {"enum": [2.0]}]}, "oneOf at /oneOf"),
    ({"oneOf": [{"const": "a"}, {"type": "string", "maxLength": 1}]}, "oneOf at /oneOf"),
]


@pytest.mark.parametrize(("schema", "where"), WRONG, ids=range(len(WRONG)))
def test_a_value_that_makes_no_sense_is_a_sentence(schema: dict[str, Any], where: str) -> None:
    with pytest.raises(InputError) as caught:
        JsonSchema(schema)
    said = str(caught.value)
    assert said.startswith(f"the JSON schema cannot be held ({where}") and said.isprintable() and len(said) < 300


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "enum": [1]},
        {"type": "integer", "minimum": 5, "maximum": 4},
        {"type": "array", "minItems": 2, "maxItems": 1},
        {"type": "object", "properties": {"a": False}, "required": ["a"]},
        {"type": "object", "required": ["a"], "additionalProperties": False},
        {"allOf": [{"type": "string"}, {"type": "null"}]},
        {"anyOf": [False]},
    ],
    ids=str,
)
def test_what_nothing_holds_is_a_sentence(schema: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="no value fits it"):
        JsonSchema(schema)


@pytest.mark.parametrize("word", ["items", "anyOf", "const", "$ref"])
def test_what_lies_deep_in_itself_is_a_sentence(word: str) -> None:
    deep: Any = {}
    for _ in range(400):
        deep = {word: [deep] if word == "anyOf" else deep}
    if word == "$ref":
        deep = {"$ref": "#/$defs/0", "$defs": {f"{i}": {"$ref": f"#/$defs/{i + 1}"} for i in range(3000)}}
        deep["$defs"]["3000"] = {}
    with pytest.raises(InputError, match="64 levels deep"):
        JsonSchema(deep)


COMMANDS = {
    ask: ["ask", "clip.wav", "asr"],
    caption: ["caption", "clip.wav"],
    chat: ["chat", "clip.wav", "asr"],
    assist: ["assist", "clip.wav"],
    listen: ["listen", "clip.wav"],
}


@pytest.mark.parametrize("module", COMMANDS, ids=lambda module: module.__name__.rpartition(".")[2])
def test_a_command_refuses_before_anything_is_opened(
    module: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "open_engine", lambda _: pytest.fail("the model was opened"))
    schema = {"type": "object", "properties": {"rooms": {"type": "array", "uniqueItems": True}}}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    assert main([*COMMANDS[module], "--json-schema", str(tmp_path / "schema.json")]) == 2
    shown = capsys.readouterr()
    assert not shown.out and shown.err.count("\n") == 1
    assert "(uniqueItems at /properties/rooms/uniqueItems)" in shown.err
    (tmp_path / "rules.gbnf").write_text('root ::= "a"')
    both = ["--json-schema", str(tmp_path / "schema.json"), "--grammar", str(tmp_path / "rules.gbnf")]
    assert main([*COMMANDS[module], *both]) == 2
    assert "not both" in capsys.readouterr().err


@pytest.mark.parametrize("step", ["1" * 5000, "x" * 5000])
def test_a_long_reference_is_a_short_sentence(step: str) -> None:
    with pytest.raises(InputError, match="names nothing in this file") as caught:
        JsonSchema({"$ref": f"#/anyOf/{step}", "anyOf": [{}]})
    assert len(str(caught.value)) < 500
