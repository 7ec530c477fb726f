"""Examples of the demo: clips, the prompts put to them and the expected answers.

Everything is drawn from a seed. Held-out sentences are apart from training sentences by a hash of their
words (`demo_text.split_of`), so any seed of evaluation draws sentences that were never trained on.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..audio import SAMPLE_RATE, Waveform
from ..families.salmonn import TASKS as SALMONN_TASKS
from ..prompt import prompt_for
from . import sounds, voices
from .sentences import SLOT_NAMES, Utterance, sample_utterance

MAX_SECONDS = 10.0
TASKS = ("asr", "audiocaption", "audio_speech_description", "slot_filling", "speech_query", "keywords", "intent")
"""The tasks of SALMONN's evaluation that the demo model knows, and one of our own."""
INTENT_PROMPT = "Give the action, the device and the room as JSON."
NO_SLOT = "none"
_ACTION = re.compile("(?:please |could you )?(turn on|turn off|start|stop|reset|dim|open|close|lock|unlock|set)")
_TALLEST = 1.14  # training slows and deepens voices by at most this factor


@dataclass(frozen=True)
class Clip:
    """A waveform of 1 to 10 s and what is in it."""

    waveform: Waveform
    utterance: Utterance | None = None
    voice: str | None = None
    sound: str | None = None
    """A name of demo_sounds.SOUND_NAMES."""


@dataclass(frozen=True)
class Example:
    """One prompt about one clip, and the answer expected."""

    clip: Clip
    task: str
    """A task of SALMONN's evaluation, with its blank filled behind a colon: 'asr', 'slot_filling:room'."""
    expected: str

    @property
    def prompt(self) -> str:
        """The prompt's words."""
        return task_prompt(self.task)


def task_prompt(task: str) -> str:
    """A task's prompt, as SALMONN puts it, or our own for 'intent'."""
    return INTENT_PROMPT if task == "intent" else prompt_for(task, SALMONN_TASKS)


def expected_answer(utterance: Utterance | None, sound: str | None, task: str) -> str:
    """What the model should say about speech, a sound, both or neither; '' where there is nothing to transcribe."""
    name, _, slot = task.partition(":")
    scene = sounds.caption(sound) if sound else None
    if name == "audiocaption":
        return _describe(utterance is not None, scene)
    if name == "audio_speech_description":
        return _describe_both(utterance.text if utterance else None, scene)
    if name == "intent":
        return intent(utterance)
    if utterance is None:
        return "" if name == "asr" else "nobody is speaking" if name == "speech_query" else NO_SLOT
    if name == "slot_filling":
        return utterance.slots.get(slot, NO_SLOT)
    return {"asr": utterance.text, "speech_query": utterance.answer, "keywords": utterance.keywords}[name]


def intent(utterance: Utterance | None) -> str:
    """A command to a device as JSON, 'none' for what the speech does not say."""
    slots = utterance.slots if utterance else {}
    device = slots.get("device", NO_SLOT)
    verb = _ACTION.match(utterance.text) if utterance and device != NO_SLOT else None
    found = {"action": verb[1] if verb else NO_SLOT, "device": device, "room": slots.get("room", NO_SLOT)}
    return json.dumps(found)


def training_clip(seed: int) -> Clip:
    """A random clip for training: one or two training sentences by a training voice, a sound, both, or no sound."""
    rng = random.Random(seed)
    generator = np.random.default_rng(seed)
    kind = rng.choices(("speech", "two", "both", "sound", "nothing"), (0.5, 0.14, 0.2, 0.11, 0.05))[0]
    if kind == "nothing":
        return Clip(quiet_clip(generator))
    if kind == "sound":
        return sound_clip(rng.choice(sounds.SOUND_NAMES), generator)
    utterance = sample_utterance(rng, "train")
    voice = voices.training_voice(rng)
    clean = voices.speak(utterance.text, voice, rng)
    if kind == "two":
        utterance, clean = _and_another(utterance, clean, voice, rng)
    spoken = Clip(disturb(clean, generator), utterance, voice.label)
    return over_sound(spoken, rng.choice(sounds.SOUND_NAMES), generator) if kind == "both" else spoken


def training_task(clip: Clip, rng: random.Random) -> str:
    """A task to ask about a training clip; slots that the sentence fills are asked more often, intents of commands."""
    commanded = clip.utterance is not None and "device" in clip.utterance.slots
    name = rng.choices(TASKS, (0.25, 0.09, 0.09, 0.18, 0.22, 0.09, 0.4 if commanded else 0.04))[0]
    if name != "slot_filling":
        return name
    filled = tuple(clip.utterance.slots) if clip.utterance else ()
    return f"{name}:{rng.choice(filled if filled and rng.random() < 0.8 else SLOT_NAMES)}"


def held_out(split: Literal["seen", "unseen"], n: int, seed: int) -> Iterator[Example]:
    """`n` held-out sentences to transcribe, by voices of training ('seen') or voices never heard ('unseen')."""
    for index in range(n):
        yield Example(clip := held_out_clip(split, index, seed), "asr", expected_answer(clip.utterance, None, "asr"))


def held_out_clip(split: Literal["seen", "unseen"], index: int, seed: int) -> Clip:
    """A held-out sentence at a natural level, with noise 20 to 40 dB below it; unseen voices take turns."""
    key = f"{split} {index} {seed}"
    rng = random.Random(key)
    generator = np.random.default_rng(rng.getrandbits(64))
    unseen = voices.UNSEEN_VOICES[index % len(voices.UNSEEN_VOICES)]
    voice = unseen if split == "unseen" else voices.training_voice(rng)
    utterance = sample_utterance(rng, "held_out")
    waveform = fit(voices.speak(utterance.text, voice, rng), generator)
    noisy = voices.add_noise(waveform, generator, generator.uniform(20, 40))
    return Clip(voices.set_peak(noisy, generator.uniform(0.2, 0.9)), utterance, voice.label)


def sound_examples(n: int, seed: int) -> Iterator[Example]:
    """`n` descriptions of sounds: each class in turn, every second one under held-out speech by a training voice."""
    for index in range(n):
        generator = np.random.default_rng([seed, index])
        name = sounds.SOUND_NAMES[index // 2 % len(sounds.SOUND_NAMES)]
        spoken = held_out_clip("seen", index, seed + 1) if index % 2 else None
        clip = over_sound(spoken, name, generator) if spoken else sound_clip(name, generator)
        yield Example(clip, "audiocaption", expected_answer(clip.utterance, name, "audiocaption"))


def slot_examples(n: int, seed: int) -> Iterator[Example]:
    """`n` questions for a slot of a held-out sentence, by training voices; one in ten for a slot that is not there."""
    rng = random.Random(f"slots {seed}")
    index = 0
    while n > 0:
        clip = held_out_clip("seen", index, seed + 2)
        index += 1
        slots = clip.utterance.slots if clip.utterance else {}
        if not slots:
            continue
        absent = [name for name in SLOT_NAMES if name not in slots]
        task = f"slot_filling:{rng.choice(absent if rng.random() < 0.1 else tuple(slots))}"
        yield Example(clip, task, expected_answer(clip.utterance, None, task))
        n -= 1


def query_examples(n: int, seed: int, task: str = "speech_query") -> Iterator[Example]:
    """`n` questions that have the speech itself as their subject: task 'speech_query' or 'keywords'."""
    for index in range(n):
        clip = held_out_clip("seen", index, seed + 3)
        yield Example(clip, task, expected_answer(clip.utterance, None, task))


def intent_examples(n: int, seed: int) -> Iterator[Example]:
    """`n` held-out commands to a device, by training voices, to be answered as JSON."""
    index = 0
    while n > 0:
        clip = held_out_clip("seen", index, seed + 4)
        index += 1
        if clip.utterance is None or "device" not in clip.utterance.slots:
            continue
        yield Example(clip, "intent", intent(clip.utterance))
        n -= 1


def named_sound(description: str) -> str | None:
    """The class of demo_sounds.SOUND_NAMES that a description names, or None."""
    return next((name for name in sounds.SOUND_NAMES if sounds.caption(name) in description), None)


def sound_clip(name: str, generator: np.random.Generator) -> Clip:
    """A sound alone, 2 to 6 s, with a little noise under it."""
    samples = sounds.synthesize(name, generator, int(generator.uniform(2.0, 6.0) * SAMPLE_RATE))
    noisy = voices.add_noise(samples, generator, generator.uniform(20, 40))
    return Clip(voices.set_peak(noisy, generator.uniform(0.1, 0.9)), sound=name)


def over_sound(spoken: Clip, name: str, generator: np.random.Generator) -> Clip:
    """Speech over a sound that is 2 to 14 dB weaker in mean power."""
    background = sounds.synthesize(name, generator, len(spoken.waveform))
    mixed = voices.mix(spoken.waveform, background, generator.uniform(2, 14))
    return Clip(voices.set_peak(mixed, generator.uniform(0.2, 0.9)), spoken.utterance, spoken.voice, name)


def joined(first: Utterance, second: Utterance) -> Utterance:
    """Two sentences heard as one: both answers, and the slots that only one of them fills."""
    shared = first.slots.keys() & second.slots.keys()
    slots = {name: value for name, value in (first.slots | second.slots).items() if name not in shared}
    return Utterance(f"{first.text} {second.text}", f"{first.answer} and {second.answer}", slots)


def _and_another(
    first: Utterance, clean: Waveform, voice: voices.Voice, rng: random.Random
) -> tuple[Utterance, Waveform]:
    """The sentence and, after a pause, another one; the first alone where both would not fit."""
    second = sample_utterance(rng, "train")
    pause = np.zeros(int(rng.uniform(0.05, 1.2) * SAMPLE_RATE), np.float32)
    both = np.concatenate([clean, pause, voices.speak(second.text, voice, rng)])
    longest = (MAX_SECONDS - 1.0) * SAMPLE_RATE / _TALLEST
    return (joined(first, second), both) if len(both) < longest else (first, clean)


def quiet_clip(generator: np.random.Generator) -> Waveform:
    """Nothing to hear: digital silence or noise from faint to loud, 1 to 6 s."""
    n = int(generator.uniform(1.0, 6.0) * SAMPLE_RATE)
    hiss = voices.add_noise(np.full(n, 1e-9, np.float32), generator, 0.0)
    level = generator.choice((0.0, 10 ** generator.uniform(-3.5, -0.3)))
    return voices.set_peak(hiss, float(level))


def disturb(waveform: Waveform, generator: np.random.Generator) -> Waveform:
    """Speech as training hears it: another size of speaker, a room, noise and a level, each at random."""
    if generator.random() < 0.5:
        rate = int(SAMPLE_RATE * generator.uniform(1 / _TALLEST, 1.24)) // 50 * 50
        waveform = voices.resample(waveform, rate, SAMPLE_RATE)
    if generator.random() < 0.25:
        waveform = voices.reverberate(waveform, generator, generator.uniform(0.1, 0.5))
    waveform = fit(waveform, generator)
    if generator.random() < 0.5:
        waveform = voices.add_noise(waveform, generator, generator.uniform(5, 40))
    return voices.set_peak(waveform, 10 ** generator.uniform(-1.2, -0.02))


def fit(waveform: Waveform, generator: np.random.Generator) -> Waveform:
    """Up to 0.4 s of silence before and 0.2 s behind, at least one second in all, at most ten."""
    lead, tail = (int(generator.integers(0, limit)) for limit in (6400, 3200))
    padded = np.pad(waveform, (lead, max(tail, SAMPLE_RATE - lead - len(waveform))))
    return padded[: int(MAX_SECONDS * SAMPLE_RATE)].astype(np.float32)


def _describe(speaking: bool, scene: str | None) -> str:
    if speaking:
        return f"a person is speaking while {scene}" if scene else "a person is speaking"
    return scene or "there is silence"


def _describe_both(text: str | None, scene: str | None) -> str:
    if text is None:
        return f"{scene} and nobody is speaking" if scene else "there is silence and nobody is speaking"
    return f"a person says {text} while {scene}" if scene else f"a person says {text} in a quiet place"
