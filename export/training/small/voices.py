"""Voices that speak the training sentences: text in, waveform [n_samples] at 16 kHz out.

A neural voice (Piper's en_US-joe-medium: 22,050 Hz, phonemes by espeak-ng), festival's, and those of the demo
(flite, espeak-ng). flite's slt, a woman, is held out whole, and so is festival's voice made from the same speaker.
"""

from __future__ import annotations

import json
import random
import subprocess
import tempfile
import wave
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from ....models.audio import SAMPLE_RATE, Waveform
from ....models.corpus.voices import Voice, resample, speak, training_voice
from ....models.errors import RunError

HELD_OUT = Voice("flite", "slt")
_PIPER_SHARE, _FESTIVAL_SHARE = 0.45, 0.04
_SIZES = (1.0, 1.0, 0.88, 0.93, 1.08, 1.15, 1.22, 1.3)
"""A neural voice resampled by these factors: other sizes of speaker, at other speeds."""
_PAD, _START, _END = 0, 1, 2  # Piper's phoneme ids
_PEAK = 0.6


class Piper:
    """One Piper voice, read from its .onnx and .onnx.json."""

    def __init__(self, model: Path) -> None:
        self.model = model
        config = json.loads(model.with_name(model.name + ".json").read_text())
        self.ids: dict[str, list[int]] = config["phoneme_id_map"]
        self.rate: int = config["audio"]["sample_rate"]

    def speak(self, text: str, noise: float, length: float, rhythm: float) -> Waveform:
        """The text at 16 kHz; noise and rhythm vary the voice, length its pace (1.0 as recorded)."""
        phonemes = _espeak_phonemes(text)
        ids = [_START, _PAD]
        for phoneme in phonemes:
            if phoneme in self.ids:
                ids += [self.ids[phoneme][0], _PAD]
        inputs: dict[str, Any] = {
            "input": np.array([[*ids, _END]], np.int64),
            "input_lengths": np.array([len(ids) + 1], np.int64),
            "scales": np.array([noise, length, rhythm], np.float32),
        }
        found: Any = self._session.run(None, inputs)[0]
        return resample(found.reshape(-1), self.rate, SAMPLE_RATE)

    @cached_property
    def _session(self) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        return ort.InferenceSession(str(self.model), options, providers=["CPUExecutionProvider"])


class Speaker:
    """One training voice, drawn once, that speaks any number of sentences."""

    def __init__(self, rng: random.Random, piper: Piper) -> None:
        choice = rng.random()
        self.rng = rng
        self.piper = piper
        if choice < _PIPER_SHARE:
            self.voice = Voice("piper", "joe")
        elif choice < _PIPER_SHARE + _FESTIVAL_SHARE:
            self.voice = Voice("festival", "kal_diphone" if rng.random() < 0.3 else "ked_diphone")
        else:
            self.voice = training_voice(rng)
        self.scales = rng.uniform(0.4, 0.9), rng.uniform(0.8, 1.3), rng.uniform(0.5, 1.0)
        self.size = rng.choice(_SIZES)
        self.seed = rng.getrandbits(32)

    def say(self, text: str) -> Waveform:
        """The sentence, peak 0.6. Raises RunError when a synthesizer fails."""
        if self.voice.engine == "piper":
            clean = self.piper.speak(text, *self.scales)
            clean = resample(clean, int(SAMPLE_RATE * self.size), SAMPLE_RATE)
        elif self.voice.engine == "festival":
            clean = _festival(text, self.voice.name)
        else:
            clean = speak(text, self.voice, random.Random(self.seed))  # the same pitch and pace in every sentence
        peak = float(np.abs(clean).max(initial=0.0))
        if peak == 0.0:
            raise RunError(f"{self.voice.label} was silent when it was asked to say {text!r}")
        return (clean * (_PEAK / peak)).astype(np.float32)


def _espeak_phonemes(text: str) -> str:
    done = subprocess.run(
        ["espeak-ng", "-q", "--ipa", "-v", "en-us", text], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RunError(f"espeak-ng failed: {done.stderr.strip()}")
    return done.stdout.strip().replace("\n", " ")


def _festival(text: str, voice: str) -> Waveform:
    with tempfile.TemporaryDirectory(prefix="auricle-festival-") as folder:
        path = Path(folder) / "speech.wav"
        command = ["text2wave", "-eval", f"(voice_{voice})", "-o", str(path)]
        done = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
        if done.returncode:
            raise RunError(f"text2wave failed: {done.stderr.strip()}")
        with wave.open(str(path)) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
            return resample(samples.astype(np.float32) / 32768, file.getframerate(), SAMPLE_RATE)
