"""Targets of a batch: files that will be written and those that are read -> a refusal before anything is computed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ...models.errors import InputError


def partial_of(target: Path) -> Path:
    """Where half of what belongs into a target goes: NAME.partial.EXT."""
    return target.with_stem(f"{target.stem}.partial")


def require_targets(targets: Sequence[Path], inputs: Sequence[Path]) -> None:
    """Makes their directory. Raises InputError where a target, or its partial file, could not be written.

    Nor may two be one file, or one of them an input. What fails later all the same, as on a disk that fills up, is for
    the writer to say.
    """
    counted = Counter(name for target in targets for name in (target, partial_of(target)))
    if doubled := [name for name, n in counted.items() if n > 1]:
        raise InputError(f"two clips would both be written to {doubled[0].name}: write them into different directories")
    read = {identity for path in inputs if (identity := _identity(path))}
    for target in targets:
        _require_writable(target)
        for path in (target, partial_of(target)):
            if os.path.isdir(path):
                raise InputError(f"{path} is a directory, and captions would be written there: remove or rename it")
            if _identity(path) in read:
                raise InputError(f"{path} is one of the clips: write the captions into another directory")


def _require_writable(target: Path) -> None:
    """By making the file with the longest name of those that may be needed, where it is not there already."""
    path = partial_of(target)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.path.lexists(path):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            path.unlink()
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): choose another place or name") from None


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
