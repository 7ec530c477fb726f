"""Any file or array becomes float32 mono 16 kHz, or one clear sentence."""

from __future__ import annotations

import math
import os
import socket
import struct
import tracemalloc
import wave
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from auricle.models.audio import SAMPLE_RATE, Waveform
from auricle.models.errors import AudioError
from auricle.runtime.audio.decode import as_waveform, is_silent, open_audio, read_audio
from auricle.runtime.audio.level import SILENCE_DBFS, peak_dbfs
from auricle.runtime.audio.resample import Resampler
from auricle.runtime.audio.selection import Selection
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

JFK = Path(__file__).parents[1] / "golden" / "jfk.wav"
RATES = [8_000, 11_025, 16_000, 22_050, 44_100, 48_000]
NOISE = np.random.default_rng(5).integers(0, 256, 4000, dtype=np.uint8).tobytes()
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


def tone(hz: float, rate: int, seconds: float, gain: float = 0.5) -> NDArray[np.float64]:
    return gain * np.sin(2 * np.pi * hz * np.arange(round(rate * seconds)) / rate)


def write(
    path: Path, samples: NDArray[Any], rate: int, codec: str, video: bool = False, late: int = 0, title: str = ""
) -> Path:
    """Encode [n] or [n, channels] float samples with PyAV; the sound begins `late` seconds in."""
    channels = np.atleast_2d(samples.T).astype(np.float32)
    layout = LAYOUTS[len(channels)]
    encoder: Any = av.open(str(path), "w")
    with encoder as out:
        if title:
            out.metadata["title"] = title
        pictures = out.add_stream("mpeg4", rate=10) if video else None
        stream = out.add_stream(codec, rate=rate)
        stream.layout = layout
        if codec == "aac":  # FFmpeg's slower search leaves a click in a pure tone
            stream.codec_context.options = {"aac_coder": "fast"}
        if codec == "vorbis":
            stream.codec_context.options = {"strict": "-2"}
        if codec == "pcm_s24le":
            stream.format = "s32"
        if pictures is not None:
            pictures.width, pictures.height, pictures.pix_fmt = 64, 64, "yuv420p"
            for i in range(round(channels.shape[1] / rate * 10) + 10 * late):
                frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
                frame.pts, frame.time_base = i, Fraction(1, 10)
                out.mux(pictures.encode(frame))
            out.mux(pictures.encode(None))
        sound = av.AudioFrame.from_ndarray(np.ascontiguousarray(channels), format="fltp", layout=layout)
        sound.sample_rate, sound.time_base = rate, Fraction(1, rate)
        sound.pts = late * rate
        context = stream.codec_context
        shaper = av.AudioResampler(context.format, layout, rate, frame_size=context.frame_size or 1024)
        for piece in [*shaper.resample(sound), *shaper.resample(None)]:
            out.mux(stream.encode(piece))
        out.mux(stream.encode(None))
    return path


def loudest_hz(waveform: Waveform) -> float:
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return float(np.argmax(spectrum)) * SAMPLE_RATE / len(waveform)


def refused(path: Path | str) -> str:
    """The sentence with which a file is refused: one line that names the file."""
    with pytest.raises(AudioError) as caught:
        read_audio(path)
    sentence = str(caught.value)
    assert "\n" not in sentence and not sentence.endswith(".") and caught.value.exit_status == 2
    assert Path(path).name in sentence
    return sentence


def test_16_khz_pcm_comes_through_bit_for_bit() -> None:
    with wave.open(str(JFK)) as file:
        pcm = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    waveform = read_audio(JFK)
    assert waveform.dtype == np.float32
    np.testing.assert_array_equal(waveform, pcm.astype(np.float32) / 32768)
    np.testing.assert_array_equal(as_waveform(pcm, 16_000), waveform)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize(("suffix", "codec"), [("wav", "pcm_s16le"), ("flac", "flac"), ("wav", "pcm_f32le")])
def test_every_rate_keeps_pitch_level_and_length(tmp_path: Path, rate: int, suffix: str, codec: str) -> None:
    n = round(1.3 * rate) + 7
    waveform = read_audio(write(tmp_path / f"a.{suffix}", tone(440, rate, n / rate), rate, codec))
    assert abs(len(waveform) - round(n * SAMPLE_RATE / rate)) <= 1
    assert loudest_hz(waveform) == pytest.approx(440, abs=1)
    assert peak_dbfs(waveform[2000:-2000]) == pytest.approx(20 * math.log10(0.5), abs=0.05)


@pytest.mark.parametrize(
    ("name", "codec", "video"),
    [
        ("a.mp3", "libmp3lame", False),
        ("a.m4a", "aac", False),
        ("a.ogg", "libopus", False),
        ("a.opus", "libopus", False),
        ("a.mka", "flac", False),
        ("a.webm", "libopus", False),
        ("a.aiff", "pcm_s16be", False),
        ("a.au", "pcm_mulaw", False),
        ("a.aac", "aac", False),
        ("a.mp4", "aac", True),
        ("a.mkv", "aac", True),
        ("a.avi", "libmp3lame", True),
        ("a.ts", "aac", True),
    ],
)
def test_every_container(tmp_path: Path, name: str, codec: str, video: bool) -> None:
    path = write(tmp_path / name, tone(1000, 48_000, 2.0), 48_000, codec, video)
    waveform = read_audio(path)
    assert abs(len(waveform) - 32_000) < 2500  # lossy codecs pad; an mpeg stream begins with a gap
    assert loudest_hz(waveform[4000:-4000]) == pytest.approx(1000, abs=1)
    assert peak_dbfs(waveform[8000:20_000]) == pytest.approx(20 * math.log10(0.5), abs=0.6)


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le"])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_every_sample_format_has_the_same_scale(tmp_path: Path, codec: str, channels: int) -> None:
    sound = tone(300, 16_000, 0.5, gain=0.7)
    path = write(tmp_path / "a.wav", np.stack([sound] * channels, 1), 16_000, codec)
    tolerance = {"pcm_u8": 1 / 128, "pcm_s16le": 1 / 32768}.get(codec, 1e-6)
    for mix in (False, True):
        np.testing.assert_allclose(read_audio(path, Selection(mix=mix)), sound, atol=tolerance)


@pytest.mark.parametrize("codec", ["pcm_s16le", "pcm_s24le", "pcm_f32le"])
@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("rate", RATES)
def test_every_rate_layout_and_format_from_one_sample_up(tmp_path: Path, rate: int, channels: int, codec: str) -> None:
    for n in (1, 2, rate // 20, rate // 10 - 3, rate // 10 + 1, rate // 3 + 1):
        sound = tone(440, rate, n / rate)
        noise = np.random.default_rng(n).uniform(-0.9, 0.9, (n, channels - 1))
        path = write(tmp_path / f"{n}.wav", np.column_stack([sound, noise]), rate, codec)
        if n < rate // 10:
            assert "at least 0.1 s" in refused(path)
        else:
            np.testing.assert_allclose(read_audio(path), as_waveform(sound, rate), rtol=0, atol=1 / 32768)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_stereo_is_channel_0_and_mix_is_the_mean(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    sound, noise = tone(500, 44_100, 0.5), 0.2 * rng.standard_normal(22_050)
    codec = "flac" if suffix == "flac" else "pcm_s16le"
    mono = write(tmp_path / f"mono.{suffix}", sound, 44_100, codec)
    stereo = write(tmp_path / f"stereo.{suffix}", np.stack([sound, noise], 1), 44_100, codec)
    np.testing.assert_array_equal(read_audio(stereo), read_audio(mono))
    mean = as_waveform((sound + noise) / 2, 44_100)
    np.testing.assert_allclose(read_audio(stereo, Selection(mix=True)), mean, atol=1e-4)
    np.testing.assert_allclose(as_waveform(np.stack([sound, noise], 1), 44_100, Selection(mix=True)), mean, atol=1e-6)


def test_arrays_of_every_dtype() -> None:
    sound = tone(200, 16_000, 0.3)
    for array in (
        sound,
        sound.astype(np.float32),
        np.rint(sound * 2**15).astype(np.int16),
        np.rint(sound * 2**15).astype(">i2"),
        np.rint(sound * 2**31).astype(np.int32),
        sound[:, None],
        sound[::-1][::-1],
    ):
        waveform = as_waveform(array, 16_000)
        assert waveform.dtype == np.float32 and waveform.ndim == 1
        np.testing.assert_allclose(waveform, sound, atol=1 / 32768)


@pytest.mark.parametrize(
    ("samples", "rate", "word"),
    [
        (np.zeros(16_000, np.complex64), 16_000, "complex64"),
        (np.zeros(16_000, np.int64), 16_000, "int64"),
        (np.zeros((2, 16_000), np.float32), 16_000, "(2, 16000)"),
        (np.zeros((2, 2, 2), np.float32), 16_000, "(2, 2, 2)"),
        (np.zeros(0, np.float32), 16_000, "0.000 s"),
        (np.zeros(1, np.float32), 16_000, "0.000 s"),
        (np.zeros(16_000, np.float32), 0, "sample_rate 0"),
        (np.zeros(16_000, np.float32), 44_100.5, "44100.5"),
        (np.zeros(16_000, np.float32), 3_999, "4000 to 768000"),
        (np.zeros(16_000, np.float32), 768_001, "4000 to 768000"),
        (np.zeros(16_000, np.float32), math.nan, "sample_rate nan"),
        (np.zeros(16_000, np.float32), "16000", "sample_rate '16000'"),
        (np.zeros(16_000, np.float32), None, "sample_rate None"),
        (np.full(16_000, np.nan, np.float32), 16_000, "not numbers"),
        (np.full(16_000, np.inf), 16_000, "not numbers"),
        (np.full(16_000, 12_000, np.float32), 16_000, "12000"),
    ],
)
def test_wrong_arrays_are_refused(samples: NDArray[Any], rate: Any, word: str) -> None:
    with pytest.raises(AudioError) as caught:
        as_waveform(samples, rate)
    assert word in str(caught.value) and "\n" not in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 200_000), rate=st.sampled_from([*RATES, 96_000, 12_345]))
def test_any_length(n: int, rate: int) -> None:
    samples = np.zeros(n, np.float32)
    expected = round(n * SAMPLE_RATE / rate)
    if expected < 1599:
        with pytest.raises(AudioError, match=r"at least 0\.1 s"):
            as_waveform(samples, rate)
    elif expected > 1601:
        assert abs(len(as_waveform(samples, rate)) - expected) <= 1


@settings(max_examples=20, deadline=None)
@given(rate=st.sampled_from([*RATES, 48_000]), size=st.integers(1, 5000))
def test_the_resampler_does_not_hear_where_chunks_end(rate: int, size: int) -> None:
    sound = tone(700, rate, 0.4).astype(np.float32)
    resampler = Resampler()
    pieces = [resampler.push(sound[i : i + size], rate) for i in range(0, len(sound), size)]
    streamed = np.concatenate([*pieces, resampler.flush()])
    np.testing.assert_allclose(streamed, as_waveform(sound, rate), atol=1e-6)


def test_streaming_equals_reading(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", tone(440, 44_100, 5.3), 44_100, "flac")
    chunks = list(open_audio(path))
    assert len(chunks) >= 5 and max(map(len, chunks)) < 2 * SAMPLE_RATE
    np.testing.assert_array_equal(np.concatenate(chunks), read_audio(path))
    np.testing.assert_array_equal(read_audio(path, max_seconds=2.5), read_audio(path)[:40_000])


def test_ten_minutes_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        for _ in range(600):
            file.writeframes((tone(440, 8000, 1.0) * 32767).astype("<i2").tobytes())
    tracemalloc.start()
    n = sum(len(chunk) for chunk in open_audio(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert abs(n - 600 * SAMPLE_RATE) <= 1
    assert peak < 2_000_000


def test_a_soundtrack_that_starts_late_keeps_its_time(tmp_path: Path) -> None:
    path = write(tmp_path / "late.mkv", tone(440, 16_000, 1.0), 16_000, "pcm_s16le", video=True, late=2)
    waveform = read_audio(path)
    assert abs(len(waveform) - 48_000) < 100
    assert is_silent(waveform[:31_900]) and not is_silent(waveform[32_100:])


def test_missing_folder_device_and_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    assert "does not exist" in refused(tmp_path / "nothing.wav")
    assert "folder" in refused(tmp_path)
    assert "0 bytes" in refused(tmp_path / "empty.wav")
    assert "device" in refused("/dev/null")


def test_odd_file_names(tmp_path: Path) -> None:
    latin = os.fsdecode(b"latin\xe9.wav")
    for odd in ("two\nlines.wav", latin, "Grüße 你好.wav", "http:x?y.wav", "%d.wav", "-.wav"):
        path = tmp_path / odd
        with pytest.raises(AudioError) as caught:
            read_audio(path)
        assert str(caught.value).isprintable()
        path.write_bytes(JFK.read_bytes())
        assert len(read_audio(path)) == 176_000


TAG = b"caf\xe9 \xff\xfe \xc3"  # Latin-1, bytes that no encoding has, half a UTF-8 character


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.m4a", "a.mkv"])
def test_tags_that_are_not_utf_8(tmp_path: Path, name: str) -> None:
    codec = {"wav": "pcm_s16le", "mp3": "libmp3lame", "m4a": "aac"}.get(name[2:], "flac")
    path = write(tmp_path / name, tone(440, 48_000, 1.0), 48_000, codec, title="=" * len(TAG))
    plain = read_audio(path)
    content = path.read_bytes()
    assert content.count(b"=" * len(TAG)) == 1
    path.write_bytes(content.replace(b"=" * len(TAG), TAG))
    np.testing.assert_array_equal(read_audio(path), plain)


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.txt", "a.json", "a"])
@pytest.mark.parametrize(
    "content",
    [
        b"hello\n" * 500,
        b'{"a": 1}',
        bytes(1000),
        NOISE,
        b"RIFF",
        b"ID3",
        b"OggS",
        b"\xff\xfb",
        b"\x1a\x45\xdf\xa3",
    ],
)
def test_what_is_not_audio(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name)


def test_a_video_without_sound(tmp_path: Path) -> None:
    encoder: Any = av.open(str(tmp_path / "mute.mp4"), "w")
    with encoder as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        out.mux(stream.encode(None))
    assert "no sound" in refused(tmp_path / "mute.mp4")


LOSSY = [("a.mp3", "libmp3lame"), ("a.m4a", "aac"), ("a.ogg", "libopus"), ("a.mka", "aac")]
LOSSLESS = [("a.avi", "pcm_s16le"), ("a.wav", "pcm_s16le"), ("a.flac", "flac"), ("a.aiff", "pcm_s16be")]


@pytest.mark.parametrize(("name", "codec"), LOSSY + LOSSLESS)
@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
def test_cut_short(tmp_path: Path, name: str, codec: str, keep: float) -> None:
    path = write(tmp_path / name, tone(440, 16_000, 3.0) + 0.01, 16_000, codec)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    assert "cut short" in (sentence := refused(path)) or "damaged" in sentence or "not audio" in sentence


@pytest.mark.parametrize(("name", "codec"), [*LOSSY, ("a.flac", "flac")])
def test_damaged_in_the_middle_names_the_time(tmp_path: Path, name: str, codec: str) -> None:
    rng = np.random.default_rng(1)
    path = write(tmp_path / name, tone(440, 16_000, 3.0) + 0.1 * rng.standard_normal(48_000), 16_000, codec)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 1500] = rng.integers(0, 256, 1500, dtype=np.uint8).tobytes()
    path.write_bytes(content)
    assert "damaged at " in refused(path)


@pytest.mark.parametrize(
    ("seconds", "video", "readable"), [(3.004, False, True), (3.1, False, False), (9.0, True, True)]
)
def test_a_matroska_header_that_promises_more(tmp_path: Path, seconds: float, video: bool, readable: bool) -> None:
    path = write(tmp_path / "a.mkv", tone(440, 16_000, 3.0), 16_000, "pcm_s16le", video)
    written = struct.pack(">d", 3000.0)
    content = path.read_bytes()
    assert content.count(written) == 1
    path.write_bytes(content.replace(written, struct.pack(">d", 1000 * seconds)))
    if readable:
        assert len(read_audio(path)) == 48_000
    else:
        assert "damaged at 3.0 s" in refused(path)
    path.write_bytes(content.replace(written, bytes(8)))  # as a live recorder leaves it
    assert len(read_audio(path)) == 48_000


@pytest.mark.parametrize("place", [0.3, 0.6, 0.97])
def test_one_changed_byte_in_an_ogg(tmp_path: Path, place: float) -> None:
    path = write(tmp_path / "a.ogg", np.random.default_rng(2).uniform(-0.5, 0.5, 80_000), 16_000, "libopus")
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 255
    path.write_bytes(content)
    assert "damaged at " in refused(path)


def test_one_flipped_bit_in_a_flac(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", np.random.default_rng(2).uniform(-0.5, 0.5, 32_000), 16_000, "flac")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    assert "damaged at " in refused(path)


def test_an_odd_tail_is_no_damage(tmp_path: Path) -> None:
    for name, codec in [("a.mp3", "libmp3lame"), ("a.wav", "pcm_s16le"), ("a.m4a", "aac")]:
        path = write(tmp_path / name, tone(440, 44_100, 4.0), 44_100, codec)
        n = len(read_audio(path))
        path.write_bytes(path.read_bytes() + b"TAG" + b"title".ljust(125, b"\0"))
        assert abs(len(read_audio(path)) - n) < 1000


def test_an_open_wav_header_promises_nothing(tmp_path: Path) -> None:
    content = bytearray(JFK.read_bytes())
    for size in (0, 0x7FFF_FFFF, 0xFFFF_FFFF):
        at = content.index(b"data") + 4
        content[at : at + 4] = size.to_bytes(4, "little")
        (tmp_path / "live.wav").write_bytes(content)
        assert len(read_audio(tmp_path / "live.wav")) == len(read_audio(JFK))


@pytest.mark.parametrize("value", [np.nan, np.inf, 20_000.0])
def test_samples_that_are_no_sound(tmp_path: Path, value: float) -> None:
    sound = tone(440, 16_000, 3.0)
    sound[40_000] = value
    path = tmp_path / "a.wav"
    data = sound.astype("<f4").tobytes()
    header = b"fmt " + (16).to_bytes(4, "little") + np.array([3, 1], "<u2").tobytes()
    header += np.array([16_000, 64_000], "<u4").tobytes() + np.array([4, 32], "<u2").tobytes()
    body = b"WAVE" + header + b"data" + len(data).to_bytes(4, "little") + data
    path.write_bytes(b"RIFF" + len(body).to_bytes(4, "little") + body)
    assert "2." in refused(path)


@pytest.mark.parametrize("rate", [1, 3_999, 768_001, 2**31 - 1])
@pytest.mark.parametrize(("suffix", "codec"), [("wav", "pcm_s16le"), ("au", "pcm_s16be"), ("w64", "pcm_s16le")])
def test_rates_that_no_sound_has(tmp_path: Path, suffix: str, codec: str, rate: int) -> None:
    """A minute's worth of bytes at 1 Hz would be hours."""
    path = write(tmp_path / f"a.{suffix}", np.zeros(48_000), 16_000, codec)
    order = "big" if suffix == "au" else "little"
    content = path.read_bytes().replace((16_000).to_bytes(4, order), rate.to_bytes(4, order), 1)
    path.write_bytes(content)
    tracemalloc.start()
    sentence = refused(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert f"states {rate} samples a second" in sentence and "4000 to 768000 Hz" in sentence
    assert peak < 500_000


@pytest.mark.parametrize("rate", [4_000, 768_000])
def test_the_lowest_and_the_highest_rate(tmp_path: Path, rate: int) -> None:
    path = write(tmp_path / "a.wav", tone(440, rate, 0.5), rate, "pcm_s16le")
    assert abs(len(read_audio(path)) - 8_000) <= 1


def test_a_tenth_of_a_second_is_the_least(tmp_path: Path) -> None:
    assert len(read_audio(write(tmp_path / "a.wav", tone(440, 16_000, 0.1), 16_000, "pcm_s16le"))) == 1600
    for n in (1, 100, 1599):
        path = write(tmp_path / "b.wav", np.full(n, 0.1), 16_000, "pcm_s16le")
        assert "at least 0.1 s" in refused(path)


@pytest.mark.parametrize("name", ["a.mp3", "a.wav", "a.ffconcat", "a"])
@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile secret.wav\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsecret.wav\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    ],
)
def test_a_text_opens_no_other_file(tmp_path: Path, text: str, name: str) -> None:
    """FFmpeg takes the first for a list of files to be read one after another, whatever it is called."""
    write(tmp_path / "secret.wav", tone(440, 16_000, 1.0), 16_000, "pcm_s16le")
    (tmp_path / name).write_text(text)
    assert "is not audio" in refused(tmp_path / name)


def test_a_playlist_is_not_followed_into_the_network(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        playlist = tmp_path / "a.m3u8"
        playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{address}\n#EXT-X-ENDLIST\n")
        refused(playlist)
        with pytest.raises(AudioError, match="does not exist"):
            read_audio(address)
        with pytest.raises(TimeoutError):
            server.accept()


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.mp3", tone(440, 16_000, 1.0), 16_000, "libmp3lame")
    capfd.readouterr()
    path.write_bytes(path.read_bytes()[3:-100])
    read_audio(path)
    path.write_bytes(b"RIFF1234WAVEfmt ")
    refused(path)
    assert capfd.readouterr() == ("", "")


def test_silence() -> None:
    step = np.float32(10 ** (SILENCE_DBFS / 20))
    sound = tone(440, 16_000, 0.2, 1.0).astype(np.float32)
    assert is_silent(np.zeros(100, np.float32)) and is_silent(np.zeros(0, np.float32))
    assert is_silent(0.9 * step * sound) and is_silent(0.9 * step * sound + np.float32(0.3))
    assert not is_silent(1.1 * step * sound)
    assert peak_dbfs(sound) == pytest.approx(0, abs=0.01)
