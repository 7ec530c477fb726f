"""Every sample of a PCM container is heard, whatever size its header states; one that is cut short is refused."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from auricle.models.errors import AudioError
from auricle.runtime.audio.decode import read_audio
from auricle.runtime.audio.extent import sample_extent
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

N = 4001  # samples: an odd number of bytes where they have 1 or 3
PCM = np.random.default_rng(3).integers(-9000, 9000, N, dtype=np.int16)
EXPECTED = PCM.astype(np.float32) / 32768
W64_KIND = bytes.fromhex("f3acd3118cd100c04f8edb8a")
OPEN = "open"
Size = int | str


def riff(chunk: bytes, body: bytes, order: str = "<", size: int | None = None) -> bytes:
    """With its padding byte, where it is whole."""
    return struct.pack(f"{order}4sI", chunk, len(body) if size is None else size) + body + bytes(len(body) % 2)


def wav(stated: Size, behind: bytes = b"") -> bytes:
    fmt = riff(b"fmt ", struct.pack("<HHIIHH", 1, 1, 16_000, 32_000, 2, 16))
    size = 0xFFFF_FFFF if isinstance(stated, str) else 2 * stated
    return b"RIFF" + bytes(4) + b"WAVE" + fmt + riff(b"data", PCM.astype("<i2").tobytes(), size=size) + behind


def extensible(stated: Size, behind: bytes = b"") -> bytes:
    """24 bits in three bytes, one channel: an odd number of bytes, and a padding byte."""
    guid = bytes.fromhex("0100000000001000800000aa00389b71")
    fmt = riff(b"fmt ", struct.pack("<HHIIHHHHI", 0xFFFE, 1, 16_000, 48_000, 3, 24, 22, 24, 4) + guid)
    data = np.frombuffer((PCM.astype("<i4") << 8).tobytes(), np.uint8).reshape(-1, 4)[:, :3].tobytes()
    size = 0 if isinstance(stated, str) else 3 * stated
    return b"RIFF" + bytes(4) + b"WAVE" + fmt + riff(b"data", data, size=size) + behind


def eight_bits(stated: Size, behind: bytes = b"") -> bytes:
    """The upper halves of the samples alone: an odd number, and a padding byte."""
    fmt = riff(b"fmt ", struct.pack("<HHIIHH", 1, 1, 16_000, 16_000, 1, 8))
    data = ((PCM >> 8) + 128).astype(np.uint8).tobytes()
    return (
        b"RIFF" + bytes(4) + b"WAVE" + fmt + riff(b"data", data, size=0 if isinstance(stated, str) else stated) + behind
    )


def rf64(stated: Size, behind: bytes = b"", magic: bytes = b"RF64") -> bytes:
    """With a table of one chunk more."""
    size = 0 if isinstance(stated, str) else 2 * stated
    ds64 = riff(b"ds64", struct.pack("<QQQI4sQ", 0, size, 0, 1, b"bext", 602))
    bext = riff(b"bext", bytes(602))
    fmt = riff(b"fmt ", struct.pack("<HHIIHH", 1, 1, 16_000, 32_000, 2, 16))
    data = riff(b"data", PCM.astype("<i2").tobytes(), size=0xFFFF_FFFF)
    return magic + b"\xff" * 4 + b"WAVE" + ds64 + fmt + bext + data + behind


def bw64(stated: Size, behind: bytes = b"") -> bytes:
    return rf64(stated, behind, b"BW64")


def w64(stated: Size, behind: bytes = b"") -> bytes:
    def chunk(name: bytes, body: bytes, size: int | None = None) -> bytes:
        size = 24 + len(body) if size is None else size
        return name + W64_KIND + struct.pack("<Q", size) + body + bytes(-len(body) % 8)

    fmt = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, 16_000, 32_000, 2, 16))
    size = (1 << 63) - 1 if isinstance(stated, str) else 24 + 2 * stated
    behind = chunk(b"summ", bytes(8)) if behind else b""
    head = bytes.fromhex("726966662e91cf11a5d628db04c10000") + struct.pack("<Q", size) + b"wave" + W64_KIND
    data = PCM.astype("<i2").tobytes()
    return (
        head + fmt + (chunk(b"data", data, size) if behind else chunk(b"data", data, size)[: 24 + len(data)]) + behind
    )


def aiff(stated: Size, behind: bytes = b"", kind: bytes = b"AIFF") -> bytes:
    extended = struct.pack(">HQ", 16_396, 0xFA00 << 48)  # 16,000 as an 80-bit float
    comm = struct.pack(">HIH", 1, N, 16) + extended + (b"sowt\0\0" if kind == b"AIFC" else b"")
    data = PCM.astype("<i2" if kind == b"AIFC" else ">i2").tobytes()
    size = 0 if isinstance(stated, str) else 8 + 2 * stated
    behind = riff(b"ANNO", b"a note", ">") if behind else b""
    chunks = kind + riff(b"COMM", comm, ">") + riff(b"SSND", bytes(8) + data, ">", size) + behind
    return riff(b"FORM", chunks, ">", size=0 if isinstance(stated, str) else None)


def aifc(stated: Size, behind: bytes = b"") -> bytes:
    return aiff(stated, behind, b"AIFC")


def caf(stated: Size, behind: bytes = b"") -> bytes:
    desc = struct.pack(">4sqd4sIIIII", b"desc", 32, 16_000.0, b"lpcm", 0, 2, 1, 1, 16)
    size = -1 if isinstance(stated, str) else 4 + 2 * stated
    behind = struct.pack(">4sq", b"info", 8) + bytes(8) if behind else b""
    return b"caff\0\1\0\0" + desc + struct.pack(">4sqI", b"data", size, 0) + PCM.astype(">i2").tobytes() + behind


def au(stated: Size, behind: bytes = b"") -> bytes:
    size = 0xFFFF_FFFF if isinstance(stated, str) else 2 * stated
    return struct.pack(">4s5I", b".snd", 28, size, 3, 16_000, 1) + bytes(4) + PCM.astype(">i2").tobytes()


CONTAINERS: list[Callable[..., bytes]] = [wav, extensible, eight_bits, rf64, bw64, w64, aiff, aifc, caf, au]
LIST = riff(b"LIST", b"INFOISFT\x06\0\0\0Lavf62")


def refused(path: Path) -> str:
    with pytest.raises(AudioError) as caught:
        read_audio(path)
    assert path.name in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("container", CONTAINERS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stated=st.one_of(st.just(OPEN), st.just(N), st.just(N - 1), st.integers(1, N)), chunks=st.booleans())
def test_every_sample_is_heard(tmp_path: Path, container: Callable[..., bytes], stated: Size, chunks: bool) -> None:
    """The size is right, left open or less than there is; chunks stand behind the samples or not."""
    path = tmp_path / "a.audio"
    path.write_bytes(container(stated, LIST if chunks else b""))
    expected = (PCM >> 8).astype(np.float32) / 128 if container is eight_bits else EXPECTED
    np.testing.assert_array_equal(read_audio(path), expected)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9])
def test_cut_short(tmp_path: Path, container: Callable[..., bytes], keep: float) -> None:
    whole = container(N)
    path = tmp_path / "a.audio"
    path.write_bytes(whole[: int(len(whole) * keep)])
    sentence = refused(path)
    assert "cut short" in sentence and f"has {int(len(whole) * keep)}" in sentence


@pytest.mark.parametrize(
    "behind",
    [
        LIST,
        riff(b"id3 ", b"ID3\x04" + bytes(77)),
        riff(b"cue ", bytes(28)) + riff(b"xyz1", bytes(3)) + LIST,
        LIST[:-3],
        LIST + bytes(100),
        b"TAG" + bytes(125),
        b"ID3\x04" + bytes(30),
        b"APETAGEX" + bytes(64),
    ],
)
def test_what_is_no_sound_is_not_heard(tmp_path: Path, behind: bytes) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(N, behind))
    np.testing.assert_array_equal(read_audio(path), EXPECTED)


@pytest.mark.parametrize("size", [0x7FFF_FFFF, 0x7FFF_FFDB, 0x8000_0024, 0xFFFF_FFDB, 0xFFFF_FFFF, 0])
def test_sizes_that_live_recorders_leave(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(N).replace(struct.pack("<I", 2 * N), struct.pack("<I", size)))
    np.testing.assert_array_equal(read_audio(path), EXPECTED)


def test_a_header_without_samples(tmp_path: Path) -> None:
    """What stands behind them is no sound either."""
    path = tmp_path / "a.wav"
    path.write_bytes(wav(0).removesuffix(PCM.tobytes()) + riff(b"bext", bytes(4000)))
    assert "holds 0.000 s" in refused(path)


@pytest.mark.parametrize("stated", [2 * N - 1, 2 * N - 2])
def test_a_size_that_ends_inside_a_sample(tmp_path: Path, stated: int) -> None:
    """Where padding would be, the rest of the sample is."""
    path = tmp_path / "a.wav"
    path.write_bytes(wav(N).replace(struct.pack("<I", 2 * N), struct.pack("<I", stated)))
    np.testing.assert_array_equal(read_audio(path), EXPECTED)


def test_a_second_chunk_of_samples(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(N, riff(b"data", PCM.tobytes())))
    assert "begin another file" in refused(path)


@pytest.mark.parametrize(("container", "n_behind"), [(wav, len(wav(N))), (aiff, len(aiff(N))), (au, len(au(N)))])
def test_two_files_in_one(tmp_path: Path, container: Callable[..., bytes], n_behind: int) -> None:
    path = tmp_path / "a.audio"
    path.write_bytes(container(N) + container(N))
    sentence = refused(path)
    assert f" {2 * N} bytes" in sentence and f" {n_behind} bytes" in sentence


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_wav_above_4_gb(tmp_path: Path, wrapped: bool) -> None:
    """Its size of 32 bits has wrapped, or is that of the first 3 GB, which came before the cut."""
    path = tmp_path / "a.wav"
    head = wav(0xBFFF_0000 // 2, b"").removesuffix(PCM.tobytes())
    n_data = (1 << 32) + 96_000 if wrapped else 1_000_000
    if wrapped:
        head = head[:-4] + struct.pack("<I", 96_000)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + n_data)  # a sparse file
    if not wrapped:
        assert f"promises {len(head) + 0xBFFF_0000} bytes" in refused(path)
        return
    with path.open("rb") as file:
        extent = sample_extent(file, path.stat().st_size)
    assert extent is not None and extent.end - extent.start == n_data


def test_an_aiff_that_no_header_can_describe(tmp_path: Path) -> None:
    path = tmp_path / "a.aiff"
    path.write_bytes(aiff(N))
    with path.open("r+b") as file:
        file.truncate((1 << 32) + 1000)
    sentence = refused(path)
    assert f"states {2 * N} bytes" in sentence and f"holds {(1 << 32) + 1000 - 54}:" in sentence
