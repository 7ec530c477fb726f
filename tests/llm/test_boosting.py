"""Keyword boosting: which tokens gain, that every way of decoding agrees on it, and where it must not reach."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from auricle.models.errors import InputError
from auricle.runtime import EngineOptions, load
from auricle.runtime.engine import Engine
from auricle.runtime.llm.boosting import KeywordBoost, unboosted
from auricle.runtime.llm.options import LlmOptions
from auricle.runtime.llm.sampling import Generation
from auricle.runtime.llm.speculative import reply_to_all

PIECES = ["x", " x", " kit", "chen", "kit", " Kit", "Kit", " fan", "fan", " Fan", "Fan", '"', "a"]
IDS = {piece: number for number, piece in enumerate(PIECES)}


def tokenize(text: str) -> list[int]:
    """The longest piece first."""
    ids: list[int] = []
    while text:
        piece = max((piece for piece in PIECES if text.startswith(piece)), key=len)
        ids.append(IDS[piece])
        text = text[len(piece) :]
    return ids


def gains(words: Sequence[str], answer: Sequence[str]) -> set[str]:
    """What is boosted behind the pieces of an answer."""
    boost = KeywordBoost(words, 3.0, tokenize, lambda token: PIECES[token].encode())
    logits = np.zeros(len(PIECES), np.float32)
    boosted = boost(logits, [IDS[piece] for piece in answer])
    assert not logits.any()  # the caller's are as they were
    assert set(boosted) <= {0.0, 3.0}
    return {PIECES[token] for token in np.flatnonzero(boosted)}


def test_the_beginnings_of_words_gain_in_either_case() -> None:
    assert gains(["kitchen"], []) == {" kit", "kit", " Kit", "Kit"}
    assert gains(["kitchen"], [" x"]) == {" kit", " Kit"}


def test_a_word_that_was_begun_gains_on_to_its_end() -> None:
    assert "chen" in gains(["kitchen"], [" x", " kit"])
    assert "chen" not in gains(["kitchen"], [" x", " kit", "chen"])
    assert "chen" not in gains(["kitchen"], [" kit", " x"])


def test_without_a_space_it_begins_only_where_no_letter_stands_before() -> None:
    assert {"fan", " fan"} <= gains(["fan"], ['"'])
    assert gains(["fan"], ["a"]) == {" fan", " Fan"}


def test_words_behind_each_other_are_one() -> None:
    assert {" fan", " kit"} <= gains(["kitchen fan"], [" kit", "chen"])
    assert " fan" not in gains(["kitchen fan"], [" x"])


@pytest.fixture(scope="module")
def engine(golden_bundle: Path) -> Iterator[Engine]:
    with load(golden_bundle, EngineOptions(llm=LlmOptions(n_threads=1, keyword_boost=20.0))) as opened:
        yield opened


@pytest.fixture
def audio_tokens(engine: Engine) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(12, engine.spec.llm.hidden)).astype(np.float32)


def test_the_prompt_is_as_without_words(engine: Engine) -> None:
    plain = engine.llm.prompts.around("What is said?")
    engine.keywords = ("garage",)
    assert engine.llm.prompts.around("What is said?") == plain
    engine.keywords = ()
    assert engine.llm.prompts.boost is unboosted


def test_every_way_of_decoding_writes_the_same(engine: Engine, audio_tokens: np.ndarray) -> None:
    """Token by token, by beams of one, and as a draft that is checked."""
    prompt, plain = "What is said?", Generation(12)
    engine.keywords = ()
    engine.llm.prefill(audio_tokens, prompt)
    unlisted = tuple(engine.llm.generate(plain))
    engine.keywords = ("garage", "Zhang Wei")
    engine.llm.prefill(audio_tokens, prompt)
    listed = tuple(engine.llm.generate(plain))
    assert listed != unlisted
    assert engine.llm.text(listed[:1]).strip() in ("gar", "Gar", "Z", "z")
    for draft in ((), unlisted, listed):
        found = reply_to_all(engine.llm, audio_tokens, [prompt], [draft], [12])
        assert found.replies[0].ids == listed
    engine.llm.prefill(audio_tokens, prompt, Generation(12, beams=2))
    searched = tuple(engine.llm.generate(Generation(12, beams=2)))
    assert engine.llm.text(searched[:1]).strip() in ("gar", "Gar", "Z", "z")
    engine.keywords = ()


def test_probabilities_stay_those_of_the_model(engine: Engine, audio_tokens: np.ndarray) -> None:
    """A word that only the list brought is one that the model did not find likely."""
    engine.keywords = ("garage",)
    found = reply_to_all(engine.llm, audio_tokens, ["What is said?"], [()], [6]).replies[0]
    engine.keywords = ()
    plain = reply_to_all(engine.llm, audio_tokens, ["What is said?"], [()], [6]).replies[0]
    assert found.avg_logprob is not None and plain.avg_logprob is not None
    assert found.avg_logprob < plain.avg_logprob


def test_a_question_without_audio_is_not_boosted(golden_bundle: Path) -> None:
    with load(golden_bundle, EngineOptions(llm=LlmOptions(n_threads=1, keyword_boost=20.0))) as engine:
        engine.llm.prefill_text("What is that?")
        plain = tuple(engine.llm.generate(Generation(8)))
        engine.keywords = ("garage",)
        engine.llm.prefill_text("What is that?")
        assert tuple(engine.llm.generate(Generation(8))) == plain


@pytest.mark.parametrize("nats", [-1.0, 21.0, float("nan")])
def test_a_boost_that_makes_no_sense_is_refused(nats: float) -> None:
    with pytest.raises(InputError, match="0 to 20"):
        LlmOptions(keyword_boost=nats)
