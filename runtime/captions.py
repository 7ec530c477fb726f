"""Answers with their times as text, SubRip (srt), WebVTT (vtt) or JSON lines.

In srt and vtt a caption becomes as many cues as it needs: at most two lines of 42 columns each, its time
shared among them by their length. A model's text is not trusted: nothing in it ends a cue or begins one.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from ..models.errors import InputError, RunError

FORMATS = ("txt", "srt", "vtt", "jsonl")
MAX_COLUMNS = 42  # a line of subtitles; an East Asian character takes two
MAX_LINES = 2


@dataclass(frozen=True)
class Caption:
    """What was said about one segment of a clip."""

    start_s: float
    """Seconds from the beginning of the clip."""
    end_s: float
    text: str
    prompt: str = ""
    """What the model was asked."""

    def __post_init__(self) -> None:
        if not 0 <= self.start_s <= self.end_s < math.inf:
            raise ValueError(f"a caption cannot last from {self.start_s} to {self.end_s} s")


@dataclass(frozen=True)
class Cue:
    """What a screen shows at once."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]


def format_captions(captions: Iterable[Caption], format: str) -> str:
    """The whole file's content. Captions without text appear only in jsonl. InputError: unknown format."""
    write = _WRITERS.get(format)
    if write is None:
        raise InputError(f"caption format {format!r} is unknown: choose one of {', '.join(FORMATS)}")
    return write(list(captions))


def write_captions(
    path: str | os.PathLike[str],
    captions: Iterable[Caption],
    format: str | None = None,
    audio: str | os.PathLike[str] | None = None,
) -> Path:
    """Write the file whole or not at all; an older one is replaced.

    format: from the file's suffix when None. audio: the clip they caption, which is never overwritten.
    Raises InputError (folder missing, not writable, unknown format) and RunError (disk full).
    """
    target = Path(path)
    if audio is not None and _same_file(target, Path(audio)):
        raise InputError(f"{target} is the audio itself: choose another name for its captions")
    content = format_captions(captions, format or target.suffix.removeprefix(".").lower())
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
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


def cues(caption: Caption) -> list[Cue]:
    """Split a caption for the screen; cues follow one another without a gap, each at least 1 ms long."""
    lines = wrap(plain(caption.text))
    blocks = [tuple(lines[i : i + MAX_LINES]) for i in range(0, len(lines), MAX_LINES)]
    weights = [sum(map(columns, block)) for block in blocks]
    start_ms, end_ms = round(caption.start_s * 1000), round(caption.end_s * 1000)
    found: list[Cue] = []
    done, at = 0, start_ms
    for block, weight in zip(blocks, weights, strict=True):
        done += weight
        until = max(at + 1, start_ms + round((end_ms - start_ms) * done / sum(weights)))
        found.append(Cue(at, until, block))
        at = until
    return found


def plain(text: str) -> str:
    """One line: every run of white space is one blank, control characters and lone surrogates are gone."""
    shown = (c for c in " ".join(text.split()) if unicodedata.category(c) not in ("Cc", "Cs", "Zl", "Zp"))
    return "".join(shown).strip()


def columns(text: str) -> int:
    """Width on a screen: wide characters count two, combining marks none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def wrap(text: str) -> list[str]:
    """Lines of at most MAX_COLUMNS, broken at blanks; a word that is longer, or Chinese, is broken inside."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        joined = f"{line} {word}" if line else word
        if columns(joined) <= MAX_COLUMNS:
            line = joined
            continue
        if line and columns(word) <= MAX_COLUMNS:
            lines.append(line)
            line = word
            continue
        *full, line = _break(joined)
        lines += full
    return [*lines, line] if line else lines


def _break(text: str) -> list[str]:
    """Hard breaks, never before a combining mark."""
    lines, width = [""], 0
    for character in text:
        step = columns(character)
        if width + step > MAX_COLUMNS:
            lines.append("")
            width = 0
        lines[-1] += character
        width += step
    return [line.strip() for line in lines if line.strip()]


def _txt(captions: list[Caption]) -> str:
    return "".join(f"{text}\n" for caption in captions if (text := plain(caption.text)))


def _srt(captions: list[Caption]) -> str:
    blocks = [
        f"{number}\n{_clock(cue.start_ms, ',')} --> {_clock(cue.end_ms, ',')}\n{_srt_text(cue)}\n"
        for number, cue in enumerate(_all_cues(captions), 1)
    ]
    return "\n".join(blocks)


def _vtt(captions: list[Caption]) -> str:
    blocks = [
        f"{_clock(cue.start_ms, '.')} --> {_clock(cue.end_ms, '.')}\n{_vtt_text(cue)}\n" for cue in _all_cues(captions)
    ]
    return "\n".join(["WEBVTT\n", *blocks])


def _jsonl(captions: list[Caption]) -> str:
    return "".join(f"{_json_row(caption)}\n" for caption in captions)


def _json_row(caption: Caption) -> str:
    row = asdict(caption) | {"start_s": round(caption.start_s, 3), "end_s": round(caption.end_s, 3)}
    text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    # These end a line for str.splitlines and JavaScript, and JSON needs no escape for them.
    return "".join(f"\\u{ord(c):04x}" if c in "\x85\u2028\u2029" or "\ud800" <= c <= "\udfff" else c for c in text)


def _all_cues(captions: list[Caption]) -> list[Cue]:
    return [cue for caption in captions for cue in cues(caption)]


def _srt_text(cue: Cue) -> str:
    """SubRip has no escapes: an arrow keeps one dash."""
    return "\n".join(re.sub("-{2,}>", "->", line) for line in cue.lines)


def _vtt_text(cue: Cue) -> str:
    escaped = (line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for line in cue.lines)
    return "\n".join(escaped)


def _clock(ms: int, point: str) -> str:
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{ms:03}"


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


_WRITERS: dict[str, Callable[[list[Caption]], str]] = dict(zip(FORMATS, (_txt, _srt, _vtt, _jsonl), strict=True))
