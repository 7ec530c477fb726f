"""JSON answers: whatever the model would like to say, what ends by itself is JSON of the schema's form."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from auricle.models.bundle import read_manifest
from auricle.models.errors import InputError, RunError
from auricle.runtime.llm.grammar.gbnf import Grammar, read_grammar
from auricle.runtime.llm.grammar.json_schema import JsonSchema, read_schema
from auricle.runtime.llm.options import LlmOptions
from auricle.runtime.llm.sampling import Generation
from auricle.runtime.llm.session import Llm
from memory import held_bytes

INTENT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "action": {"enum": ["turn on", "turn off", "none"]},
        "device": {"type": "string", "maxLength": 10},
        "rooms": {"type": "array", "items": {"type": "string", "maxLength": 6}, "maxItems": 2},
        "level": {"type": "integer"},
        "sure": {"type": "boolean"},
    },
    "required": ["action", "device", "rooms", "level", "sure"],
    "additionalProperties": False,
}
SCHEMAS: tuple[dict[str, Any], ...] = (
    {"enum": ["line\nbreak", "tab\t", "😀 \U0010ffff", 'say "hi"', "\\n", "\x00\x7f", "", [], {"[a-z]*": -1e-7}]},
    {"type": "object", "properties": {"😀\n\\": {"type": "null"}, "": {"const": 0}}, "required": ["😀\n\\"]},
    {"type": "object", "properties": {"ab": {"type": "null"}, "a": {}}, "additionalProperties": {"type": "boolean"}},
    {"type": "integer", "minimum": -1234, "maximum": 99},
    {"type": "string", "minLength": 3, "maxLength": 1999},
    {"type": "array", "items": {"type": ["null", "boolean"]}, "minItems": 20, "maxItems": 1999},
    {"prefixItems": [{"type": "number"}, {"$ref": "#/$defs/x"}], "minItems": 3, "$defs": {"x": {"maxLength": 2}}},
    {"anyOf": [{"type": "array", "maxItems": 1}, {"type": "string", "maxLength": 1}, {"type": "number"}]},
)


@pytest.fixture(scope="module")
def llm(golden_bundle: Path) -> Iterator[Llm]:
    with Llm(golden_bundle / "llm.gguf", read_manifest(golden_bundle), None, LlmOptions(n_threads=1)) as opened:
        yield opened


@pytest.fixture
def grammar(llm: Llm) -> Grammar:
    return llm.grammar(JsonSchema(INTENT).gbnf)


def random_answer(llm: Llm, grammar: Grammar, seed: int, limit: int = 400) -> str:
    """What a model says that likes every token equally well, but the quote better: or hardly a string would end."""
    rng = np.random.default_rng(seed)
    (quote,) = llm.prompts.tokenize('"')[-1:]
    ids: list[int] = []
    grammar.reset()
    while len(ids) < limit:
        logits = rng.normal(size=32000).astype(np.float32)
        logits[quote] += 3
        token = int(grammar.mask(llm.allowed(logits)).argmax())
        if token in llm.eos:
            return llm.text(ids)
        grammar.accept(token)
        ids.append(token)
    raise AssertionError(f"no end after {limit} tokens: {llm.text(ids)}")


@pytest.mark.parametrize("seed", range(5))
def test_random_words_are_valid_json(llm: Llm, grammar: Grammar, seed: int) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    answer = random_answer(llm, grammar, seed)
    jsonschema.validate(json.loads(answer), INTENT)
    assert "\n" not in answer.strip() and "\ufffd" not in answer


@pytest.mark.parametrize("schema", SCHEMAS, ids=range(len(SCHEMAS)))
def test_llama_reads_the_rules_of_every_schema(llm: Llm, schema: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    compiled = JsonSchema(schema)
    for seed in range(2):
        answer = random_answer(llm, llm.grammar(compiled.gbnf), seed)
        jsonschema.validate(json.loads(answer), schema)
        assert compiled.is_held(answer)


def test_the_golden_models_answer_is_valid_json(llm: Llm, golden: Path) -> None:
    """Greedy, through the same method as everything else."""
    jsonschema = pytest.importorskip("jsonschema")
    tokens = np.load(golden / "salmonn-tiny" / "jfk_11s.npz")["audio_tokens"]
    generation = Generation(max_new_tokens=150, gbnf=JsonSchema(INTENT).gbnf)
    llm.prefill(tokens, "What shall I do?", generation)
    ids = list(llm.generate(generation))
    assert len(ids) < 150
    jsonschema.validate(json.loads(llm.text(ids)), INTENT)


def test_control_characters_never_stand_in_a_string(llm: Llm) -> None:
    grammar = llm.grammar(JsonSchema({"type": "string"}).gbnf)
    (quote,) = llm.prompts.tokenize('"')[-1:]
    grammar.accept(quote)
    newline = next(i for i in range(32000) if llm.text([5, i]).endswith("\n"))
    likely = np.zeros(32000, np.float32)
    likely[newline] = 100
    assert grammar.mask(likely)[newline] == -np.inf


def test_a_model_may_begin_with_sentencepieces_space(llm: Llm, grammar: Grammar) -> None:
    """`▁{"`: what a model has learnt that was trained on JSON as the text of an answer."""
    first = llm.prompts.tokenize('{"action"')[0]
    likely = np.zeros(32000, np.float32)
    likely[first] = 100
    assert grammar.mask(likely).argmax() == first


def test_the_likeliest_token_is_the_same_with_and_without_the_shortcut(
    llm: Llm, grammar: Grammar, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = [np.random.default_rng(seed).normal(size=32000).astype(np.float32) for seed in range(5)]
    short = [grammar.mask(row).argmax() for row in logits]
    monkeypatch.setattr("auricle.runtime.llm.grammar.gbnf.N_LIKELY", 32000)
    assert [grammar.mask(row).argmax() for row in logits] == short


def test_beams_are_refused() -> None:
    with pytest.raises(InputError, match="beams=2 cannot follow a grammar"):
        Generation(beams=2, gbnf=JsonSchema(INTENT).gbnf)


def test_where_nothing_fits_is_an_error(llm: Llm, grammar: Grammar) -> None:
    with pytest.raises(RunError, match="no token"):
        grammar.mask(np.full(32000, -np.inf, np.float32))


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_bytes(b'\xef\xbb\xbf{"type": "string"}')
    (tmp_path / "rules.gbnf").write_bytes(b'\xef\xbb\xbfroot ::= "a"')
    assert read_schema(tmp_path / "schema.json") == {"type": "string"}
    assert read_grammar(tmp_path / "rules.gbnf") == 'root ::= "a"'


def test_what_lies_too_deep_in_itself_is_a_sentence(llm: Llm, tmp_path: Path) -> None:
    """llama.cpp's parser would take the stack, and the process with it."""
    with pytest.raises(InputError, match="60000 deep"):
        llm.grammar("root ::= " + 60_000 * "(" + '"a"' + 60_000 * ")")
    assert llm.grammar("root ::= " + 200 * "(" + '"a"' + 200 * ")") is not None
    (tmp_path / "deep.json").write_text(200_000 * '{"items":' + "{}" + 200_000 * "}")
    with pytest.raises(InputError, match="too deep"):
        read_schema(tmp_path / "deep.json")


def test_rules_that_are_none_are_a_sentence_and_nothing_is_printed(llm: Llm, capfd: pytest.CaptureFixture[str]) -> None:
    for gbnf, reason in (
        ("root ::= nowhere", "Undefined rule identifier 'nowhere'"),
        ('other ::= "a"', "grammar does not contain a 'root' symbol"),
        ("root ::= (", "expecting ')'"),
        ("root ::= [", "unexpected end of input"),
        ("root ::= root", "unsupported grammar, left recursion detected for nonterminal at index 0"),
    ):
        with pytest.raises(InputError) as caught:
            llm.grammar(gbnf)
        assert f"cannot read this grammar ({reason}): " in str(caught.value) and "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "rules", [") " * 3000, "[" * 100_000, "x\t\x01" * 40, "a{" + 5000 * "1" + "," + 5000 * "2" + "}"]
)
def test_of_rules_that_are_none_a_line_is_shown(llm: Llm, rules: str) -> None:
    with pytest.raises(InputError) as caught:
        llm.grammar(f'root ::= "a" {rules}')
    assert len(str(caught.value)) < 400 and str(caught.value).isprintable()


def test_rules_are_refused_where_no_file_can_be_made(llm: Llm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    with pytest.raises(InputError, match="cannot read this grammar"):
        llm.grammar("root ::= elsewhere")


def test_a_repetition_that_llama_would_never_finish_unrolling(llm: Llm) -> None:
    for gbnf in ('root ::= "a"{2,1}', 'root ::= [a"]{12, 3} # {1,2}'):
        with pytest.raises(InputError, match="repeats something"):
            llm.grammar(gbnf)
    llm.grammar('root ::= "{2,1}" [{2,1}] "\\"{2,1}" ("a" | "b"){1,2} # {2,1}')


def test_opening_often_leaks_nothing(llm: Llm) -> None:
    gbnf, resident = JsonSchema(INTENT).gbnf, list[int]()
    for _ in range(60):
        rules = Grammar(llm._model, gbnf)
        rules.mask(np.zeros(32000, np.float32))
        rules.close()
        rules.close()
        resident.append(held_bytes())
    assert resident[-1] - resident[9] < 4 << 20
