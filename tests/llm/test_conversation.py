"""Turns that share one KV cache: what stands in it is what reading all of them from the start would give."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from auricle.models.bundle import read_manifest
from auricle.models.errors import InputError
from auricle.runtime.llm.conversation import Conversation
from auricle.runtime.llm.llama import Floats
from auricle.runtime.llm.options import LlmOptions
from auricle.runtime.llm.sampling import Generation
from auricle.runtime.llm.session import Llm

PROMPT = "Please describe the audio."
GREEDY = Generation(max_new_tokens=12)
TURN = 7 + 88 + 14 + 12 + 1  # USER: <Speech>, audio, the rest of the prompt, the answer, EOS


def open_llm(bundle: Path, n_ctx: int | None = None) -> Llm:
    """Float32 cache: the same sums, whatever was in the cache before."""
    return Llm(bundle / "llm.gguf", read_manifest(bundle), None, LlmOptions(n_ctx, n_threads=1, kv_type="f32"))


@pytest.fixture(scope="module")
def llm(golden_bundle: Path) -> Iterator[Llm]:
    with open_llm(golden_bundle) as opened:
        yield opened


@pytest.fixture(scope="module")
def clips(golden: Path) -> list[Floats]:
    """The audio tokens of three golden clips and of one backwards."""
    names = ("jfk_11s", "noise_1s", "tone_30s")
    found = [np.load(golden / "salmonn-tiny" / f"{name}.npz")["audio_tokens"] for name in names]
    return [*found, found[0][::-1].copy()]


def ask(conversation: Conversation, clip: Floats, n: int | None = None) -> list[int]:
    """A whole turn, or one that is interrupted after n tokens."""
    conversation.prefill_audio(clip, PROMPT, GREEDY.max_new_tokens)
    return list(islice(conversation.answer(GREEDY), n))


def from_scratch(llm: Llm, turns: list[tuple[Floats, list[int]]], clip: Floats, system: str = "") -> list[int]:
    """The answer to a clip after turns that were written into an empty cache as they stand."""
    prompt = llm.manifest.prompt
    llm.restart(1024)
    llm.feed([*prompt.start_ids, *(llm.prompts.tokenize(system) if system else [])])
    for audio, answer in turns:
        llm.feed(prompt.prefix_ids[1:])
        llm.feed_audio(audio)
        llm.feed([*llm.prompts.around(PROMPT)[1], *answer, prompt.eos_id])
    llm.feed(prompt.prefix_ids[1:])
    llm.feed_audio(clip)
    llm.question(llm.prompts.around(PROMPT)[1])
    return list(llm.generate(GREEDY))


def test_a_first_turn_is_a_question_of_its_own(llm: Llm, clips: list[Floats]) -> None:
    said = ask(Conversation(llm), clips[0])
    llm.prefill(clips[0], PROMPT, GREEDY)
    assert said == list(llm.generate(GREEDY))


@pytest.mark.parametrize("system", ["", "Answer in one word."])
def test_a_turn_is_answered_as_if_all_were_read_from_the_start(llm: Llm, clips: list[Floats], system: str) -> None:
    conversation = Conversation(llm, system)
    said = [ask(conversation, clip) for clip in clips[:3]]
    turns = list(zip(clips, said, strict=False))
    assert conversation.n_turns == 3
    assert [from_scratch(llm, turns[:n], clips[n], system) for n in range(3)] == said
    assert from_scratch(llm, [], clips[2], system) != said[2]  # it does remember


def test_turns_are_read_once(golden_bundle: Path, clips: list[Floats], monkeypatch: pytest.MonkeyPatch) -> None:
    with open_llm(golden_bundle) as llm:
        read: list[int] = []
        feed_audio = llm.feed_audio
        monkeypatch.setattr(llm, "feed_audio", lambda tokens: (read.append(len(tokens)), feed_audio(tokens)))  # pyright: ignore
        conversation = Conversation(llm)
        for clip in clips:
            ask(conversation, clip)
        assert read == [88] * 4


@pytest.mark.parametrize("n", [0, 1, 5])
def test_what_was_interrupted_is_remembered_as_far_as_it_was_said(llm: Llm, clips: list[Floats], n: int) -> None:
    conversation = Conversation(llm)
    cut = ask(conversation, clips[0], n)
    assert len(cut) == n
    assert ask(conversation, clips[1]) == from_scratch(llm, [(clips[0], cut)], clips[1])


def test_what_is_taken_back_is_forgotten(llm: Llm, clips: list[Floats]) -> None:
    conversation = Conversation(llm)
    said = ask(conversation, clips[0])
    conversation.keep(3)
    assert ask(conversation, clips[1]) == from_scratch(llm, [(clips[0], said[:3])], clips[1])


@pytest.mark.parametrize("n", [0, 1, None])
@pytest.mark.parametrize("asked_elsewhere", [False, True])
def test_a_turn_that_was_not_meant_leaves_nothing(
    llm: Llm, clips: list[Floats], n: int | None, asked_elsewhere: bool
) -> None:
    """Begun as far as its n-th token, then taken back, behind a turn that was interrupted; or as the first."""
    conversation = Conversation(llm)
    ask(conversation, clips[2], n)
    conversation.retract()
    said = ask(conversation, clips[0], 3)
    ask(conversation, clips[2], n)
    if asked_elsewhere:
        llm.prefill(clips[3], PROMPT, GREEDY)
    conversation.retract()
    assert conversation.n_turns == 1
    assert ask(conversation, clips[1]) == from_scratch(llm, [(clips[0], said)], clips[1])


class TestRoom:
    """Three turns and BOS fill n_ctx to the last position."""

    def test_the_oldest_leave_when_the_next_does_not_fit(self, golden_bundle: Path, clips: list[Floats]) -> None:
        for n_ctx, n_left in ((1 + 4 * TURN - 1, 4), (1 + 4 * TURN - 2, 2)):
            with open_llm(golden_bundle, n_ctx) as llm:
                conversation = Conversation(llm)
                said = [ask(conversation, clip) for clip in clips]
                assert conversation.n_turns == n_left
            with open_llm(golden_bundle) as other:
                kept = list(zip(clips, said, strict=True))[4 - n_left : 3]
                assert from_scratch(other, kept, clips[3]) == said[3]

    def test_a_fresh_conversation_of_the_kept_turns_goes_on_alike(
        self, golden_bundle: Path, clips: list[Floats]
    ) -> None:
        """Many turns through a small cache."""
        order = [0, 1, 2, 3, 1, 0, 3, 2, 2]
        turns: list[tuple[Floats, list[int]]] = []
        with open_llm(golden_bundle, 1 + 3 * TURN) as llm, open_llm(golden_bundle) as other:
            conversation = Conversation(llm)
            for index in order:
                said = ask(conversation, clips[index])
                kept = turns[len(turns) + 1 - conversation.n_turns :]
                assert said == from_scratch(other, kept, clips[index])
                turns.append((clips[index], said))
                assert llm.n_past <= 1 + 3 * TURN

    def test_room_is_made_before_it_is_needed(self, golden_bundle: Path, clips: list[Floats]) -> None:
        with open_llm(golden_bundle, 1 + 3 * TURN) as llm, open_llm(golden_bundle) as other:
            conversation = Conversation(llm)
            said = [ask(conversation, clip) for clip in clips[:3]]
            conversation.reserve(88, PROMPT, GREEDY.max_new_tokens)
            assert conversation.n_turns == 1
            assert llm.n_past == 1 + TURN
            assert ask(conversation, clips[3]) == from_scratch(other, [(clips[2], said[2])], clips[3])

    def test_a_turn_that_never_fits_is_a_sentence_and_changes_nothing(
        self, golden_bundle: Path, clips: list[Floats]
    ) -> None:
        with open_llm(golden_bundle, 300) as llm, open_llm(golden_bundle) as other:
            conversation = Conversation(llm)
            said = ask(conversation, clips[0])
            with pytest.raises(InputError, match=r"310 positions, 200 of them .* 300 are there"):
                conversation.prefill_audio(clips[1], PROMPT, 200)
            assert ask(conversation, clips[1]) == from_scratch(other, [(clips[0], said)], clips[1])


def test_forgotten_turns_leave_no_trace(llm: Llm, clips: list[Floats]) -> None:
    conversation = Conversation(llm, "Be brief.")
    ask(conversation, clips[0])
    conversation.forget()
    assert ask(conversation, clips[1]) == from_scratch(llm, [], clips[1], "Be brief.")
    assert conversation.n_turns == 1


def test_a_question_by_somebody_else_in_between_does_no_harm(llm: Llm, clips: list[Floats]) -> None:
    conversation = Conversation(llm)
    said = ask(conversation, clips[0], 4)
    llm.prefill(clips[2], "Another question?", Generation(max_new_tokens=8, beams=2))
    list(llm.generate(Generation(max_new_tokens=8, beams=2)))
    assert ask(conversation, clips[1]) == from_scratch(llm, [(clips[0], said)], clips[1])


def test_an_old_answer_ends_with_the_next_question(llm: Llm, clips: list[Floats]) -> None:
    conversation = Conversation(llm)
    conversation.prefill_audio(clips[0], PROMPT, 12)
    old = conversation.answer(GREEDY)
    said = list(islice(old, 3))
    assert ask(conversation, clips[1]) == from_scratch(llm, [(clips[0], said)], clips[1])
    with pytest.raises(Exception, match="another question"):
        next(old)
