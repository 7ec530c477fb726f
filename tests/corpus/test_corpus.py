"""The demo model's corpus: what it says, that it repeats itself, and that held-out sentences stay held out."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace

import numpy as np
import pytest
from auricle.models.corpus import examples as corpus
from auricle.models.corpus import sounds, voices
from auricle.models.corpus.sentences import SLOT_NAMES, keywords_of, sample_utterance, split_of, vocabulary
from auricle.models.corpus.words import number_words
from auricle.models.errors import InputError
from auricle.models.families.salmonn import TASKS
from auricle.models.prompt import prompt_for

needs_voices = pytest.mark.skipif(
    not (shutil.which("espeak-ng") and shutil.which("flite")), reason="espeak-ng and flite are not installed"
)


def test_the_grammar_has_at_least_800_words() -> None:
    assert len(vocabulary()) >= 800


def test_sentences_repeat_with_their_seed_and_differ_without() -> None:
    first, again, other = (
        [sample_utterance(rng) for _ in range(50)] for rng in (random.Random(3), random.Random(3), random.Random(4))
    )
    assert first == again != other


def test_sentences_are_lower_case_words_and_hold_their_slots() -> None:
    rng = random.Random(1)
    for _ in range(2000):
        utterance = sample_utterance(rng)
        assert all(letter == " " or letter in "abcdefghijklmnopqrstuvwxyz" for letter in utterance.text)
        assert set(utterance.slots) <= set(SLOT_NAMES)
        assert all(f" {value} " in f" {utterance.text} " for value in utterance.slots.values())
        assert utterance.answer and 1 <= len(utterance.keywords.split()) <= 3


@pytest.mark.parametrize("seed", [0, 7, 123])
def test_no_seed_draws_a_training_sentence_as_held_out(seed: int) -> None:
    rng = random.Random(seed)
    trained = {sample_utterance(rng, "train").text for _ in range(3000)}
    held_out = {sample_utterance(rng, "held_out").text for _ in range(300)}
    assert not trained & held_out
    assert {split_of(text) for text in held_out} == {"held_out"}


_NUMBERS = [(0, "zero"), (13, "thirteen"), (42, "forty two"), (110, "one hundred ten")]


@pytest.mark.parametrize(("value", "words"), _NUMBERS)
def test_numbers_as_words(value: int, words: str) -> None:
    assert number_words(value) == words


def test_keywords_are_the_last_three_content_words() -> None:
    assert keywords_of("set a timer for ten minutes") == "timer ten minutes"
    assert keywords_of("turn on the kitchen lamp") == "turn kitchen lamp"


def test_voices_never_heard_in_training() -> None:
    assert len(voices.UNSEEN_VOICES) >= 3
    assert not set(voices.UNSEEN_VOICES) & set(voices.TRAIN_VOICES)


@pytest.mark.parametrize("name", sounds.SOUND_NAMES)
@pytest.mark.parametrize("n_samples", [16000, 37123])
def test_sounds_are_finite_audible_and_repeat(name: str, n_samples: int) -> None:
    sound = sounds.synthesize(name, np.random.default_rng(5), n_samples)
    assert sound.dtype == np.float32 and sound.shape == (n_samples,)
    assert np.isfinite(sound).all() and np.isclose(np.abs(sound).max(), 1.0)
    assert np.array_equal(sound, sounds.synthesize(name, np.random.default_rng(5), n_samples))


def test_ten_sounds_or_more_with_captions_that_name_only_themselves() -> None:
    assert len(sounds.SOUND_NAMES) >= 10
    for name in sounds.SOUND_NAMES:
        assert corpus.named_sound(f"a person is speaking while {sounds.caption(name)}") == name
    assert corpus.named_sound("a person is speaking") is None


def test_mixing_at_a_signal_to_noise_ratio() -> None:
    generator = np.random.default_rng(0)
    voice, hiss = generator.standard_normal((2, 16000)).astype(np.float32)
    added = voices.mix(voice, hiss, 10.0) - voice
    assert np.isclose(10 * np.log10(np.mean(voice**2) / np.mean(added**2)), 10.0, atol=0.01)


def test_resampling_keeps_a_tone_and_its_length() -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(22050) / 22050).astype(np.float32)
    resampled = voices.resample(tone, 22050, 16000)
    expected = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    assert len(resampled) == 16000
    assert np.abs(resampled[500:-500] - expected[500:-500]).max() < 1e-3


def test_answers_of_each_task() -> None:
    utterance = replace(sample_utterance(random.Random(0)), text="turn on the kitchen lamp", slots={"room": "kitchen"})
    answer = corpus.expected_answer
    assert answer(utterance, None, "asr") == "turn on the kitchen lamp"
    assert answer(None, "rain", "asr") == ""
    assert answer(utterance, None, "slot_filling:room") == "kitchen"
    assert answer(utterance, None, "slot_filling:city") == corpus.NO_SLOT
    assert answer(utterance, "rain", "audiocaption") == "a person is speaking while rain is falling"
    assert answer(None, "rain", "audiocaption") == "rain is falling"
    assert "turn on the kitchen lamp while rain" in answer(utterance, "rain", "audio_speech_description")


def test_every_task_has_its_prompt() -> None:
    prompts = {prompt_for(f"{task}:room" if task == "slot_filling" else task, TASKS) for task in corpus.TASKS}
    assert len(prompts) == len(corpus.TASKS)


def test_sounds_alone_need_no_synthesizer() -> None:
    clip = corpus.sound_clip("siren", np.random.default_rng(1))
    assert 2.0 <= len(clip.waveform) / 16000 <= 6.0 and clip.utterance is None


def test_a_missing_synthesizer_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="Debian package 'espeak-ng'"):
        voices.speak("hello", voices.Voice("espeak-ng", "en-us"), random.Random(0))


@needs_voices
@pytest.mark.parametrize("split", ["seen", "unseen"])
def test_held_out_clips(split: str) -> None:
    examples = list(corpus.held_out(split, 4, seed=2))  # type: ignore[arg-type]
    again = list(corpus.held_out(split, 4, seed=2))  # type: ignore[arg-type]
    labels = {voice.label for voice in (voices.TRAIN_VOICES if split == "seen" else voices.UNSEEN_VOICES)}
    for example, same in zip(examples, again, strict=True):
        assert np.array_equal(example.clip.waveform, same.clip.waveform)
        assert example.clip.voice in labels and split_of(example.expected) == "held_out"
        assert 1.0 <= len(example.clip.waveform) / 16000 <= corpus.MAX_SECONDS
        assert np.abs(example.clip.waveform).max() <= 1.0


@needs_voices
def test_slots_and_sounds_to_judge() -> None:
    for example in corpus.slot_examples(4, seed=0):
        assert example.prompt.startswith("According to the speech, what is the ")
        assert example.expected == "none" or example.clip.utterance
    described = list(corpus.sound_examples(4, seed=0))
    assert [corpus.named_sound(e.expected) == e.clip.sound for e in described] == [True] * 4
    assert [e.clip.utterance is None for e in described] == [True, False, True, False]
