"""Inputs of a job: files, folders, globs and lists of files -> the clips, the largest first."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path

from ...models.errors import InputError

SUFFIXES = {
    *(".3gp", ".aac", ".ac3", ".aif", ".aiff", ".amr", ".ape", ".asf", ".au", ".avi", ".caf", ".flac", ".flv", ".m4a"),
    *(".m4b", ".m4v", ".mka", ".mkv", ".mov", ".mp2", ".mp3", ".mp4", ".mpeg", ".mpg", ".oga", ".ogg", ".ogv", ".opus"),
    *(".spx", ".ts", ".tta", ".voc", ".w64", ".wav", ".webm", ".wma", ".wmv", ".wv"),
}
"""What counts as a clip in a folder; a file that is named counts whatever it is called."""


def find_clips(words: Sequence[str]) -> list[Path]:
    """Absolute paths, each once; the largest first, so that none is begun when the others have ended.

    A word is a file; a folder: every clip below it; a glob, `**` too; or @FILE: such words, one in a line. Raises
    InputError for what is not there.
    """
    clips = {path.parent.resolve() / path.name: path.absolute() for word in words for path in _clips_of(word)}
    if not clips:
        raise InputError(f"no clip is in {', '.join(words)}: a folder's clips end in .wav, .mp3, .flac and the like")
    return sorted(clips.values(), key=lambda path: (-_size(path), path))


def _clips_of(word: str) -> Iterable[Path]:
    path = Path(word)
    if word.startswith("@") and not path.exists():
        return [clip for line in _lines(Path(word[1:])) for clip in _clips_of(line)]
    if path.is_dir():
        return _clips_below(path)
    if path.exists():
        return [path]
    found = [Path(name) for name in glob.glob(word, recursive=True)] if glob.has_magic(word) else []
    if not found:
        raise InputError(f"{word} is not there: give files, folders, globs, or @FILE with such words, one in a line")
    return [clip for each in found for clip in (_clips_below(each) if each.is_dir() else [each])]


def _clips_below(folder: Path) -> list[Path]:
    below = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    return [path for path in below if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the list {path} cannot be read ({error}): give a text file, a path in each line") from None
    return [line for line in text.splitlines() if line.strip()]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): leave it out") from None
