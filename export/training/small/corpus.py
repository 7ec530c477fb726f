"""Training clips of `small`, made without end: sentences spoken, disturbed, heard by both encoders -> shards.

`python -m auricle.export.training.small.corpus --work DIR` keeps the newest shards and deletes the oldest, so that a
training beside it hears new clips all the time and the disk holds 5 GB of them at most.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ....models.audio import SAMPLE_RATE, Waveform
from ....models.corpus import examples as demo_corpus
from ....models.corpus import sounds as demo_sounds
from ....models.corpus import voices as rooms
from ....models.corpus.sentences import Utterance, sample_utterance
from ....models.corpus.wordnet import is_held_out, wordnet_sentences
from ...encoders.beats import Beats, load_beats
from ...encoders.whisper import encode, load_whisper
from ..salmonn.features import fbank, log_mel
from ..shards import View, remove_shard, shard_names, write_shard
from .bridge import SPEC
from .voices import HELD_OUT, Piper, Speaker

MAX_SECONDS = 10.0
SHARD_CLIPS, MAX_SHARDS = 240, 60
KINDS = {"open": 0.6, "commands": 0.25, "sound": 0.13, "silence": 0.02}
_SOUND_BEHIND = {"open": 0.2, "commands": 0.45}
_BATCH = 6  # clips encoded at once


@dataclass(frozen=True)
class Texts:
    """Where sentences are drawn from: examples read like speech, definitions know more words, prose flows."""

    examples: tuple[str, ...]
    definitions: tuple[str, ...]
    prose: tuple[str, ...] = ()

    @classmethod
    def load(cls, prose: Path | None, *, held_out: bool) -> Texts:
        """WordNet's, and one sentence a line of `prose` where there is such a file."""
        examples, definitions = wordnet_sentences()
        lines = prose.read_text().split("\n") if prose and prose.exists() else []

        def kept(texts: list[str]) -> tuple[str, ...]:
            return tuple(text for text in texts if text and is_held_out(text) is held_out)

        return cls(kept(examples), kept(definitions), kept(lines))

    def draw(self, rng: random.Random) -> str:
        """One sentence."""
        sources = [self.examples, self.definitions, self.prose]
        weights = [0.5, 0.25, 0.25 if self.prose else 0.0]
        return rng.choice(rng.choices(sources, weights)[0])


@dataclass(frozen=True)
class Heard:
    """A waveform and what is in it."""

    waveform: Waveform
    utterance: Utterance | None
    sound: str | None


class ClipMaker:
    """Draws training clips."""

    def __init__(self, texts: Texts, piper: Piper, kinds: Mapping[str, float] = KINDS) -> None:
        """kinds: shares of the kinds of KINDS."""
        self.texts = texts
        self.piper = piper
        self.kinds = kinds

    def clip(self, seed: int) -> Heard:
        """Clip number `seed`: the same every time."""
        rng = random.Random(seed)
        generator = np.random.default_rng(seed)
        kind = rng.choices(tuple(self.kinds), tuple(self.kinds.values()))[0]
        if kind == "silence":
            return Heard(demo_corpus.quiet_clip(generator), None, None)
        if kind == "sound":
            clip = demo_corpus.sound_clip(rng.choice(demo_sounds.SOUND_NAMES), generator)
            return Heard(clip.waveform, None, clip.sound)
        utterance, clean = self._command(rng) if kind == "commands" else self._open(rng, generator)
        sound = rng.choice(demo_sounds.SOUND_NAMES) if rng.random() < _SOUND_BEHIND[kind] else None
        return Heard(disturb(clean, generator, sound), utterance, sound)

    def _command(self, rng: random.Random) -> tuple[Utterance, Waveform]:
        utterance = sample_utterance(rng, "train")
        return utterance, Speaker(rng, self.piper).say(utterance.text)

    def _open(self, rng: random.Random, generator: np.random.Generator) -> tuple[Utterance, Waveform]:
        """Sentences by one voice, with pauses, until a length drawn beforehand is reached."""
        speaker = Speaker(rng, self.piper)
        wanted = int(rng.uniform(1.0, MAX_SECONDS - 1.0) * SAMPLE_RATE)
        longest = int((MAX_SECONDS - 0.7) * SAMPLE_RATE / 1.14)  # a taller speaker is slower
        texts: list[str] = []
        parts: list[Waveform] = []
        n = 0
        while n < wanted:
            text = self.texts.draw(rng)
            spoken = speaker.say(text)
            if n + len(spoken) > longest:
                if parts:
                    break
                continue
            pause = np.zeros(int(rng.choice((0.0, 0.1, 0.3, 0.8)) * SAMPLE_RATE), np.float32)
            texts.append(text)
            parts += [spoken, pause]
            n += len(spoken) + len(pause)
        return Utterance(" ".join(texts), ""), np.concatenate(parts)


def held_out_clip(texts: Texts, seed: int) -> Heard:
    """One held-out sentence by the voice that is held out, at a natural level, noise 25 to 40 dB below."""
    rng = random.Random(f"held out {seed}")
    generator = np.random.default_rng([7, seed])
    text = texts.draw(rng)
    waveform = demo_corpus.fit(rooms.speak(text, HELD_OUT, rng), generator)
    noisy = rooms.add_noise(waveform, generator, generator.uniform(25, 40))
    return Heard(rooms.set_peak(noisy, generator.uniform(0.2, 0.9)), Utterance(text, ""), None)


def disturb(waveform: Waveform, generator: np.random.Generator, sound: str | None) -> Waveform:
    """The demo's speaker size, room, noise and level; then a sound 0 to 18 dB below; then now and then a telephone."""
    waveform = demo_corpus.disturb(waveform, generator)
    if sound is not None:
        background = demo_sounds.synthesize(sound, generator, len(waveform))
        mixed = rooms.mix(waveform, background, generator.uniform(0, 18))
        waveform = rooms.set_peak(mixed, generator.uniform(0.1, 0.95))
    if generator.random() < 0.12:
        waveform = rooms.set_peak(_telephone(waveform, generator), generator.uniform(0.05, 0.9))
    return waveform


def _telephone(waveform: Waveform, generator: np.random.Generator) -> Waveform:
    """The band that a telephone lets through."""
    spectrum = np.fft.rfft(waveform)
    hz = np.fft.rfftfreq(len(waveform), 1 / SAMPLE_RATE)
    kept = (hz > generator.uniform(200, 350)) & (hz < generator.uniform(3000, 3800))
    return np.fft.irfft(spectrum * kept, len(waveform)).astype(np.float32)


class Encoders:
    """The two frozen encoders, and what they hear of a clip alone: whole windows, at least a second."""

    def __init__(self, whisper: Path, beats: Path) -> None:
        self.whisper = load_whisper(whisper)[1]
        self.beats: Beats = load_beats(beats)[1]

    @torch.no_grad()
    def views(self, clips: list[Heard], rng: random.Random) -> list[View]:
        """Every clip followed by up to 0.5 s of silence, or up to 3 s now and then; in no particular order."""
        order = sorted(clips, key=lambda clip: len(clip.waveform))
        found: list[View] = []
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            extra = rng.randint(0, 150) if rng.random() < 0.1 else rng.randint(0, 25)
            n_rows = whole_windows(max(len(clip.waveform) for clip in batch) // 320 + 1 + extra)
            mel = torch.from_numpy(np.stack([_padded_mel(clip.waveform, 2 * n_rows) for clip in batch]))
            with torch.autocast("cpu", dtype=torch.bfloat16):
                speech = encode(self.whisper, mel).half().numpy()
            for row, clip in enumerate(batch):
                n = min(n_rows, whole_windows(len(clip.waveform) // 320 + 1 + rng.randint(0, 20)))
                found.append(View(speech[row, :n], self.sound_tokens(clip.waveform)[:n], clip.utterance, clip.sound))
        return found

    @torch.no_grad()
    def alone(self, waveform: Waveform) -> tuple[Tensor, Tensor]:
        """speech [n, d], audio [m, d] of one clip in whole windows, in float32, as the runtime hears it."""
        n_rows = whole_windows(-(-len(waveform) // 320))
        speech = encode(self.whisper, torch.from_numpy(_padded_mel(waveform, 2 * n_rows))[None])[0]
        return speech, torch.from_numpy(self.sound_tokens(waveform)[:n_rows].astype(np.float32))

    @torch.no_grad()
    def sound_tokens(self, waveform: Waveform) -> np.ndarray:
        """BEATs' tokens [m, d] in float16; the clip lasts a second at least."""
        padded = np.pad(waveform, (0, max(0, SAMPLE_RATE - len(waveform))))
        return self.beats(torch.from_numpy(fbank(padded))[None])[0].half().numpy()


def whole_windows(n_rows: int) -> int:
    """Rows of whole windows that hold n_rows, and a second at least."""
    steps = -(-(max(n_rows, 50) - SPEC.window) // SPEC.stride)
    return SPEC.window + steps * SPEC.stride


def _padded_mel(waveform: Waveform, n_frames: int) -> np.ndarray:
    frames, floor = log_mel(waveform)
    mel = np.full((n_frames, frames.shape[1]), floor, np.float32)
    n = min(n_frames, len(frames))
    mel[:n] = frames[:n]
    return mel.T


def main(arguments: list[str] | None = None) -> int:
    """Make shards until stopped, or --shards of them."""
    parser = argparse.ArgumentParser(prog="python -m auricle.export.training.small.corpus", description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--whisper", type=Path, required=True)
    parser.add_argument("--beats", type=Path, required=True)
    parser.add_argument("--piper", type=Path, required=True)
    parser.add_argument("--shards", type=int, default=1 << 30)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    folder = given.work / "shards"
    folder.mkdir(parents=True, exist_ok=True)
    maker = ClipMaker(Texts.load(given.work / "prose.txt", held_out=False), Piper(given.piper))
    encoders = Encoders(given.whisper, given.beats)
    for _ in range(given.shards):
        names = shard_names(folder)
        number = int(names[-1]) + 1 if names else 0
        started = time.monotonic()
        clips = [maker.clip((number << 16) + index) for index in range(SHARD_CLIPS)]
        spoken = time.monotonic()
        write_shard(folder, f"{number:06d}", encoders.views(clips, random.Random(number)))
        seconds = sum(len(clip.waveform) for clip in clips) / SAMPLE_RATE
        print(
            f"shard {number}: {seconds:.0f} s of sound, spoken in {spoken - started:.0f} s, "
            f"encoded in {time.monotonic() - spoken:.0f} s",
            flush=True,
        )
        for name in names[: max(0, len(names) + 1 - MAX_SHARDS)]:
            remove_shard(folder, name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
