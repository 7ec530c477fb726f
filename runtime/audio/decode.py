"""Decoding: any file that PyAV reads, or an array -> the one waveform format of models/audio.py.

    file -> PyAV frames -> channel 0, or the mean -> float32 -> soxr HQ -> chunks of about 1 s, mono, 16 kHz
    array ------------------^

Nothing is normalised, trimmed or clipped: a lossy codec's or a float file's peaks just over 1.0 stay as they
are. A file that promises more than it holds, or breaks in the middle, is refused, never read in part. No
network and no second file: a text that names others, as playlists do, is not opened, whatever it is called.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from av.audio.frame import AudioFrame
from av.error import FFmpegError
from numpy.typing import NDArray

from ...models.audio import MIN_CLIP_SECONDS, SAMPLE_RATE, Waveform
from ...models.errors import AudioError
from .container import MAX_CHANNELS, MAX_RATE, MIN_RATE, SoundFile, check_rate, open_sound
from .level import is_silent
from .mp3_check import mp3_check
from .resample import Resampler
from .selection import MAIN, Selection

__all__ = ["as_waveform", "is_silent", "open_audio", "read_audio"]

MAX_GAIN = 10.0  # float samples beyond 20 dB over full scale are integers that were never scaled

_REMEDY = "copy it again, or save its sound part in an audio editor"
_OFFSET_AND_SCALE = {
    "u8": (128.0, 2.0**7),
    "s16": (0.0, 2.0**15),
    "s32": (0.0, 2.0**31),  # FFmpeg holds 24-bit samples in the upper bits of these
    "s64": (0.0, 2.0**63),
    "flt": (0.0, 1.0),
    "dbl": (0.0, 1.0),
}
_DTYPE_FORMATS = {"u1": "u8", "i2": "s16", "i4": "s32", "f2": "flt", "f4": "flt", "f8": "dbl"}
_GAP_SECONDS = 0.1  # a jump in the timestamps below this is rounding
_GAP_MAX_SECONDS = 3600.0  # beyond this the timestamps were reset
_HEADER_SECONDS = 0.25  # a Matroska header counts a codec's delay and padding too
_LOSSLESS_SECONDS = 0.005  # times are whole milliseconds in many containers
_STRICT_FORMATS = {"flac", "ogg"}  # here a jump means that a damaged page or frame was dropped
_COUNTING_FORMATS = dict.fromkeys(["flac", "ogg", "nistsphere", "rso"], _GAP_SECONDS)
"""Seconds that may be missing of what the header, or the last page, says."""
_LOSSLESS_SLACK = dict.fromkeys([*_COUNTING_FORMATS, "asf", "tta", "wv"], _LOSSLESS_SECONDS) | {"avi": _GAP_SECONDS}
"""The same where the codec pads nothing."""
_RESYNCING_FORMATS = {"mp3", "aac"}  # here undecodable bytes behind the last frame are a tag, not damage


def open_audio(
    path: str | os.PathLike[str], selection: Selection = MAIN, name: str | None = None
) -> Iterator[Waveform]:
    """Read a file of any length in bounded memory: chunks of about 1 s, float32 mono 16 kHz.

    selection: the track and the channel that are heard. name: what errors call the file.
    Raises AudioError at once for a file that is missing, empty, cut short or not audio; while iterating, for
    damage in the middle, samples that are not numbers, and a clip under 0.1 s (before any of it was given).
    """
    sound = open_sound(path, selection, name)
    return _chunks(_blocks(sound, selection), sound.name)


def read_audio(
    path: str | os.PathLike[str], selection: Selection = MAIN, max_seconds: float | None = None, name: str | None = None
) -> Waveform:
    """A file, or its first max_seconds, as float32 [n_samples] mono 16 kHz; AudioError as open_audio."""
    limit = None if max_seconds is None else round(max_seconds * SAMPLE_RATE)
    chunks: list[Waveform] = []
    n = 0
    for chunk in open_audio(path, selection, name):
        chunks.append(chunk)
        n += len(chunk)
        if limit is not None and n >= limit:
            break
    return np.concatenate(chunks)[:limit]


def as_waveform(samples: NDArray[Any], sample_rate: int, selection: Selection = MAIN) -> Waveform:
    """An array [n] or [n, channels] of int16, int32, uint8 or float samples as float32 mono 16 kHz.

    Integers are scaled by their full scale, floats are taken to lie in [-1, 1]. Raises AudioError.
    """
    name = "the array"
    array = np.asarray(samples)
    if not (isinstance(sample_rate, Real) and MIN_RATE <= sample_rate <= MAX_RATE and sample_rate == int(sample_rate)):
        raise AudioError(f"sample_rate {sample_rate!r} must be a whole number of Hz, {MIN_RATE} to {MAX_RATE}")
    sample_format = _DTYPE_FORMATS.get(array.dtype.str[1:])
    if sample_format is None:
        raise AudioError(f"samples of dtype {array.dtype} are not audio: give int16 or float32")
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or not 1 <= array.shape[1] <= MAX_CHANNELS:
        raise AudioError(f"samples of shape {np.shape(samples)} are not audio: give [n] or [n, channels]")
    mono = _mono(array, sample_format, selection, name)
    return np.concatenate(list(_chunks(iter([_Block(mono, int(sample_rate))]), name)))


@dataclass(frozen=True)
class _Block:
    """Decoded samples: float32 [n] mono at the file's own rate."""

    samples: Waveform
    sample_rate: int


def _chunks(blocks: Iterator[_Block], name: str) -> Iterator[Waveform]:
    """Resample blocks and regroup them to about 1 s; refuse what is no sound."""
    resampler = Resampler()
    ready: list[Waveform] = []
    n = n_given = 0
    for block in blocks:
        _check_samples(block, name, (n_given + n) / SAMPLE_RATE)
        ready.append(resampler.push(block.samples, block.sample_rate))
        n += len(ready[-1])
        if n >= SAMPLE_RATE:
            yield np.concatenate(ready)
            n_given = n_given + n
            n = 0
            ready = []
    ready.append(resampler.flush())
    n += len(ready[-1])
    if n_given + n < round(MIN_CLIP_SECONDS * SAMPLE_RATE):
        seconds = (n_given + n) / SAMPLE_RATE
        raise AudioError(f"{name} holds {seconds:.3f} s of sound: give at least {MIN_CLIP_SECONDS} s")
    if n:
        yield np.concatenate(ready)


def _check_samples(block: _Block, name: str, start_s: float) -> None:
    """One look at the peak finds NaN, infinity and integers stored as floats."""
    peak = float(np.abs(block.samples).max(initial=0.0))
    if not np.isfinite(peak):
        raise AudioError(f"{name} holds samples that are not numbers near {start_s:.1f} s: export it again")
    if peak > MAX_GAIN:
        raise AudioError(
            f"{name} holds float samples up to {peak:.6g} near {start_s:.1f} s: scale them to [-1, 1] first "
            "(16-bit values: divide by 32768)"
        )


def _mono(samples: NDArray[Any], sample_format: str, selection: Selection, name: str) -> Waveform:
    """[n, channels] in one of FFmpeg's sample formats -> float32 [n]."""
    return scaled(selection.of(samples, name), sample_format)


def scaled(samples: NDArray[np.float64], sample_format: str) -> Waveform:
    """From one of FFmpeg's sample formats to float32 in [-1, 1], of any shape."""
    offset, scale = _OFFSET_AND_SCALE[sample_format]
    return ((samples - offset) / scale).astype(np.float32)


def _blocks(sound: SoundFile, selection: Selection) -> Iterator[_Block]:
    """Decode to mono blocks; silence stands in where a live recording's timestamps jump."""
    stream = sound.stream
    strict = sound.container.format.name in _STRICT_FORMATS
    promised_s = (stream.duration or 0) * float(stream.time_base or 0)
    header_s = sound.promised_seconds()
    origin = sound.picture_start()
    end_s = 0.0
    n = 0
    with closing(sound):
        for frame in _frames(sound):
            check_rate(frame.sample_rate, sound.name)
            if origin is None:
                origin = frame.time or 0.0
            gap = 0.0 if frame.time is None else frame.time - origin - end_s
            if _GAP_SECONDS < gap < _GAP_MAX_SECONDS:
                if strict:
                    raise _damaged(sound.name, end_s)
                yield from _silence(gap, frame.sample_rate)
                end_s += gap
            end_s += frame.samples / frame.sample_rate
            n += frame.samples
            yield _Block(
                _mono(frame_samples(frame), frame.format.packed.name, selection, sound.name), frame.sample_rate
            )
    format_name = sound.container.format.name
    slack_s = _LOSSLESS_SLACK.get(format_name) if sound.lossless else _COUNTING_FORMATS.get(format_name)
    short = slack_s is not None and end_s < promised_s - slack_s
    if short or n < sound.promised_samples() or _before(sound, end_s, origin or 0.0, header_s):
        raise _damaged(sound.name, end_s)
    if (at := sound.damaged_page()) is not None:
        raise AudioError(f"{sound.name} is damaged at byte {at}: {_REMEDY}")
    if sound.frames is not None and sound.frames.damaged:
        raise _damaged(sound.name, end_s)
    if sound.frames is not None and sound.frames.wrong_checksum:
        raise AudioError(f"{sound.name} is damaged: its frames do not have the checksum that it states; {_REMEDY}")


def _before(sound: SoundFile, end_s: float, origin_s: float, header_s: float) -> bool:
    """Whether a Matroska file's sound ends before its header says; the first sample may have a time above 0."""
    if sound.lossless:
        return origin_s + end_s < header_s - _LOSSLESS_SECONDS
    return end_s < header_s - _HEADER_SECONDS


def _silence(seconds: float, sample_rate: int) -> Iterator[_Block]:
    left = round(seconds * sample_rate)
    while left > 0:
        yield _Block(np.zeros(min(left, sample_rate), np.float32), sample_rate)
        left -= sample_rate


def _frames(sound: SoundFile) -> Iterator[AudioFrame]:
    """All frames of the stream, or AudioError with the time at which decoding broke."""
    forgiving = sound.container.format.name in _RESYNCING_FORMATS
    check = None if sound.frames is None else mp3_check(sound.stream.codec_context, sound.frames.seams)
    end_s = 0.0
    broken = False
    odd_s: float | None = None
    try:
        for packet in sound.container.demux(sound.stream):
            try:
                frames = packet.decode()
            except FFmpegError:
                if not forgiving:
                    raise
                broken = True
                continue
            odd_s = check.add(packet, frames, end_s) if check is not None else None
            if odd_s is not None:
                break
            for frame in frames:
                if broken:
                    raise _damaged(sound.name, end_s)
                end_s += frame.samples / frame.sample_rate
                yield frame
    except (FFmpegError, OSError) as error:
        raise _damaged(sound.name, end_s) from error
    if check is not None and odd_s is None:
        odd_s = check.finish()
    if odd_s is not None:
        raise _damaged(sound.name, odd_s)


def frame_samples(frame: AudioFrame) -> NDArray[Any]:
    """[n, channels], in the frame's own sample format."""
    samples = frame.to_ndarray()
    return samples.T if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels)


def _damaged(name: str, seconds: float) -> AudioError:
    return AudioError(f"{name} is damaged at {seconds:.1f} s: {_REMEDY}")
