"""Spoiled sound files: every container that PyAV writes here, then bits, ends, pieces, sizes, chunks of it changed."""

from __future__ import annotations

import random
import struct
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from auricle.models.audio import SAMPLE_RATE, Waveform
from auricle.runtime.audio.decode import read_audio
from av.codec.codec import Codec, UnknownCodecError
from hunting import Case
from tracks import encode_sound

SECONDS = 1.03  # no size of it is a rate
FORMATS: tuple[tuple[str, str, str, int, dict[str, str]], ...] = (
    # suffix, FFmpeg's container, codec, Hz
    ("wav", "wav", "pcm_s16le", 16_000, {}),
    ("wav", "wav", "pcm_s24le", 16_000, {}),
    ("wav", "wav", "pcm_f32le", 16_000, {}),
    ("wav", "wav", "pcm_u8", 16_000, {}),
    ("wav", "wav", "adpcm_ms", 16_000, {}),
    ("wav", "wav", "pcm_mulaw", 8_000, {}),
    ("rf64.wav", "wav", "pcm_s16le", 16_000, {"rf64": "always"}),
    ("w64", "w64", "pcm_s16le", 16_000, {}),
    ("aiff", "aiff", "pcm_s16be", 16_000, {}),
    ("aifc", "aiff", "pcm_s16le", 16_000, {}),
    ("caf", "caf", "pcm_s16be", 16_000, {}),
    ("caf", "caf", "alac", 16_000, {}),
    ("au", "au", "pcm_s16be", 16_000, {}),
    ("flac", "flac", "flac", 16_000, {}),
    ("ogg", "ogg", "flac", 16_000, {"page_duration": "200000"}),
    ("mka", "matroska", "flac", 16_000, {}),
    ("mkv", "matroska", "pcm_s16le", 16_000, {"cluster_time_limit": "200"}),
    ("m4a", "ipod", "alac", 16_000, {}),
    ("mov", "mov", "pcm_s16le", 16_000, {}),
    ("avi", "avi", "pcm_s16le", 16_000, {}),
    ("tta", "tta", "tta", 16_000, {}),
    ("wv", "wv", "wavpack", 16_000, {}),
    ("voc", "voc", "pcm_u8", 16_000, {}),
    ("sox", "sox", "pcm_s32le", 16_000, {}),
    ("wma", "asf", "pcm_s16le", 16_000, {}),
    ("mp3", "mp3", "libmp3lame", 24_000, {}),
    ("aac", "adts", "aac", 44_100, {}),
    ("m4a", "ipod", "aac", 44_100, {"movflags": "faststart"}),
    ("ogg", "ogg", "libopus", 48_000, {"page_duration": "200000"}),
    ("webm", "webm", "libopus", 48_000, {"live": "1", "cluster_time_limit": "200"}),
    ("webm", "webm", "libopus", 48_000, {}),
    ("ts", "mpegts", "mp2", 48_000, {}),
    ("flv", "flv", "libmp3lame", 44_100, {}),
    ("amr", "amr", "libopencore_amrnb", 8_000, {}),
)
LOSSLESS = ("alac", "flac", "tta", "wavpack")
ROUGH = ("voc", "sox", "avi")  # without checksums: what is lost inside is not told below 0.1 s, or 192 bytes
SIZES = (0, 1, 2, 3, 8, 255, 4096, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFE, 0xFFFF_FFFF)
STRAY = (b"ID3\x04\0\0\0\0\0\x14" + bytes(20), b"TAG" + bytes(125), b"LIST\x04\0\0\0INFO", b"\xff\xfb\x90\x64", b"RIFF")


@dataclass(frozen=True)
class Sound:
    """A healthy file."""

    name: str
    suffix: str
    content: bytes
    n_samples: int
    """At 16 kHz, as it is heard whole."""
    exact: bool
    """It is lossless: nothing else is right."""
    first: int
    """Where its sound begins, as near as can be told: in PCM to the byte."""
    sample_bytes: int
    """Of PCM in one stretch; 0: something else."""


@cache
def sounds() -> tuple[Sound, ...]:
    """Of every format that this PyAV can write."""
    return tuple(_sound(*each) for each in FORMATS if _writes(each[2]))


def _writes(codec: str) -> bool:
    """Whether it has the encoder: newer wheels come without AMR's."""
    try:
        return Codec(codec, "w").is_encoder
    except UnknownCodecError:
        return False


def _sound(suffix: str, container: str, codec: str, rate: int, options: dict[str, str]) -> Sound:
    n = round(SECONDS * rate)
    noise = np.random.default_rng(7).uniform(-0.4, 0.4, n).astype(np.float32)
    content = _encoded(noise, codec, rate, container, options)
    step = int("".join(filter(str.isdigit, codec[4:]))) // 8 if codec.startswith("pcm_") and codec[5:6].isdigit() else 0
    first = _first_sample(content, noise, codec, rate) if step else -1
    stretch = step if container in ("wav", "w64", "aiff", "caf", "au") else 0
    exact = rate == SAMPLE_RATE and (codec in LOSSLESS or step > 0) and container not in ROUGH
    name = f"{codec} in {suffix}"
    return Sound(name, suffix, content, round(SECONDS * SAMPLE_RATE), exact, first if step else 256, stretch)


def _first_sample(content: bytes, noise: Waveform, codec: str, rate: int) -> int:
    """Where PCM begins."""
    return content.index(_encoded(noise, codec, rate, codec.removeprefix("pcm_"), {})[:24])


def _encoded(noise: Waveform, codec: str, rate: int, container: str, options: dict[str, str]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:  # some of FFmpeg's writers open their file twice
        path = Path(folder) / "sound"
        encode_sound(path, noise[None], codec, rate, container, options)
        return path.read_bytes()


def make_case(seed: int, number: int) -> Case:
    """Each format in turn, each way of spoiling it by chance."""
    rng = random.Random(f"audio {seed} {number}")
    sound = sounds()[number % len(sounds())]
    spoil = rng.choice(SPOILERS)
    title, content, allowed = spoil(sound, rng)

    def check(n_heard: int) -> str | None:
        if not sound.exact or allowed is None or n_heard in allowed:
            return None
        return f"{n_heard} samples are heard where {allowed or 'a refusal'} would be right"

    return Case(f"{sound.name}: {title}", content, f".{sound.suffix}", check)


def run_case(case: Case, folder: Path) -> int:
    """Samples that are heard."""
    path = folder / f"clip{case.suffix}"
    path.write_bytes(case.content)
    return len(read_audio(path))


Allowed = range | None
"""How many samples may be heard; none: a refusal alone is right; None: that depends."""
Spoiled = tuple[str, bytes, Allowed]
"""What was done, the file, and what may be heard."""
MANY = 1 << 40


def _exactly(n: int) -> range:
    return range(n, n + 1)


def _held(sound: Sound, n_bytes: int) -> range:
    """Of a file with so many bytes of sound more: all of PCM but a torn sample; of other codecs what it had."""
    if not sound.sample_bytes:
        return range(sound.n_samples, MANY if n_bytes > 0 else sound.n_samples + 1)
    return _exactly((sound.n_samples * sound.sample_bytes + n_bytes) // sound.sample_bytes)


def _in_sound(sound: Sound, at: int) -> bool:
    end = sound.first + sound.n_samples * sound.sample_bytes if sound.sample_bytes else len(sound.content)
    return sound.first <= at < end


def flipped(sound: Sound, rng: random.Random) -> Spoiled:
    """Bits: one in two times in the header."""
    content = bytearray(sound.content)
    end = sound.first if rng.random() < 0.5 else len(content)
    places = [rng.randrange(end) for _ in range(rng.choice((1, 1, 2, 8)))]
    for at in places:
        content[at] ^= 1 << rng.randrange(8)
    allowed = _exactly(sound.n_samples) if all(_in_sound(sound, at) for at in places) else None
    return f"bits flipped at {sorted(places)}", bytes(content), allowed


def cut(sound: Sound, rng: random.Random) -> Spoiled:
    """The end is missing."""
    size = len(sound.content)
    n = rng.choice((rng.randrange(size), size - rng.randrange(1, 400), rng.randrange(1, 300)))
    n_gone = size - n
    if sound.sample_bytes:  # a few bytes may be missing: writers count headers that are not there
        end = sound.first + sound.n_samples * sound.sample_bytes
        return f"cut to {n} bytes", sound.content[:n], _held(sound, min(0, n - end))
    return f"cut to {n} bytes", sound.content[:n], _held(sound, 0) if n_gone < 200 else range(0)


def _stretch(sound: Sound, rng: random.Random) -> tuple[int, int]:
    at = rng.randrange(len(sound.content))
    return at, min(len(sound.content), at + rng.choice((1, 2, 7, 64, 1000, 8192)))


def removed(sound: Sound, rng: random.Random) -> Spoiled:
    """A piece is missing in the middle."""
    at, end = _stretch(sound, rng)
    allowed = _held(sound, at - end) if _in_sound(sound, at) and _in_sound(sound, end - 1) else None
    return f"without bytes {at} to {end}", sound.content[:at] + sound.content[end:], allowed


def doubled(sound: Sound, rng: random.Random) -> Spoiled:
    """A piece stands twice."""
    at, end = _stretch(sound, rng)
    allowed = _held(sound, end - at) if _in_sound(sound, at) and _in_sound(sound, end - 1) else None
    return f"bytes {at} to {end} twice", sound.content[:end] + sound.content[at:], allowed


def overwritten(sound: Sound, rng: random.Random) -> Spoiled:
    """A piece is noise, zeros, or a piece of another file."""
    at, end = _stretch(sound, rng)
    other = rng.choice(sounds()).content
    start = rng.randrange(max(1, len(other) - 9000))
    piece = rng.choice((rng.randbytes(end - at), bytes(end - at), other[start : start + end - at]))
    allowed = _exactly(sound.n_samples) if _in_sound(sound, at) and _in_sound(sound, end - 1) else None
    content = sound.content[:at] + piece.ljust(end - at, b"\0") + sound.content[end:]
    return f"bytes {at} to {end} overwritten", content, allowed


def inserted(sound: Sound, rng: random.Random) -> Spoiled:
    """Something strange in the middle, or at an end."""
    piece = rng.choice(STRAY) * rng.choice((1, 1, 3))
    at = rng.choice((0, len(sound.content), rng.randrange(len(sound.content))))
    allowed = _held(sound, len(piece)) if _in_sound(sound, at) and at > sound.first else None
    if at == len(sound.content):
        allowed = range(sound.n_samples, _held(sound, len(piece)).stop)
    return f"{piece[:4]!r} and {len(piece)} bytes at {at}", sound.content[:at] + piece + sound.content[at:], allowed


def _size_fields(sound: Sound) -> list[tuple[int, str]]:
    """Where a number stands in the header that counts the file's bytes or its sound's, and how it is written."""
    n_data = sound.n_samples * sound.sample_bytes
    size = len(sound.content)
    sizes = {size, size - 8, size - sound.first, n_data, n_data + 4, n_data + 8, n_data + 24} - {0, 4, 8, 24}
    fields = list[tuple[int, str]]()
    for code in ("<I", ">I", "<Q", ">Q"):
        width = struct.calcsize(code)
        for at in range(max(0, sound.first - width + 1)):
            if struct.unpack_from(code, sound.content, at)[0] in sizes:
                fields.append((at, code))
    return fields


def resized(sound: Sound, rng: random.Random) -> Spoiled:
    """A size states something else."""
    fields = _size_fields(sound)
    if not fields:
        at, code = rng.randrange(max(1, sound.first - 4)), rng.choice(("<I", ">I"))
        allowed = None
    else:
        at, code = rng.choice(fields)
        torn = sound.sample_bytes == 1  # a last sample of 0 may be padding
        allowed = range(sound.n_samples - torn, sound.n_samples + 1)
    (old,) = struct.unpack_from(code, sound.content, at)
    most = (1 << 8 * struct.calcsize(code)) - 1
    new = rng.choice((*SIZES, most, most // 2 + 1, old + 1, old - 1, old // 2, 2 * old, rng.randint(0, old))) & most
    content = bytearray(sound.content)
    struct.pack_into(code, content, at, new)
    return f"size {old} at {at} is {new}", bytes(content), allowed


def joined(sound: Sound, rng: random.Random) -> Spoiled:
    """Two files in one: the same again, or another."""
    other = sound if rng.random() < 0.5 else rng.choice(sounds())
    between = rng.choice((b"", b"", STRAY[0], STRAY[1], bytes(rng.randrange(1, 9))))
    allowed = _exactly(2 * sound.n_samples) if other is sound and not between and sound.suffix != "tta" else None
    return f"{other.name} behind {len(between)} bytes", sound.content + between + other.content, allowed


def _chunk_bounds(sound: Sound) -> list[int]:
    """Where chunks, pages or boxes begin, behind what names the file."""
    content, suffix = sound.content, sound.suffix.rpartition(".")[2]
    if suffix in ("wav", "avi", "aiff", "aifc"):
        at, order = 12, ">" if suffix.startswith("ai") else "<"
        bounds = [at]
        while at + 8 <= len(content):
            at += 8 + (struct.unpack_from(f"{order}I", content, at + 4)[0] + 1) // 2 * 2
            bounds.append(min(at, len(content)))
        return bounds
    marks = {"ogg": b"OggS", "flac": b"\xff\xf8", "mka": b"\x1f\x43\xb6\x75", "mkv": b"\x1f\x43\xb6\x75", "wv": b"wvpk"}
    mark = marks.get(suffix, b"\x1f\x43\xb6\x75" if suffix == "webm" else b"")
    bounds = [at for at in range(len(content)) if mark and content.startswith(mark, at)]
    if suffix in ("m4a", "mov"):
        at = 0
        while at + 8 <= len(content):
            bounds.append(at)
            at += max(8, struct.unpack_from(">I", content, at)[0])
    return [*bounds, len(content)] if bounds else []


def chunks(sound: Sound, rng: random.Random) -> Spoiled:
    """A chunk is missing, stands twice, or elsewhere."""
    bounds = _chunk_bounds(sound)
    if len(bounds) < 3:
        return removed(sound, rng)
    i = rng.randrange(len(bounds) - 1)
    start, end = bounds[i : i + 2]
    chunk = sound.content[start:end]
    what = rng.choice(("without", "twice", "last"))
    rest = sound.content[:start] + sound.content[end:]
    content = {"without": rest, "twice": sound.content[:end] + sound.content[start:], "last": rest + chunk}[what]
    allowed = _exactly(sound.n_samples)
    if content != sound.content and sound.sample_bytes and start < sound.first < end:
        allowed = {"without": range(0), "twice": _exactly(2 * sound.n_samples), "last": allowed}[what]
    elif not sound.sample_bytes and what != "without":
        allowed = _held(sound, 1)
    return f"chunk {i} of {len(bounds) - 1}, {start} to {end}: {what}", content, allowed


SPOILERS = (flipped, cut, removed, doubled, overwritten, inserted, resized, resized, joined, chunks)
