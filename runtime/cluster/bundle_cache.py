"""Bundle cache: a bundle in pieces -> its directory on a node, copied there once, named by its manifest's hash."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...models.bundle import MANIFEST, readable
from ...models.errors import BundleError, RunError
from ...models.locations import node_bundles
from ..bundle import Bundle, open_bundle, verify_hashes

PIECE_BYTES = 64 << 20
"""Of a file that is sent at a time: what a node holds in memory beside what it wrote."""
Pieces = dict[str, list[Any]]
"""By each file's name what stands for its bytes until `fetch` is asked for them."""


@dataclass(frozen=True)
class CachedBundle:
    """Where a node looks for a bundle."""

    digest: str
    """sha256 of manifest.json, which has that of every other file."""
    cache: Path | None = None
    """None: this user's own cache."""

    @property
    def directory(self) -> Path:
        """Whole if it is there."""
        return (self.cache or node_bundles()) / self.digest

    def copy(self, pieces: Pieces, fetch: Callable[[Any], bytes]) -> None:
        """Makes the directory unless it is there; of several processes on a node one does. Raises RunError."""
        target = self.directory
        part = target.with_name(f"{target.name}.partial")
        try:
            with _locked(target.with_name(f"{target.name}.lock")):
                if target.exists():
                    return
                shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
                for name, file in pieces.items():
                    path = part / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with path.open("wb") as written:
                        written.writelines(fetch(piece) for piece in file)
                verify_hashes(open_bundle(part))
                part.rename(target)
        except OSError as error:
            raise RunError(
                f"the bundle cannot be copied to {target} ({error.strerror}): make room, or give --cache"
            ) from None
        except BundleError as error:
            raise RunError(f"the bundle did not arrive whole ({error})") from None


def digest_of(bundle: Bundle) -> str:
    """The name of a bundle's copies. Raises BundleError."""
    path = bundle.directory / MANIFEST
    with readable(path):
        return hashlib.sha256(path.read_bytes()).hexdigest()


def pieces_of(bundle: Bundle, put: Callable[[bytes], Any]) -> Pieces:
    """Every file of a bundle, put where nodes can fetch it. Raises BundleError."""
    names = [MANIFEST, *(entry.path for entry in bundle.manifest.files)]
    return {name: [put(piece) for piece in _read(bundle.path(name))] for name in names}


def _read(path: Path) -> Iterator[bytes]:
    with readable(path), path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


@contextmanager
def _locked(path: Path) -> Generator[None]:
    """One process of this node at a time; a lock goes with its process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
