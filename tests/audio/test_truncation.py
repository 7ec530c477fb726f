"""A file that holds less than its container states is refused as cut short, whatever the container."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from auricle.models.errors import AudioError
from auricle.runtime.audio.decode import read_audio
from tracks import encode_sound

NOISE = np.random.default_rng(4).uniform(-0.4, 0.4, (1, 96_000)).astype(np.float32)


def write(path: Path, codec: str, options: dict[str, str] | None = None, rate: int = 48_000) -> Path:
    """2 s of noise."""
    encode_sound(path, NOISE[:, : 2 * rate], codec, rate, options=options)
    return path


def refused(path: Path) -> str:
    with pytest.raises(AudioError) as caught:
        read_audio(path)
    assert path.name in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.wma", "pcm_s16le", {}),
        ("a.mp4", "aac", {}),
        ("a.mp4", "aac", {"movflags": "faststart"}),
        ("a.mov", "pcm_s16le", {}),
        ("a.webm", "libopus", {}),
        ("a.webm", "libopus", {"live": "1", "cluster_time_limit": "500"}),
        ("a.mkv", "flac", {"live": "1"}),
        ("a.avi", "pcm_s16le", {}),
        ("a.ogg", "flac", {}),
        ("a.caf", "alac", {}),
        ("a.voc", "pcm_u8", {}),
        ("a.sox", "pcm_s32le", {}),
    ],
)
@pytest.mark.parametrize("keep", [0.4, 0.9])
def test_cut_short(tmp_path: Path, name: str, codec: str, options: dict[str, str], keep: float) -> None:
    path = write(tmp_path / name, codec, options)
    assert 31_900 < len(read_audio(path)) < 32_900
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    sentence = refused(path)
    assert "cut short" in sentence and f"has {int(len(whole) * keep)}" in sentence


def test_an_ogg_that_ends_between_two_pages(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ogg", "libopus", {"page_duration": "200000"})
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(b"OggS")])
    assert "cut short" in refused(path)


@pytest.mark.parametrize("size", [b"\xff", b"\x01" + b"\xff" * 7])
def test_a_live_webm_with_clusters_of_open_size(tmp_path: Path, size: bytes) -> None:
    """As browsers record."""
    path = write(tmp_path / "a.webm", "libopus", {"live": "1"})
    whole = path.read_bytes()
    at = whole.index(b"\x1f\x43\xb6\x75") + 4
    width = 9 - whole[at].bit_length()
    whole = whole[:at] + size + whole[at + width :]
    path.write_bytes(whole)
    assert len(read_audio(path)) > 31_900
    path.write_bytes(whole[:-400])
    assert "cut short" in refused(path)


def test_a_second_list_of_an_avi(tmp_path: Path) -> None:
    """OpenDML: what does not fit into the first gigabyte follows in lists of its own."""
    path = write(tmp_path / "a.avi", "pcm_s16le")
    whole = path.read_bytes()
    path.write_bytes(whole + struct.pack("<4sI4s", b"RIFF", 5000, b"AVIX") + bytes(900))
    assert f"promises {len(whole) + 5008} bytes" in refused(path)


def test_a_nist_file_states_its_samples(tmp_path: Path) -> None:
    fields = b"NIST_1A\n   1024\nchannel_count -i 1\nsample_count -i 32000\nsample_rate -i 16000\nsample_n_bytes -i 2\n"
    fields += b"sample_byte_format -s2 01\nsample_sig_bits -i 16\nsample_coding -s3 pcm\nend_head\n"
    pcm = (NOISE[0, :32_000] * 32768).astype("<i2").tobytes()
    path = tmp_path / "a.wav"  # as TIMIT's are called
    path.write_bytes(fields.ljust(1024) + pcm)
    assert len(read_audio(path)) == 32_000
    path.write_bytes(fields.ljust(1024) + pcm[:40_000])
    assert "damaged at 1.3 s" in refused(path)


def test_a_lossless_caf_is_heard_to_its_last_sample(tmp_path: Path) -> None:
    assert len(read_audio(write(tmp_path / "a.caf", "alac", rate=16_000))) == 32_000


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mka", "flac", {"cluster_time_limit": "200"}),
        ("a.wma", "pcm_s16le", {}),
        ("a.ogg", "flac", {"page_duration": "60000"}),
        ("a.ogg", "libopus", {"page_duration": "60000"}),
        ("a.tta", "tta", {}),
        ("a.wv", "wavpack", {}),
    ],
)
@pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
def test_a_few_milliseconds_that_are_lost(
    tmp_path: Path, name: str, codec: str, options: dict[str, str], place: float
) -> None:
    """FFmpeg passes over the damaged packet, which is shorter than a gap."""
    path = write(tmp_path / name, codec, options, 16_000)
    whole = path.read_bytes()
    at = int(len(whole) * place)
    path.write_bytes(whole[:at] + whole[at + 1 :])
    assert "damaged at " in refused(path)


@pytest.mark.parametrize(("name", "codec"), [("a.m4a", "alac"), ("a.mp4", "aac"), ("a.mov", "pcm_s16le")])
def test_two_indices_in_one_file(tmp_path: Path, name: str, codec: str) -> None:
    path = write(tmp_path / name, codec)
    whole = path.read_bytes()
    path.write_bytes(whole + whole)
    assert f"another file from byte {len(whole)} on" in refused(path)


def test_a_codec_that_nobody_knows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", "pcm_s16le")
    path.write_bytes(path.read_bytes().replace(b"A_PCM/INT/LIT", b"A_PCX/INT/LIT"))
    assert "cannot be decoded" in refused(path)


def test_a_matroska_header_that_ends_inside_an_element(tmp_path: Path) -> None:
    path = write(tmp_path / "a.webm", "libopus")
    whole = path.read_bytes()
    for n in range(40, 400):
        path.write_bytes(whole[:n])
        refused(path)
