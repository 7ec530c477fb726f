"""MP3 and ADTS: clips joined with tags between them are heard whole, damage is told, healthy files are left alone."""

from __future__ import annotations

import io
import re
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from auricle.models.errors import AudioError
from auricle.runtime.audio.crc16 import crc16
from auricle.runtime.audio.decode import read_audio

APE_ITEM = (6).to_bytes(4, "little") + bytes(4) + b"Title\0a name"
APE_HEAD = b"APETAGEX" + b"".join(n.to_bytes(4, "little") for n in (2000, 32 + len(APE_ITEM), 1))
TAGS = {
    "none": b"",
    "ID3v2": b"ID3\x04\0\0\0\0\x02\x0a" + b"\xff\xfb\x90\x64" * 30 + bytes(146),  # with what looks like frames in it
    "ID3v2 with a footer": b"ID3\x04\0\x10\0\0\0\x14" + bytes(20) + b"3DI\x04\0\x10\0\0\0\x14",
    "ID3v1": b"TAG" + bytes(125),
    "ID3v1 and ID3v2": b"TAG" + bytes(125) + b"ID3\x03\0\0\0\0\0\x14" + bytes(20),
    "APEv2": APE_HEAD + b"\0\0\0\xa0" + bytes(8) + APE_ITEM + APE_HEAD + b"\0\0\0\x80" + bytes(8),
    "Lyrics3": b"LYRICSBEGIN" + b"IND0000210" + b"000021LYRICS200",
}

FORMATS = {"libmp3lame": "mp3", "mp2": "mp2", "aac": "adts"}


@cache
def encoded(
    codec: str = "libmp3lame", rate: int = 16_000, bit_rate: int = 32_000, n: int = 32_000, **options: str
) -> bytes:
    """Noise and a tone, 2 s at 16 kHz, stereo above 64 kbit/s."""
    layout = "stereo" if bit_rate > 64_000 else "mono"
    rng = np.random.default_rng(rate)
    channels = 2 if layout == "stereo" else 1
    sound = 0.3 * np.sin(np.arange(n) / rate * 2000) + 0.02 * rng.standard_normal((channels, n))
    target = io.BytesIO()
    encoder: Any = av.open(target, "w", FORMATS[codec], options={"id3v2_version": "0", **options})
    with encoder as out:
        stream = out.add_stream(codec, rate=rate)
        stream.layout, stream.bit_rate = layout, bit_rate
        frame = av.AudioFrame.from_ndarray(sound.astype(np.float32), format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        context = stream.codec_context
        shaper = av.AudioResampler(context.format, layout, rate, frame_size=context.frame_size)
        for piece in [*shaper.resample(frame), *shaper.resample(None)]:
            out.mux(stream.encode(piece))
        out.mux(stream.encode(None))
    return target.getvalue()


def heard(path: Path, content: bytes) -> int:
    """Samples."""
    path.write_bytes(content)
    return len(read_audio(path))


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(AudioError) as caught:
        read_audio(path)
    return str(caught.value)


@pytest.mark.parametrize("tag", TAGS)
def test_joined_clips_are_heard_whole(tmp_path: Path, tag: str) -> None:
    clip = encoded()
    joined = heard(tmp_path / "a.mp3", clip + TAGS[tag] + clip + TAGS[tag])
    assert joined == heard(tmp_path / "a.mp3", clip + clip)
    assert 64_000 <= joined < 64_000 + 2 * 1105 + 3 * 576  # an encoder's delay, and what fills its last frame
    many = heard(tmp_path / "a.mp3", TAGS[tag].join([clip] * 5))
    assert 3 * 32_000 <= many - joined < 3 * 34_000


@pytest.mark.parametrize("tag", ["none", "ID3v2", "APEv2"])
def test_joined_clips_without_info_tags_or_of_two_rates(tmp_path: Path, tag: str) -> None:
    plain = encoded(write_xing="0")
    assert heard(tmp_path / "a.mp3", plain + TAGS[tag] + plain) >= 64_000
    other = encoded(rate=44_100, bit_rate=128_000, n=44_100)
    assert heard(tmp_path / "a.mp3", plain + TAGS[tag] + other) >= 48_000


@pytest.mark.parametrize("tag", ["none", "ID3v2"])
def test_joined_adts(tmp_path: Path, tag: str) -> None:
    clip = encoded("aac")
    assert heard(tmp_path / "a.aac", clip + TAGS[tag] + clip) == heard(tmp_path / "a.aac", clip + clip) >= 64_000


def test_a_clip_cut_out_of_another(tmp_path: Path) -> None:
    """Its first frames need bits that are not there."""
    frames = encoded(rate=44_100, bit_rate=128_000, n=88_200, write_xing="0")
    half = frames[frames.index(frames[:2], len(frames) // 2) :]
    assert heard(tmp_path / "a.mp3", half) > 12_000
    assert heard(tmp_path / "a.mp3", half + TAGS["ID3v2"] + half) > 24_000


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("bit_rate", [32_000, 64_000, 160_000])
def test_healthy_files_are_heard(tmp_path: Path, rate: int, bit_rate: int) -> None:
    assert heard(tmp_path / "a.mp3", encoded(rate=rate, bit_rate=bit_rate, n=rate)) == pytest.approx(16_000, abs=1)
    junk = np.random.default_rng(2).integers(0, 255, 3000, dtype=np.uint8).tobytes()
    assert heard(tmp_path / "a.mp3", encoded(rate=rate, bit_rate=bit_rate, n=rate) + junk) >= 15_999


@pytest.mark.parametrize(
    ("rate", "bit_rate"), [(16_000, 24_000), (16_000, 64_000), (44_100, 128_000), (48_000, 320_000)]
)
def test_random_bytes_in_the_middle(tmp_path: Path, rate: int, bit_rate: int) -> None:
    """Wherever they fall: into headers, side information or codes."""
    clip = encoded(rate=rate, bit_rate=bit_rate, n=2 * rate)
    rng = np.random.default_rng(7)
    for at in rng.integers(len(clip) // 4, len(clip) * 3 // 4, 15):
        damaged = bytearray(clip)
        damaged[at : at + 40] = rng.integers(0, 256, 40, dtype=np.uint8).tobytes()
        assert "is damaged" in refused(tmp_path / "a.mp3", bytes(damaged))
        assert "is damaged" in refused(tmp_path / "a.mp3", clip + TAGS["ID3v2"] + bytes(damaged))


@pytest.mark.parametrize("codec", ["libmp3lame", "aac", "mp2"])
def test_damage_where_no_checksum_tells(tmp_path: Path, codec: str) -> None:
    """A frame's header is gone, bytes are missing, or others are between two frames."""
    options = {"write_xing": "0"} if codec == "libmp3lame" else {}
    clip = encoded(codec, rate=48_000, bit_rate=64_000, n=96_000, **options)
    middle = clip.index(clip[:2], len(clip) // 2)
    for damaged in (
        clip[:middle] + bytes(4) + clip[middle + 4 :],
        clip[: middle + 50] + clip[middle + 90 :],
        clip[:middle] + bytes(500) + clip[middle:],
    ):
        assert re.search(r"damaged at (0\.9|1\.0|1\.1) s", refused(tmp_path / "a.mp3", damaged))


def test_codes_that_run_beyond_their_frame(tmp_path: Path) -> None:
    """Of random bytes in the codes FFmpeg says nothing; some break the format all the same."""
    clip = encoded(rate=44_100, bit_rate=32_000, n=88_200, write_xing="0")
    start = clip.index(clip[:2], len(clip) // 2)
    told = 0
    for seed in range(8):
        noise = np.random.default_rng(seed).integers(0, 255, 40, dtype=np.uint8).tobytes()
        (tmp_path / "a.mp3").write_bytes(clip[: start + 40] + noise + clip[start + 80 :])
        try:
            read_audio(tmp_path / "a.mp3")
        except AudioError as error:
            told += "damaged at 1.1 s" in str(error)
    assert told >= 5


def test_a_file_that_mp3gain_went_over(tmp_path: Path) -> None:
    """It changes a number in every frame and leaves the checksum."""
    clip = encoded()
    louder = bytearray(clip)
    louder[-20] ^= 1
    assert "checksum" in refused(tmp_path / "a.mp3", bytes(louder))
    undo = APE_HEAD + b"\0\0\0\xa0" + bytes(8) + b"\x0c\0\0\0\0\0\0\0MP3GAIN_UNDO\0+003,+003,N"
    assert heard(tmp_path / "a.mp3", bytes(louder) + undo) == heard(tmp_path / "a.mp3", clip)


def test_a_second_clip_that_is_cut_short(tmp_path: Path) -> None:
    clip = encoded()
    sentence = refused(tmp_path / "a.mp3", clip + TAGS["ID3v2"] + clip[:-1000])
    assert f"promises {2 * len(clip) + len(TAGS['ID3v2'])} bytes" in sentence


def test_the_checksum_is_the_one_of_the_catalogues() -> None:
    assert crc16([b"123456789"]) == 0xBB3D
    data = np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8).tobytes()
    for n in (0, 1, 2, 4097):
        crc = 0
        for byte in data[-n:] if n else b"":
            crc ^= byte
            for _ in range(8):
                crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
        assert crc16([data[len(data) - n :]]) == crc
    assert crc16([data]) == crc16([data[:1], data[1:2], b"", data[2:3000], data[3000:]])
