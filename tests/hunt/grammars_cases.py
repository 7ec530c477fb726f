"""Grammars: rules drawn at random, those that schemas make, and spoiled ones, read by llama.cpp and by its mask."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from auricle.models.errors import InputError, RunError
from auricle.runtime.llm.grammar.gbnf import Grammar, read_grammar
from auricle.runtime.llm.grammar.json_schema import JsonSchema
from auricle.runtime.llm.llama import Model
from hunting import ROOT, Case
from hypothesis import strategies as st
from schemas import any_schema
from schemas_cases import BLOCK, drawn

LLM = ROOT / "build" / "golden-bundle" / "llm.gguf"
N_TOKENS = 4  # each takes a second where thousands of alternatives may follow
NAMES = st.sampled_from(("root", "a", "b", "c-1", "nowhere"))
PIECES = st.one_of(
    NAMES,
    st.text(st.characters(codec="utf-8"), max_size=5).map(lambda text: f'"{text}"'),
    st.sampled_from(
        ('"\\x41"', "[a-z]", "[^\\n]", "[\\U0001F600-\\U0001F64F]", "[z-a]", "[]", "[", '"', ".", "<[3]>", "\\")
    ),
    st.sampled_from(
        ("{3}", "{0,2}", "{2,1}", "{1,99999}", "{,}", "{99999999999}", "*", "+", "?", "(", ")", "|", "::=")
    ),
    st.sampled_from(("# why", "\n", "\n\n", "\t", "\0", "\r\n")),
)
BODIES = st.recursive(
    st.lists(PIECES, max_size=6).map(" ".join),
    lambda inner: st.one_of(inner.map(lambda body: f"({body})"), st.tuples(inner, inner).map(" | ".join)),
    max_leaves=6,
)
RULES = st.lists(st.tuples(NAMES, BODIES).map(" ::= ".join), max_size=4)
GRAMMARS = st.tuples(BODIES.map("root ::= {}".format), RULES).map(lambda found: "\n".join([found[0], *found[1]]))


def _rules(schema: Any) -> str:
    try:
        return JsonSchema(schema).gbnf
    except InputError:
        return 'root ::= "no"'


@cache
def _block(seed: int, number: int) -> list[str]:
    return drawn(GRAMMARS | GRAMMARS | any_schema().map(_rules), seed * 1_000_003 + number)


@cache
def _model() -> Model:
    return Model(LLM)


def make_case(seed: int, number: int) -> Case:
    """As drawn, or with a piece of the text elsewhere, twice, many times or away."""
    rng = random.Random(f"grammar {seed} {number}")
    text = _block(seed, number // BLOCK)[number % BLOCK]
    if rng.random() < 0.4:
        start = rng.randrange(len(text) + 1)
        piece = text[start : start + rng.choice((1, 3, 20))]
        to = rng.randrange(len(text) + 1)
        text = text[:to] + piece * rng.choice((0, 1, 1, 2, 50, 5000)) + text[to + rng.choice((0, 0, 1, 5)) :]
    return Case("rules", text.encode(errors="surrogatepass"), ".gbnf")


def run_case(case: Case, folder: Path) -> int:
    """Tokens that some answer has by these rules."""
    path = folder / "rules.gbnf"
    path.write_bytes(case.content)
    model = _model()
    grammar = Grammar(model, read_grammar(path))
    rng = np.random.default_rng(0)
    try:
        for n in range(N_TOKENS):
            masked = grammar.mask(rng.standard_normal(model.vocab).astype(np.float32))
            token = int(masked.argmax())
            if token in model.eos:
                return n
            grammar.accept(token)
    except RunError:
        return -1
    finally:
        grammar.close()
    return N_TOKENS
