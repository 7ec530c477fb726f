"""Container: a file's path -> its sound stream, opened in PyAV, after everything that can be known before decoding.

Missing, empty, cut short, a folder, a device, no sound: refused here. What would mislead FFmpeg is taken out of its
sight by a FileView: a size in the header that states less than the file holds, tags between frames. No network and no
second file.
"""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
from av.audio.stream import AudioStream
from av.codec.context import Flags2
from av.container import InputContainer
from av.error import FFmpegError

from ...models.errors import AudioError
from ...models.git_lfs import refuse_pointer
from .extent import Extent, sample_extent
from .file_view import FileView
from .mpeg_audio import Frames, Parse, adts_header, mp3_header, walk_frames
from .ogg_pages import damaged_page
from .selection import MAIN, Selection
from .truncation import beyond, flac_samples, matroska_seconds, missing_bytes, ogg_is_open, second_movie

MAX_CHANNELS = 64
MIN_RATE = 4_000  # Hz: below a telephone's by half
MAX_RATE = 768_000

_REMEDY = "give a wav, flac, mp3, m4a or ogg file, or a video with sound"
# Tags that are not UTF-8 break opening a file up to PyAV 18 unless it is told otherwise; 19 takes them as they are.
_TAG_ERRORS: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
# Containers of sound, by FFmpeg's names. Its others include texts (concat, hls, sdp) that open whatever they name.
_CONTAINERS = (
    "wav,w64,aiff,au,caf,iff,voc,sox,ircam,nistsphere,sds,flac,mp3,aac,loas,ac3,ac4,eac3,dts,dtshd,truehd,mlp,amr,amrnb,"
    "amrwb,gsm,ogg,oga,opus,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,asf,xwma,avi,flv,mpeg,mpegts,mxf,gxf,dv,nut,rm,wtv,swf,"
    "wv,tta,ape,tak,shn,mpc,mpc8,oma,dsf,iff,osq,qoa,lc3,bit,g722,sbc,aptx,aptx_hd,aea,rso,smjpeg,vqf"
)
_FRAME_HEADERS: dict[str, Parse] = {"mp3": mp3_header, "aac": adts_header}


@dataclass(frozen=True)
class SoundFile:
    """An opened file. Closed by whoever has it."""

    path: Path
    name: str
    """What its user calls it, on one printable line."""
    container: InputContainer
    stream: AudioStream
    opened: ExitStack
    """Closes it, and what FFmpeg reads in the place of the file."""
    frames: Frames | None = None
    """Of an MP3 or ADTS file."""

    @property
    def regular(self) -> bool:
        """No pipe: it may be read out of order."""
        return self.path.is_file()

    @property
    def has_pictures(self) -> bool:
        """Whether there is a video; a cover is none."""
        return not all(stream.disposition & stream.disposition.attached_pic for stream in self.container.streams.video)

    def damaged_page(self) -> int | None:
        """Bytes before an Ogg's first damaged page; None when there is none."""
        if not self.regular or self.container.format.name != "ogg":
            return None
        with self.path.open("rb") as opened:
            return damaged_page(opened, self.path.stat().st_size)

    @property
    def lossless(self) -> bool:
        """The codec keeps every sample, and no delay or padding is counted as sound."""
        return self.stream.codec_context.codec.lossless

    def picture_start(self) -> float | None:
        """Seconds at which a video begins: captions of a soundtrack that starts later must fit its pictures."""
        start: Any = self.container.start_time  # None when the container does not say, whatever PyAV's stub says
        return start / av.time_base if self.has_pictures and start is not None else None

    def promised_samples(self) -> int:
        """Samples that a FLAC's header promises; 0 where none are."""
        if not self.regular:
            return 0
        with self.path.open("rb") as opened:
            return flac_samples(opened)

    def promised_seconds(self) -> float:
        """What a Matroska header promises, where it has no other stream to promise it for; 0 where nothing is."""
        if not self.regular or any(stream.type == "subtitle" for stream in self.container.streams):
            return 0.0
        if len(self.container.streams.audio) > 1 or self.has_pictures:
            return 0.0
        with self.path.open("rb") as opened:
            return matroska_seconds(opened)

    def close(self) -> None:
        """The container and what it reads."""
        self.opened.close()


def open_sound(path: str | os.PathLike[str], selection: Selection = MAIN, name: str | None = None) -> SoundFile:
    """The selected sound stream of a file, or its best. name: what errors call it. Raises AudioError."""
    file = Path(path).absolute()
    name = name or _shown(path)
    size = _file_size(file, name)
    if size == 0:
        raise AudioError(f"{name} is empty (0 bytes): record or copy it again")
    if size is not None:
        refuse_pointer(file, AudioError, name)
    with ExitStack() as stack:
        view = None if size is None else _view(file, name, size)
        container = stack.enter_context(_open(file, name, view, stack))
        parse = _FRAME_HEADERS.get(container.format.name)
        frames = None if parse is None or size is None else _frames(file, name, size, parse)
        if frames is not None and not frames.whole:
            view = FileView(file, frames.pieces)
            container = stack.enter_context(_open(file, name, view, stack))
        stream = _stream(container, selection, name)
        _set_up(container, stream)
        return SoundFile(file, name, container, stream, stack.pop_all(), frames)


def _stream(container: InputContainer, selection: Selection, name: str) -> AudioStream:
    streams = container.streams.audio
    if not streams:
        raise AudioError(f"{name} has no sound in it: {_REMEDY}")
    selection.check_track(len(streams), name)
    best = container.streams.best("audio") if selection.track is None else streams[selection.track - 1]
    stream = best if isinstance(best, AudioStream) else streams[0]
    context: Any = stream.codec_context  # None for a codec that FFmpeg does not know, whatever PyAV's stub says
    if context is None:
        raise AudioError(f"{name} holds sound of a codec that cannot be decoded: {_REMEDY}")
    check_rate(stream.codec_context.sample_rate, name)
    selection.check_channel(stream.codec_context.channels or MAX_CHANNELS, name)
    return stream


def check_rate(sample_rate: int, name: str) -> None:
    """Raises AudioError for a rate that no sound has; 0 is one that is not known yet."""
    if sample_rate and not MIN_RATE <= sample_rate <= MAX_RATE:
        limits = f"{MIN_RATE} to {MAX_RATE} Hz"
        raise AudioError(
            f"{name} states {sample_rate} samples a second, and sound has {limits}: save it again at one of them"
        )


def _set_up(container: InputContainer, stream: AudioStream) -> None:
    """What FFmpeg must be told about some decoders."""
    if container.format.name in ("flac", "tta", "wv"):  # whose frames have checksums
        stream.codec_context.options = {"err_detect": "crccheck+explode"}
    if container.format.name == "caf" and stream.codec_context.name == "alac":
        stream.codec_context.flags2 |= Flags2.skip_manual  # or FFmpeg drops the end of a last packet that has none


def _file_size(file: Path, name: str) -> int | None:
    """Bytes in a readable file; None for a pipe, of which nothing can be known before it is read."""
    try:
        status = file.stat()
        if stat.S_ISREG(status.st_mode):
            file.open("rb").close()
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


def _view(file: Path, name: str, size: int) -> FileView | None:
    """What FFmpeg must see instead of the file; None: the file. Raises AudioError for one that is not whole."""
    with file.open("rb") as opened:
        missing = missing_bytes(opened, size)
        if missing:
            raise _cut_short(name, size, missing)
        if ogg_is_open(opened, size):
            raise AudioError(f"{name} is cut short: no page in it ends the stream; copy it again")
        if (at := second_movie(opened, size)) is not None:
            raise AudioError(f"{name} holds another file from byte {at} on: split it, or join both in an audio editor")
        extent = sample_extent(opened, size)
    return None if extent is None else _mended(file, name, size, extent)


def _mended(file: Path, name: str, size: int, extent: Extent) -> FileView | None:
    """The file with a size in its header that is true, where it states less than there is, or none."""
    stated = None if extent.stated_end is None else extent.stated_end - extent.start
    if extent.joined:
        behind = f"{stated} bytes of sound, and {size - extent.end} bytes behind them that begin another file"
        raise AudioError(f"{name} holds {behind}: split it, or join both in an audio editor")
    if extent.stated_end is not None and extent.stated_end >= extent.end:
        return None
    held = extent.end - extent.start
    if extent.true_sizes is None:
        raise AudioError(f"{name} states {stated} bytes of sound and holds {held}: save it as wav")
    return FileView(file, [(0, extent.end)], extent.true_sizes)


def _frames(file: Path, name: str, size: int, parse: Parse) -> Frames:
    """An MP3's or ADTS file's. Raises AudioError for one that is cut short."""
    with file.open("rb") as opened:
        frames = walk_frames(opened, parse)
    if missing := beyond(frames.stated_end, size):
        raise _cut_short(name, size, missing)
    return frames


def _cut_short(name: str, size: int, missing: int) -> AudioError:
    return AudioError(f"{name} is cut short: it promises {size + missing} bytes and has {size}; copy it again")


def _open(file: Path, name: str, view: FileView | None, stack: ExitStack) -> InputContainer:
    """view: read in the place of the file, and closed with the stack."""
    if view is not None:
        stack.enter_context(view)
    alone = {"protocol_whitelist": "file,pipe", "format_whitelist": _CONTAINERS}
    try:
        return av.open(str(file) if view is None else view, "r", options=alone, **_TAG_ERRORS)
    except (FFmpegError, OSError, ValueError) as error:
        raise AudioError(f"{name} is not audio that can be read ({_reason(error)}): {_REMEDY}") from None


def _shown(path: str | os.PathLike[str]) -> str:
    text = str(path)
    return text if text.isprintable() else ascii(text)


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split()) or type(error).__name__
