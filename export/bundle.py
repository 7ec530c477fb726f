"""Staging of a bundle: parts in, a whole directory out, or none, whenever it is killed.

Parts are built in `OUT.partial`, a sibling of OUT. Each finished part is recorded there with the key it was built
from and the sha256 of its files; the next run reuses it when both still hold. At the end the directory is checked
like any bundle and renamed to OUT.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..models.bundle import MANIFEST, FileEntry, Manifest, check_hashes, file_entry, read_manifest, write_manifest
from ..models.dataclass_json import decode, encode
from ..models.errors import InputError, RunError
from .progress import Report, counter, no_report

RECORD = "parts.json"
LOCK = ".lock"


class Staging:
    """The directory in which a bundle grows. Use as a context manager: it holds the lock.

    Entered before anything is read or fetched: it refuses an OUT that exists (InputError), and what it made goes again
    when no part was finished.
    """

    def __init__(self, out: Path, report: Report = no_report) -> None:
        self.out = out
        self._report = report
        self.directory = out.with_name(out.name + ".partial")
        self._parts: dict[str, dict[str, Any]] = {}
        self._asked: set[str] = set()
        self._lock: int | None = None
        self._made: list[Path] = []

    def __enter__(self) -> Staging:
        if self.out.exists():
            raise InputError(f"{self.out} exists already: choose another --out, or remove it first")
        with disk_errors(self.directory):
            self._made = [parent for parent in self.directory.parents if not parent.exists()]
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.directory / LOCK, os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise InputError(
                f"another export is writing {self.out} now: wait for it, or choose another --out"
            ) from None
        except OSError as error:
            self._parts = self._read_record()
            self.__exit__()
            raise InputError(
                f"{self.directory} cannot be locked ({error.strerror}): choose an --out on a local disk"
            ) from None
        self._parts = self._read_record()
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            os.close(self._lock)
        if self.directory.is_dir() and not self._parts:
            shutil.rmtree(self.directory)
            with suppress(OSError):  # somebody else's file lies there by now
                for parent in self._made:
                    parent.rmdir()

    def part(self, name: str, key: str, build: Callable[[Path], tuple[tuple[str, ...], Any]]) -> Any:
        """Builds one part, or reuses it: returns the JSON-able note that `build` returned.

        `build(directory)` writes files there and returns their names and a note.
        """
        self._asked.add(name)
        with disk_errors(self.directory):
            kept = self._parts.get(name)
            if kept and kept["key"] == key and self._whole(name, kept["files"]):
                return kept["note"]
            self._drop(name)
            files, note = build(self.directory)
            entries = [encode(entry) for entry in self._entries(name, files)]
            self._parts[name] = {"key": key, "files": entries, "note": note}
            self._write_record()
            return json.loads(json.dumps(note))

    def finish(self, manifest: Manifest) -> Manifest:
        """Writes the manifest, checks the whole, renames it into place; returns the manifest with its files.

        Parts of an earlier run that this one did not ask for are left out.
        """
        asked = [part for name, part in self._parts.items() if name in self._asked]
        entries = [decode(FileEntry, entry) for part in asked for entry in part["files"]]
        complete = replace(manifest, files=tuple(sorted(entries, key=lambda entry: entry.path)))
        with disk_errors(self.directory):
            write_manifest(self.directory, complete)
            tick = counter(self._report, "verify bundle", sum(entry.size for entry in entries))
            check_hashes(self.directory, read_manifest(self.directory), tick)
            for name in set(os.listdir(self.directory)) - {MANIFEST, *(entry.path for entry in entries)}:
                _remove(self.directory / name)
            self.directory.rename(self.out)
        return complete

    def _entries(self, name: str, files: tuple[str, ...]) -> tuple[FileEntry, ...]:
        tick = counter(self._report, f"hash {name}", sum((self.directory / file).stat().st_size for file in files))
        return tuple(file_entry(self.directory, file, tick) for file in files)

    def _whole(self, name: str, kept: list[dict[str, Any]]) -> bool:
        sizes = {entry["path"]: entry["size"] for entry in kept}
        if any(not (path := self.directory / f).is_file() or path.stat().st_size != s for f, s in sizes.items()):
            return False
        return [encode(entry) for entry in self._entries(name, tuple(sizes))] == kept

    def _drop(self, name: str) -> None:
        for entry in self._parts.pop(name, {"files": []})["files"]:
            (self.directory / entry["path"]).unlink(missing_ok=True)
        self._write_record()

    def _read_record(self) -> dict[str, dict[str, Any]]:
        try:
            return json.loads((self.directory / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def _write_record(self) -> None:
        temporary = self.directory / (RECORD + ".new")
        temporary.write_text(json.dumps(self._parts, indent=1), encoding="utf-8")
        temporary.replace(self.directory / RECORD)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


@contextmanager
def disk_errors(directory: Path) -> Generator[None]:
    """A full disk or a forbidden directory becomes one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(
                f"the disk of {directory} is full: free some space and run the same command again, "
                "it goes on with the parts that are done"
            ) from None
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise InputError(f"{directory} cannot be written ({error.strerror}): choose another --out") from None
        raise RunError(f"writing to {directory} failed: {error}") from error
