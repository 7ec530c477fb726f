"""Subtitle files: answers with their times -> text, SubRip (srt), WebVTT (vtt) or JSON lines, a whole file at once.

In srt and vtt a caption becomes as many cues as it needs, its time shared among them by their length.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ...models.dataclass_json import Json
from ...models.errors import InputError, RunError
from ..events import TimedWord
from .cues import VTT_HEAD, Cue, cues, plain, srt_block, vtt_block
from .timed_cues import single_cues, timed_cues

FORMATS = ("txt", "srt", "vtt", "jsonl")


@dataclass(frozen=True)
class TimedText:
    """One segment of a clip and its text."""

    start_s: float
    """Seconds from the beginning of the clip."""
    end_s: float
    text: str
    prompt: str = ""
    """What the model was asked."""
    audio: str = ""
    """The clip, as it was named."""
    finish_reason: str = "eos"
    """As Final.finish_reason; "end": the clip was not decoded to its end."""
    avg_logprob: float | None = None
    """As Final.avg_logprob."""
    support: float | None = None
    """As Final.support."""
    words: tuple[TimedWord, ...] = ()
    """When each word was said, where that is known."""

    def __post_init__(self) -> None:
        if not 0 <= self.start_s <= self.end_s < math.inf:
            raise ValueError(f"a caption cannot last from {self.start_s} to {self.end_s} s")


def format_captions(captions: Iterable[TimedText], format: str, by_word: bool = False) -> str:
    """The whole file's content. Unsupported captions and those without text appear only in jsonl.

    InputError: unknown format.

    by_word: a cue for each word in srt, its time before each word in vtt, for captions whose words have times.
    """
    write = _WRITERS.get(format)
    if write is None:
        raise InputError(f"caption format {format!r} is unknown: choose one of {', '.join(FORMATS)}")
    shown = [caption for caption in captions if format == "jsonl" or caption.finish_reason != "unsupported"]
    return write(shown, by_word)


def write_captions(
    path: str | os.PathLike[str],
    captions: Iterable[TimedText],
    format: str | None = None,
    by_word: bool = False,
    audio: str | os.PathLike[str] | None = None,
) -> Path:
    """Write the file whole or not at all; an older one is replaced.

    format: from the file's suffix when None. by_word: see format_captions. audio: the clip they caption, which is
    never overwritten. Raises InputError (folder missing, not writable, unknown format) and RunError (disk full).
    """
    target = Path(path)
    if audio is not None and _same_file(target, Path(audio)):
        raise InputError(f"{target} is the audio itself: choose another name for its captions")
    content = format_captions(captions, format or target.suffix.removeprefix(".").lower(), by_word)
    part = target.with_name(f".{secrets.token_hex(8)}.part")  # never longer than a name may be
    try:
        _write_through(part, content.encode("utf-8", "replace"))
        os.replace(part, target)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        raise InputError(f"{target} cannot be written ({error.strerror}): choose another place") from None
    except OSError as error:
        raise RunError(f"{target} was not written ({error.strerror}): make room or choose another place") from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    return target


def json_line(row: Mapping[str, Json]) -> str:
    """One line of JSON lines, without its end."""
    text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    # These end a line for str.splitlines and JavaScript, and JSON needs no escape for them.
    return "".join(f"\\u{ord(c):04x}" if c in "\x85\u2028\u2029" or "\ud800" <= c <= "\udfff" else c for c in text)


def _txt(captions: list[TimedText], _by_word: bool) -> str:
    return "".join(f"{text}\n" for caption in captions if (text := plain(caption.text)))


def _srt(captions: list[TimedText], by_word: bool) -> str:
    return "\n".join(srt_block(number, cue) for number, cue in enumerate(_cues(captions, by_word), 1))


def _vtt(captions: list[TimedText], by_word: bool) -> str:
    return "\n".join([VTT_HEAD, *(vtt_block(cue, by_word) for cue in _cues(captions, False))])


def _jsonl(captions: list[TimedText], _by_word: bool) -> str:
    return "".join(f"{json_line(_row(caption))}\n" for caption in captions)


def _row(caption: TimedText) -> dict[str, Json]:
    row = asdict(caption) | {"start_s": round(caption.start_s, 3), "end_s": round(caption.end_s, 3)}
    return {name: value for name, value in row.items() if name not in ("words", "support") or value not in ((), None)}


def _cues(captions: list[TimedText], by_word: bool) -> list[Cue]:
    return [cue for caption in captions for cue in _caption_cues(caption, by_word)]


def _caption_cues(caption: TimedText, by_word: bool) -> list[Cue]:
    if not caption.words:
        return cues(caption.start_s, caption.end_s, caption.text)
    return single_cues(caption.words) if by_word else timed_cues(caption.words, caption.text)


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return one.absolute() == other.absolute()


def _write_through(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


_WRITERS: dict[str, Callable[[list[TimedText], bool], str]] = dict(
    zip(FORMATS, (_txt, _srt, _vtt, _jsonl), strict=True)
)
