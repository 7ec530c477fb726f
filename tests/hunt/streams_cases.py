"""Streams on standard input: raw PCM, and RIFF and other containers of it where PCM belongs, whole and spoiled."""

from __future__ import annotations

import random
import struct
from dataclasses import replace
from io import BytesIO
from pathlib import Path

from audio_cases import SPOILERS, sounds
from auricle.models.audio import SAMPLE_RATE
from auricle.runtime.events import AudioDropped
from auricle.runtime.sources.playback import RawInput, SampleFormat
from auricle.runtime.sources.source import Chunk
from hunting import Case

RATES = (8_000, 16_000, 44_100, 48_000)
HEADS = (
    b"RIFF",
    b"OggS",
    b"fLaC",
    b"ID3\x04",
    b"\xff\xfb\x90\x64",
    b"....ftyp",
    b"G" + bytes(187),
    b"\x1a\x45\xdf\xa3",
)


class Trickle(BytesIO):
    """What a pipe gives: never more at once than it has just now."""

    def __init__(self, content: bytes, rng: random.Random) -> None:
        super().__init__(content)
        self._rng = rng

    def read(self, size: int | None = -1, /) -> bytes:
        most = 1 << 20 if size is None or size < 0 else size
        return super().read(min(most, self._rng.choice((1, 3, 100, 4096, most))))


def make_case(seed: int, number: int) -> Case:
    """The first byte of what is kept says how the rest is read."""
    rng = random.Random(f"stream {seed} {number}")
    what = rng.choice(("pcm", "pcm", "container", "spoiled", "head", "tiny"))
    if what == "pcm":
        content = rng.randbytes(rng.randrange(40_000)) if rng.random() < 0.3 else bytes(rng.randrange(90_000))
        content = content if rng.random() < 0.5 else struct.pack("<f", rng.uniform(-1, 1)) * (len(content) // 4)
    elif what == "container":
        content = rng.choice(sounds()).content
    elif what == "spoiled":
        content = rng.choice(SPOILERS)(rng.choice(sounds()), rng)[1]
    elif what == "head":
        content = rng.choice(HEADS) + rng.randbytes(rng.randrange(3000))
    else:
        content = rng.randbytes(rng.randrange(9))
    way = rng.randrange(256)
    case = Case(f"{what}, {len(content)} bytes, read the way {way}", bytes([way]) + content, ".raw")
    rate, channels, sample_format = reading(way)
    n = len(content) // (channels * (2 if sample_format == "s16le" else 4))
    expected = round(n * SAMPLE_RATE / rate)

    def check(n_heard: int) -> str | None:
        return None if abs(n_heard - expected) <= 1 else f"{n_heard} samples where {expected} were given"

    return replace(case, check=check)


def reading(byte: int) -> tuple[int, int, SampleFormat]:
    """Hz, channels, sample format."""
    return RATES[byte % 4], (1, 1, 2, 6)[byte // 4 % 4], "f32le" if byte & 128 else "s16le"


def run_case(case: Case, folder: Path) -> int:
    """Samples at 16 kHz. ValueError where chunks do not follow each other, or a torn sample is not told."""
    rate, channels, sample_format = reading(case.content[0])
    content = case.content[1:]
    source = RawInput(Trickle(content, random.Random(case.title)), rate, channels, sample_format, "fast")
    now = n_heard = n_torn = 0
    try:
        while (items := source.read(5.0)) is not None:
            if not items:
                raise TimeoutError("nothing came for 5 s")
            for item in items:
                if isinstance(item, Chunk):
                    if round(item.start_s * SAMPLE_RATE) != now:
                        raise ValueError(f"a chunk starts at {item.start_s} s, {now} samples in")
                    now += len(item.waveform)
                    n_heard += len(item.waveform)
                elif isinstance(item, AudioDropped):
                    n_torn += 1
                    now += round(item.seconds * SAMPLE_RATE)
    finally:
        source.close()
    if n_torn != (len(content) % (channels * (2 if sample_format == "s16le" else 4)) > 0):
        raise ValueError(f"{n_torn} losses are told")
    return n_heard
