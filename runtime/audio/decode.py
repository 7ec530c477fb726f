"""Decoding: any file that PyAV reads, or an array -> the one waveform format of models/audio.py.

    file -> PyAV frames -> channel 0, or the mean -> float32 -> soxr HQ -> chunks of about 1 s, mono, 16 kHz
    array ------------------^

Nothing is normalised, trimmed or clipped: a lossy codec's or a float file's peaks just over 1.0 stay as they
are. A file that promises more than it holds, or breaks in the middle, is refused, never read in part. No
network and no second file: a text that names others, as playlists do, is not opened, whatever it is called.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from numpy.typing import NDArray

from ...models.audio import MIN_CLIP_SECONDS, SAMPLE_RATE, Waveform
from ...models.errors import AudioError
from ...models.git_lfs import refuse_pointer
from .level import is_silent
from .resample import Resampler
from .truncation import flac_samples, matroska_seconds, missing_bytes

__all__ = ["as_waveform", "is_silent", "open_audio", "read_audio"]

MAX_GAIN = 10.0  # float samples beyond 20 dB over full scale are integers that were never scaled
MAX_CHANNELS = 64
MIN_RATE, MAX_RATE = 1_000, 768_000  # Hz

_REMEDY = "give a wav, flac, mp3, m4a or ogg file, or a video with sound"
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
# Tags that are not UTF-8 break opening a file up to PyAV 18 unless it is told otherwise; 19 takes them as they are.
_TAG_ERRORS: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
_HEADER_SECONDS = 0.25  # a Matroska header counts a codec's delay and padding too
_STRICT_FORMATS = {"flac", "ogg"}  # here a jump means that a damaged page or frame was dropped
# Containers of sound, by FFmpeg's names. Its others include texts (concat, hls, sdp) that open whatever they name.
_CONTAINERS = (
    "wav,w64,aiff,au,caf,iff,voc,sox,ircam,nistsphere,sds,flac,mp3,aac,loas,ac3,ac4,eac3,dts,dtshd,truehd,mlp,amr,amrnb,"
    "amrwb,gsm,ogg,oga,opus,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,asf,xwma,avi,flv,mpeg,mpegts,mxf,gxf,dv,nut,rm,wtv,swf,"
    "wv,tta,ape,tak,shn,mpc,mpc8,oma,dsf,iff,osq,qoa,lc3,bit,g722,sbc,aptx,aptx_hd,aea,rso,smjpeg,vqf"
)
_RESYNCING_FORMATS = {"mp3", "aac"}  # here undecodable bytes behind the last frame are a tag, not damage


def open_audio(path: str | os.PathLike[str], mix: bool = False, name: str | None = None) -> Iterator[Waveform]:
    """Read a file of any length in bounded memory: chunks of about 1 s, float32 mono 16 kHz.

    mix: the mean of all channels instead of channel 0, which is what SALMONN takes. name: what errors call the file.
    Raises AudioError at once for a file that is missing, empty, cut short or not audio; while iterating, for
    damage in the middle, samples that are not numbers, and a clip under 0.1 s (before any of it was given).
    """
    source = _Source(Path(path).absolute(), name or _shown(path))
    _check_file(source)
    container, stream = _open(source)
    return _chunks(_blocks(source, container, stream, mix), source.name)


def read_audio(
    path: str | os.PathLike[str], mix: bool = False, max_seconds: float | None = None, name: str | None = None
) -> Waveform:
    """A file, or its first max_seconds, as float32 [n_samples] mono 16 kHz; AudioError as open_audio."""
    limit = None if max_seconds is None else round(max_seconds * SAMPLE_RATE)
    chunks: list[Waveform] = []
    n = 0
    for chunk in open_audio(path, mix, name):
        chunks.append(chunk)
        n += len(chunk)
        if limit is not None and n >= limit:
            break
    return np.concatenate(chunks)[:limit]


def as_waveform(samples: NDArray[Any], sample_rate: int, mix: bool = False) -> Waveform:
    """An array [n] or [n, channels] of int16, int32, uint8 or float samples as float32 mono 16 kHz.

    Integers are scaled by their full scale, floats are taken to lie in [-1, 1]. Raises AudioError.
    """
    name = "the array"
    array = np.asarray(samples)
    if not MIN_RATE <= sample_rate <= MAX_RATE or sample_rate != int(sample_rate):
        raise AudioError(f"sample_rate {sample_rate!r} must be a whole number of Hz, {MIN_RATE} to {MAX_RATE}")
    sample_format = _DTYPE_FORMATS.get(array.dtype.str[1:])
    if sample_format is None:
        raise AudioError(f"samples of dtype {array.dtype} are not audio: give int16 or float32")
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or not 1 <= array.shape[1] <= MAX_CHANNELS:
        raise AudioError(f"samples of shape {np.shape(samples)} are not audio: give [n] or [n, channels]")
    mono = _mono(array, sample_format, mix)
    return np.concatenate(list(_chunks(iter([_Block(mono, int(sample_rate))]), name)))


@dataclass(frozen=True)
class _Source:
    """A file and the name its user gave it, on one printable line."""

    file: Path
    name: str


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


def _mono(samples: NDArray[Any], sample_format: str, mix: bool) -> Waveform:
    """[n, channels] in one of FFmpeg's sample formats -> float32 [n]."""
    offset, scale = _OFFSET_AND_SCALE[sample_format]
    picked = samples.mean(axis=1, dtype=np.float64) if mix else samples[:, 0].astype(np.float64)
    return ((picked - offset) / scale).astype(np.float32)


def _check_file(source: _Source) -> None:
    """Everything that is wrong with a file before a decoder sees it."""
    name = source.name
    size = _file_size(source)
    if size == 0:
        raise AudioError(f"{name} is empty (0 bytes): record or copy it again")
    if size is None:
        return
    refuse_pointer(source.file, AudioError, name)
    with source.file.open("rb") as opened:
        missing = missing_bytes(opened, size)
    if missing:
        raise AudioError(f"{name} is cut short: it promises {size + missing} bytes and has {size}; copy it again")


def _file_size(source: _Source) -> int | None:
    """Bytes in a readable file; None for a pipe, of which nothing can be known before it is read."""
    name = source.name
    try:
        status = source.file.stat()
        if stat.S_ISREG(status.st_mode):
            source.file.open("rb").close()
            return status.st_size
    except FileNotFoundError:
        raise AudioError(f"{name} does not exist: check the path") from None
    except (OSError, ValueError) as error:
        raise AudioError(f"{name} cannot be opened ({_reason(error)}): check its permissions") from None
    if stat.S_ISDIR(status.st_mode):
        raise AudioError(f"{name} is a folder: give the sound files in it")
    if not stat.S_ISFIFO(status.st_mode):
        raise AudioError(f"{name} is a device, not a sound file: give a recording")
    return None


def _open(source: _Source) -> tuple[InputContainer, AudioStream]:
    name = source.name
    alone = {"protocol_whitelist": "file,pipe", "format_whitelist": _CONTAINERS}
    try:
        container = av.open(str(source.file), "r", options=alone, **_TAG_ERRORS)
    except (FFmpegError, OSError, ValueError) as error:
        raise AudioError(f"{name} is not audio that can be read ({_reason(error)}): {_REMEDY}") from None
    stream = container.streams.best("audio")
    if not isinstance(stream, AudioStream):
        container.close()
        raise AudioError(f"{name} has no sound in it: {_REMEDY}")
    if container.format.name == "flac":
        stream.codec_context.options = {"err_detect": "crccheck+explode"}
    return container, stream


def _blocks(source: _Source, container: InputContainer, stream: AudioStream, mix: bool) -> Iterator[_Block]:
    """Decode to mono blocks; silence stands in where a live recording's timestamps jump."""
    strict = container.format.name in _STRICT_FORMATS
    promised_s = (stream.duration or 0) * float(stream.time_base or 0)
    header_s = _header_seconds(source.file, container)
    origin = _picture_start(container)
    end_s = 0.0
    n = 0
    with container:
        for frame in _frames(source.name, container, stream):
            if origin is None:
                origin = frame.time or 0.0
            gap = 0.0 if frame.time is None else frame.time - origin - end_s
            if _GAP_SECONDS < gap < _GAP_MAX_SECONDS:
                if strict:
                    raise _damaged(source.name, end_s)
                yield from _silence(gap, frame.sample_rate)
                end_s += gap
            end_s += frame.samples / frame.sample_rate
            n += frame.samples
            yield _Block(_frame_mono(frame, mix), frame.sample_rate)
    short = strict and end_s < promised_s - _GAP_SECONDS
    if short or n < _promised_samples(source.file) or end_s < header_s - _HEADER_SECONDS:
        raise _damaged(source.name, end_s)


def _silence(seconds: float, sample_rate: int) -> Iterator[_Block]:
    left = round(seconds * sample_rate)
    while left > 0:
        yield _Block(np.zeros(min(left, sample_rate), np.float32), sample_rate)
        left -= sample_rate


def _promised_samples(file: Path) -> int:
    if not file.is_file():
        return 0
    with file.open("rb") as opened:
        return flac_samples(opened)


def _header_seconds(file: Path, container: InputContainer) -> float:
    """Seconds of sound that a Matroska header promises, where it has no other stream to promise them for."""
    if not file.is_file() or any(stream.type == "subtitle" for stream in container.streams):
        return 0.0
    if len(container.streams.audio) > 1 or _has_pictures(container):
        return 0.0
    with file.open("rb") as opened:
        return matroska_seconds(opened)


def _frames(name: str, container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
    """All frames of the stream, or AudioError with the time at which decoding broke."""
    forgiving = container.format.name in _RESYNCING_FORMATS
    end_s = 0.0
    broken = False
    try:
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except FFmpegError:
                if not forgiving:
                    raise
                broken = True
                continue
            for frame in frames:
                if broken:
                    raise _damaged(name, end_s)
                end_s += frame.samples / frame.sample_rate
                yield frame
    except (FFmpegError, OSError) as error:
        raise _damaged(name, end_s) from error


def _frame_mono(frame: AudioFrame, mix: bool) -> Waveform:
    samples = frame.to_ndarray()
    n_channels = frame.layout.nb_channels
    by_time = samples.T if frame.format.is_planar else samples.reshape(-1, n_channels)
    return _mono(by_time, frame.format.packed.name, mix)


def _picture_start(container: InputContainer) -> float | None:
    """Seconds at which a video begins: captions of a soundtrack that starts later must fit its pictures."""
    start: Any = container.start_time  # None when the container does not say, whatever PyAV's stub says
    return start / av.time_base if _has_pictures(container) and start is not None else None


def _has_pictures(container: InputContainer) -> bool:
    """Whether there is a video; a cover is none."""
    return not all(stream.disposition & stream.disposition.attached_pic for stream in container.streams.video)


def _damaged(name: str, seconds: float) -> AudioError:
    return AudioError(f"{name} is damaged at {seconds:.1f} s: copy it again, or save its sound part in an audio editor")


def _shown(path: str | os.PathLike[str]) -> str:
    text = str(path)
    return text if text.isprintable() else ascii(text)


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split()) or type(error).__name__
