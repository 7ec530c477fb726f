"""git-LFS pointers: a file -> refused where it is the few lines that stand for a large file that was not fetched."""

from __future__ import annotations

from pathlib import Path

from .errors import AuricleError

_BEGINNING = b"version https://git-lfs.github.com/spec/v1"


def refuse_pointer(path: Path, error: type[AuricleError], name: str | None = None) -> None:
    """Raises `error` for a pointer; what cannot be read is for the reader to say. name: what errors call it."""
    try:
        with path.open("rb") as file:
            found = file.read(len(_BEGINNING)) == _BEGINNING
    except OSError:
        return
    if found:
        raise error(
            f"{name or path} is a git-LFS pointer, not the file it stands for: run `git lfs pull` in the clone, "
            "or download the file itself"
        )
