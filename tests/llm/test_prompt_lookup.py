"""Guessed tokens change how many passes an answer takes, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from auricle.models.bundle import Manifest, read_manifest
from auricle.models.errors import InputError, RunError
from auricle.runtime.llm.conversation import Conversation
from auricle.runtime.llm.decoding import PromptLookup, decode
from auricle.runtime.llm.llama import Context, Floats
from auricle.runtime.llm.options import LlmOptions
from auricle.runtime.llm.sampling import Generation
from auricle.runtime.llm.session import AUDIO, Llm
from hypothesis import given
from hypothesis import strategies as st

VOCAB = 7
EOS = 0


class Written:
    """A language model whose next token hangs on the last two alone, so that it says much again."""

    def __init__(self, prompt: Sequence[int], seed: int) -> None:
        self.ids = list(prompt)
        self.passes: list[int] = []
        self._table = np.random.default_rng(seed).normal(size=(VOCAB + 1, VOCAB + 1, VOCAB)).astype(np.float32)

    def read(self, ids: Sequence[int]) -> Floats:
        self.passes.append(len(ids))
        begin = len(self.ids)
        self.ids += ids
        return np.stack([self.logits(end) for end in range(begin + 1, len(self.ids) + 1)])

    def drop(self, n: int) -> None:
        del self.ids[n:]

    def logits(self, end: int) -> Floats:
        return self._table[self.ids[end - 2], self.ids[end - 1]]


def written(prompt: Sequence[int], seed: int, generation: Generation, most: int) -> tuple[list[int], Written]:
    model = Written(prompt, seed)
    end = len(prompt) + generation.max_new_tokens - 1
    lookup = PromptLookup(model.ids, model.read, model.drop, most, end)
    ids = list(decode(model.logits(len(model.ids)), lookup.step, generation, {EOS}))
    assert model.ids[: len(prompt)] == list(prompt)
    assert len(model.ids) <= end
    return ids, model


@given(
    st.lists(st.integers(AUDIO, VOCAB - 1), min_size=2, max_size=40),
    st.integers(0, 50),
    st.sampled_from([0.0, 0.7]),
    st.integers(1, 16),
    st.integers(1, 30),
)
def test_the_answer_is_the_one_without_guesses(
    prompt: list[int], seed: int, temperature: float, most: int, n_new: int
) -> None:
    generation = Generation(max_new_tokens=n_new, temperature=temperature, top_p=1.0, seed=seed)
    alone, model = written(prompt, seed, generation, 0)
    ids, guessed = written(prompt, seed, generation, most)
    assert ids == alone
    assert len(guessed.passes) <= len(model.passes)
    assert max([1, *guessed.passes]) <= 1 + most


def test_what_is_said_again_takes_fewer_passes() -> None:
    model = Written([1, 2, 3, 4, 5, 6, 1, 2], 0)
    model._table[:] = 0
    for last in range(1, VOCAB):
        model._table[:, last, last % 6 + 1] = 1.0  # 1 2 3 4 5 6 1 2 ... without end
    lookup = PromptLookup(model.ids, model.read, model.drop, 8, 1000)
    ids = list(decode(model.logits(8), lookup.step, Generation(max_new_tokens=60), {EOS}))
    assert ids == [n % 6 + 1 for n in range(2, 62)]
    assert model.passes[:4] == [3, 5, 9, 9]
    assert len(model.passes) < 10


def test_audio_is_never_guessed() -> None:
    model = Written([1, 2, 3, AUDIO, AUDIO, 1, 2], 0)
    model._table[:] = 0
    model._table[..., 3] = 1.0
    lookup = PromptLookup(model.ids, model.read, model.drop, 8, 1000)
    lookup.step(3)
    assert model.passes == [1]


def opened(manifest: Manifest, path: Path, most: int) -> Llm:
    """Float32 cache: the same sums, however many rows a pass has."""
    options = LlmOptions(n_threads=1, kv_type="f32", prompt_lookup=most)
    return Llm(path, manifest, None, options)


@pytest.fixture(scope="module")
def both(golden_bundle: Path) -> Iterator[tuple[Llm, Llm]]:
    """The golden SALMONN without guesses, and with: its answers say the same few tokens again and again."""
    manifest, path = read_manifest(golden_bundle), golden_bundle / "llm.gguf"
    with opened(manifest, path, 0) as plain, opened(manifest, path, 8) as guessing:
        yield plain, guessing


@pytest.fixture(scope="module")
def audio_tokens(golden: Path) -> Floats:
    return np.load(golden / "salmonn-tiny" / "jfk_11s.npz")["audio_tokens"]


def test_a_model_answers_alike_in_fewer_passes(
    both: tuple[Llm, Llm], audio_tokens: Floats, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_passes = [0]
    decode_ids = Context.decode_ids

    def count(*arguments: object) -> Floats:
        n_passes[0] += 1
        return decode_ids(*arguments)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(Context, "decode_ids", count)
    generation = Generation(max_new_tokens=60, ignore_eos=True)
    answers: list[list[int]] = []
    taken: list[int] = []
    for llm in both:
        words = " ".join(3 * ["say the same words again and again"])
        llm.prefill(audio_tokens, words, generation)
        n_passes[0] = 0
        answers.append(list(llm.generate(generation)))
        taken.append(n_passes[0])
    assert answers[0] == answers[1]
    assert taken[1] <= taken[0] == 59


@pytest.mark.parametrize("taken", [1, 2, 5, 9, 16, 17, 30])
def test_a_conversation_goes_on_behind_guesses(both: tuple[Llm, Llm], audio_tokens: Floats, taken: int) -> None:
    """Wherever an answer is left, the cache holds what was said, and no guess."""
    generation = Generation(max_new_tokens=40, ignore_eos=True)
    heard: list[list[list[int]]] = []
    for llm in both:
        conversation = Conversation(llm)
        answers: list[list[int]] = []
        for prompt in ("Please describe the audio.", "And again?", "And again?"):
            if not answers:
                conversation.prefill_audio(audio_tokens, prompt, 40)
            else:
                conversation.prefill_text(prompt, 40)
            answers.append(list(islice(conversation.answer(generation), taken)))
        heard.append(answers)
    assert heard[0] == heard[1]


def test_an_answer_left_behind_guesses_touches_no_other(both: tuple[Llm, Llm], audio_tokens: Floats) -> None:
    """Its next token would have forgotten what another question has put into the cache since."""
    generation = Generation(max_new_tokens=40, ignore_eos=True)
    _, llm = both
    for taken in range(1, 20):
        llm.prefill(audio_tokens, "Please describe the audio.", generation)
        left = llm.generate(generation)
        list(islice(left, taken))
        llm.prefill(audio_tokens, "And again?", generation)
        read = list(llm.read)
        with pytest.raises(RunError, match="another question"):
            next(left)
        assert llm.read == read


def test_options_are_checked() -> None:
    for value in (-1, 65):
        with pytest.raises(InputError, match=f"prompt_lookup={value} is not possible: it must be from 0 to 64"):
            LlmOptions(prompt_lookup=value)
