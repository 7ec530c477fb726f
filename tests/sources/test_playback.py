"""Files and pipes as sources: the same samples whatever the chunks, by the clock or at once, and a clean end."""

from __future__ import annotations

import io
import os
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from auricle.models.audio import SAMPLE_RATE, Waveform, synthetic_clip
from auricle.models.errors import AudioError, InputError, RunError
from auricle.runtime.audio.decode import as_waveform, read_audio
from auricle.runtime.audio.signature import bytes_to_tell, container_name
from auricle.runtime.events import AudioDropped
from auricle.runtime.sources import playback as sources
from auricle.runtime.sources.playback import FilePlayback, RawInput, SampleFormat, Source
from auricle.runtime.sources.source import Chunk, SourceItem
from auricle.runtime.sources.timeline import Timeline


def everything(source: Source, at: int = 0) -> list[SourceItem]:
    """From sample `at` to the end, which lasts; chunks and gaps must follow each other end to end."""
    items: list[SourceItem] = []
    while (new := source.read(5)) is not None:
        items += new
    assert source.read(0) is None
    for item in items:
        if isinstance(item, Chunk):
            assert item.waveform.dtype == np.float32 and item.start_s == at / SAMPLE_RATE
            at += len(item.waveform)
        elif isinstance(item, AudioDropped):
            assert item.start_s == at / SAMPLE_RATE
            at += round(item.seconds * SAMPLE_RATE)
    return items


def joined(items: list[SourceItem]) -> Waveform:
    return np.concatenate([np.zeros(0, np.float32), *(item.waveform for item in items if isinstance(item, Chunk))])


@pytest.mark.parametrize("n", [1, 7, 160, 1600, 48_000])
def test_a_waveform_in_chunks_of_any_size(n: int) -> None:
    clip = synthetic_clip(1, 3.01)
    source = FilePlayback(clip, "fast", chunk_samples=n)
    first = source.read(0)
    assert first and len(first) == 1 and isinstance(first[0], Chunk) and len(first[0].waveform) == n
    items = [*first, *everything(source, n)]
    assert np.array_equal(joined(items), clip)
    assert {len(item.waveform) for item in items[:-1] if isinstance(item, Chunk)} == {n}


def test_a_file_is_what_read_audio_reads(golden: Path) -> None:
    items = everything(FilePlayback(golden / "jfk.wav", "fast", chunk_samples=777))
    assert np.array_equal(joined(items), read_audio(golden / "jfk.wav"))


def test_a_file_that_is_wrong_says_so_at_once(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="does not exist"):
        FilePlayback(tmp_path / "none.wav")
    with pytest.raises(ValueError, match="chunk_samples is 0"):
        FilePlayback(synthetic_clip(1, 1), chunk_samples=0)


@pytest.mark.parametrize("pace", ["fast", "realtime"])
def test_damage_comes_behind_what_was_sound(monkeypatch: pytest.MonkeyPatch, pace: sources.Pace) -> None:
    def blocks(path: object):
        yield synthetic_clip(1, 0.25)
        raise AudioError("damaged at 0.2 s")

    monkeypatch.setattr(sources, "open_audio", blocks)
    source = FilePlayback("clip.wav", pace)
    items: list[SourceItem] = []
    with pytest.raises(AudioError, match="damaged"):
        while (new := source.read(1)) is not None:
            items += new
    assert len(joined(items)) == 4000
    with pytest.raises(AudioError, match="damaged"):
        source.read(0)


def test_realtime_gives_what_the_clock_allows() -> None:
    clip = synthetic_clip(1, 0.6)
    source = FilePlayback(clip, "realtime", chunk_samples=1600)
    assert source.realtime and not FilePlayback(clip, "fast").realtime
    start = time.monotonic()
    items: list[SourceItem] = []
    while (new := source.read(5)) is not None:
        elapsed_s = time.monotonic() - start
        items += new
        assert len(joined(items)) / SAMPLE_RATE <= elapsed_s
    assert np.array_equal(joined(items), clip)
    assert time.monotonic() - start >= 0.6


def test_a_late_reader_gets_all_at_once() -> None:
    source = FilePlayback(synthetic_clip(1, 0.3), "realtime", chunk_samples=800)
    first = source.read(0) or []
    time.sleep(0.35)
    assert len(first) + len(source.read(0) or []) == 6
    assert source.read(0) is None


def closes_while_reading(source: Source) -> float:
    """Seconds until a read that would wait for a minute is back with the end."""
    threading.Timer(0.2, source.close).start()
    start = time.monotonic()
    while source.read(60) is not None:
        pass
    source.close()
    assert source.read(60) is None
    return time.monotonic() - start


def test_closing_ends_a_read_that_waits() -> None:
    assert closes_while_reading(FilePlayback(synthetic_clip(1, 30), "realtime", chunk_samples=SAMPLE_RATE * 30)) < 10
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as stream:
        assert closes_while_reading(RawInput(stream)) < 10
        os.close(writer)


def pcm(clip: Waveform, sample_format: SampleFormat, channels: int = 1) -> bytes:
    frames = np.repeat(clip[:, None], channels, axis=1)
    return (np.rint(frames * 32768).astype("<i2") if sample_format == "s16le" else frames.astype("<f4")).tobytes()


@pytest.mark.parametrize("sample_format", ["s16le", "f32le"])
@pytest.mark.parametrize("channels", [1, 2])
def test_raw_samples_come_through_a_pipe_as_they_were(sample_format: SampleFormat, channels: int) -> None:
    clip = synthetic_clip(1, 2.0)
    data = pcm(clip, sample_format, channels)
    reader, writer = os.pipe()

    def write() -> None:
        with os.fdopen(writer, "wb", buffering=0) as stream:
            for at in range(0, len(data), 6_001):  # torn samples on the way
                stream.write(data[at : at + 6_001])

    thread = threading.Thread(target=write)
    thread.start()
    with os.fdopen(reader, "rb") as stream:
        items = everything(RawInput(stream, channels=channels, sample_format=sample_format))
    thread.join()
    assert np.array_equal(joined(items), clip)


@pytest.mark.parametrize("sample_rate", [8_000, 44_100, 48_000])
def test_raw_samples_at_other_rates(sample_rate: int) -> None:
    clip = synthetic_clip(1, 1.0)
    items = joined(everything(RawInput(io.BytesIO(pcm(clip, "f32le")), sample_rate, sample_format="f32le")))
    whole = as_waveform(clip, sample_rate)
    assert abs(len(items) - len(clip) * SAMPLE_RATE / sample_rate) <= 1
    np.testing.assert_allclose(items[: len(whole)], whole[: len(items)], atol=1e-5)


def test_a_torn_last_sample_is_reported() -> None:
    items = everything(RawInput(io.BytesIO(b"\0\0" * 500 + b"\1")))
    assert len(joined(items)) == 500
    assert items[-1] == AudioDropped(500 / SAMPLE_RATE, 1 / SAMPLE_RATE)


def test_whoever_writes_waits_while_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """10 minutes in 20 blocks of room: nothing is lost, and no more than the room is held."""
    monkeypatch.setattr(sources, "RAW_BLOCKS", 20)
    clip = np.tile(synthetic_clip(1, 10.0), 6)
    stream = io.BytesIO(pcm(clip, "s16le"))
    source = RawInput(stream)
    time.sleep(0.3)
    assert stream.tell() <= 22 * 3200
    assert np.array_equal(joined(everything(source)), clip)


def test_what_was_heard_before_closing_is_still_read() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as stream:
        source = RawInput(stream)
        os.write(writer, pcm(synthetic_clip(1, 0.05), "s16le"))
        first = source.read(5)
        os.write(writer, pcm(synthetic_clip(1, 0.05), "s16le"))
        while not source._blocks.qsize():
            time.sleep(0.01)
        source.close()
        assert first and len(joined(first)) == 800
        assert len(joined(everything(source, 800))) == 800
        os.close(writer)


@pytest.mark.parametrize(
    ("data", "sample_format", "said"),
    [
        (b"RIFF" + bytes(1000), "s16le", "is a WAV file"),
        (np.full(400, np.nan, "<f4").tobytes(), "f32le", "samples up to nan"),
        (np.full(400, 20_000, "<f4").tobytes(), "f32le", "samples up to 20000: it is not f32le"),
    ],
)
def test_raw_input_that_is_none(data: bytes, sample_format: SampleFormat, said: str) -> None:
    source = RawInput(io.BytesIO(data), sample_format=sample_format)
    for _ in range(2):
        with pytest.raises(AudioError, match=said):
            source.read(5)


def recording(suffix: str, codec: str) -> bytes:
    """A second of a tone, as another program would pipe it."""
    target = io.BytesIO()
    encoder: Any = av.open(target, "w", suffix)
    with encoder as out:
        stream = out.add_stream(codec, rate=48_000)
        stream.layout = "mono"
        tone = 0.3 * np.sin(np.arange(48_000)[None] / 20).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, 0, Fraction(1, 48_000)
        context = stream.codec_context
        shaper = av.AudioResampler(context.format, "mono", 48_000, frame_size=context.frame_size or 1024)
        for piece in [*shaper.resample(frame), *shaper.resample(None)]:
            out.mux(stream.encode(piece))
        out.mux(stream.encode(None))
    return target.getvalue()


@pytest.mark.parametrize(
    ("suffix", "codec", "name"),
    [
        ("webm", "libopus", "a WebM file"),
        ("matroska", "flac", "a Matroska file"),
        ("mp3", "libmp3lame", "an MP3 file"),
        ("ogg", "libopus", "an Ogg file"),
        ("flac", "flac", "a FLAC file"),
        ("mp4", "aac", "an MP4 file"),
        ("adts", "aac", "an AAC file"),
        ("mp2", "mp2", "an MP3 file"),
        ("mpegts", "aac", "an MPEG transport stream"),
        ("aiff", "pcm_s16be", "an AIFF file"),
        ("caf", "pcm_s16be", "a CAF file"),
        ("au", "pcm_s16be", "an AU file"),
        ("w64", "pcm_s16le", "a WAV file"),
        ("avi", "pcm_s16le", "an AVI file"),
        ("flv", "aac", "an FLV file"),
        ("asf", "pcm_s16le", "a WMA file"),
    ],
)
@pytest.mark.parametrize("at_once", [1, 5000])
def test_a_container_is_no_raw_sound(suffix: str, codec: str, name: str, at_once: int) -> None:
    """Whoever pipes it is told what it is; nothing of it is heard as sound."""
    data = recording(suffix, codec)
    if suffix == "mp3":
        assert container_name(data[data.index(b"\xff\xfb") :]) == name  # without a tag before it
    source = RawInput(Slowly(data, at_once))
    with pytest.raises(AudioError, match=f"raw input is {name}, which is no raw PCM: give its name"):
        source.read(5)


class Slowly(io.BytesIO):
    """A pipe that gives a few bytes at once."""

    def __init__(self, data: bytes, at_once: int) -> None:
        super().__init__(data)
        self._at_once = at_once

    def read(self, size: int | None = -1) -> bytes:
        return super().read(self._at_once)


@pytest.mark.parametrize("head", [b"", b"\xff\xfb\x90\x64", b"\xff\xf1\x50\x80\x02\x1f\xfc", b"G\0\0\x10"])
@pytest.mark.parametrize("level", [0, 1, 300, 30_000])
def test_raw_sound_is_no_container(head: bytes, level: int) -> None:
    """Even where it begins like one frame of one."""
    rng = np.random.default_rng(level)
    for _ in range(10):
        data = (head + rng.integers(-level - 1, level + 1, 5000).astype("<i2").tobytes())[:9000]
        assert container_name(data) is None
        assert bytes_to_tell(data) <= len(data)
        assert len(joined(everything(RawInput(io.BytesIO(data))))) == 4500


def test_raw_input_that_breaks_off() -> None:
    stream = io.BytesIO()
    stream.close()
    with pytest.raises(RunError, match="raw input breaks off"):
        RawInput(stream).read(5)
    with pytest.raises(InputError, match="raw input of 0 channels"):
        RawInput(stream, channels=0)


def test_a_timeline_keeps_whole_samples() -> None:
    timeline = Timeline()
    items = timeline.push(np.zeros(441, np.float32), 44_100)
    items += timeline.flush()
    assert sum(len(chunk.waveform) for chunk in items) == 160
    assert timeline.gap(0.1 / 3) == 533 / SAMPLE_RATE
    (chunk,) = timeline.push(np.ones(10, np.float32), SAMPLE_RATE)
    assert chunk.start_s == (160 + 533) / SAMPLE_RATE
