"""Ids to text and back: all at once or while they arrive, no character is broken and none is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from auricle.models.bundle import read_manifest
from auricle.runtime.llm.detokenizer import detokenize
from auricle.runtime.llm.options import LlmOptions
from auricle.runtime.llm.session import Llm
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def llm(golden_bundle: Path) -> Iterator[Llm]:
    with Llm(golden_bundle / "llm.gguf", read_manifest(golden_bundle), None, LlmOptions(n_threads=1)) as opened:
        yield opened


@settings(deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="▁")))
def test_any_text_comes_back(llm: Llm, text: str) -> None:
    ids = llm.prompts.tokenize(text)
    assert not {0, 1, 2} & set(ids)
    assert llm.text(ids) == text


@settings(deadline=None)
@given(st.lists(st.integers(0, 31999) | st.integers(0, 300)))
def test_the_stream_says_what_the_whole_says(llm: Llm, ids: list[int]) -> None:
    """Ids 3 to 258 are single bytes, 0 to 2 specials."""
    stream = llm.detokenizer()
    parts = [stream.add(token) for token in ids]
    whole = "".join([*parts, stream.finish()])
    assert whole == llm.text(ids) == llm.text([token for token in ids if token > 2])


@settings(deadline=None)
@given(st.text(alphabet="aé中🙂 ", min_size=1))
def test_no_half_character_is_said(llm: Llm, text: str) -> None:
    stream = llm.detokenizer()
    said = ""
    for token in (byte + 3 for byte in text.encode("utf-8")):
        said += stream.add(token)
        assert text.removeprefix(" ").startswith(said)
    assert said + stream.finish() == text.removeprefix(" ")


def test_bytes_that_make_no_character_are_marked(llm: Llm) -> None:
    stream = llm.detokenizer()
    assert [stream.add(0xE4 + 3), stream.finish()] == ["", "�"]
    assert llm.text([0xE4 + 3, 0xB8 + 3, *llm.prompts.tokenize("a")]) == "� a"


def test_only_the_first_space_goes() -> None:
    pieces = [b"", b" one", b"", b" two", b" ", b" "]
    assert detokenize(range(6), pieces.__getitem__) == "one two  "
    assert detokenize([5, 5, 1], pieces.__getitem__) == "  one"


def test_sentencepiece_decodes_the_same(llm: Llm, golden: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    model = golden / "salmonn-tiny" / "checkpoint" / "vicuna" / "tokenizer.model"
    reference = sentencepiece.SentencePieceProcessor(model_file=str(model))
    rng = np.random.default_rng(0)
    for _ in range(300):
        ids = rng.integers(259, 32000, size=rng.integers(0, 20)).tolist()
        assert llm.text(ids) == reference.decode(ids)
