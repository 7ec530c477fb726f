"""Every file of a bundle changed in one byte, cut, emptied or exchanged with another's: refused, none of it used."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from auricle.models.bundle import MANIFEST, read_manifest
from auricle.models.errors import BundleError
from auricle.runtime.bundle import open_bundle, verify_hashes
from auricle.runtime.engine import load

Spoil = Callable[[Path, random.Random], None]


def one_byte(path: Path, rng: random.Random) -> None:
    with path.open("r+b") as file:
        at = rng.randrange(path.stat().st_size)
        file.seek(at)
        old = file.read(1)[0]
        file.seek(at)
        file.write(bytes([old ^ 1 << rng.randrange(8)]))


def cut(path: Path, rng: random.Random) -> None:
    with path.open("r+b") as file:
        file.truncate(rng.randrange(1, path.stat().st_size))


def emptied(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"")


def exchanged(path: Path, rng: random.Random) -> None:
    other = rng.choice([each for each in path.parent.iterdir() if each not in (path, path.with_name(MANIFEST))])
    held = path.read_bytes()
    shutil.copyfile(other, path)
    other.write_bytes(held)


@pytest.mark.parametrize("spoil", [one_byte, cut, emptied, exchanged])
@pytest.mark.parametrize("bundle", ["golden_bundle", "salm_bundle"])
def test_every_file(request: pytest.FixtureRequest, tmp_path: Path, bundle: str, spoil: Spoil) -> None:
    """`load` tells what a size tells; a changed byte is `verify`'s to find."""
    whole: Path = request.getfixturevalue(bundle)
    for seed, entry in enumerate(read_manifest(whole).files):
        spoiled = Path(shutil.copytree(whole, tmp_path / f"{seed}"))
        spoil(spoiled / entry.path, random.Random(seed))
        with pytest.raises(BundleError, match=r"copy the bundle again"):
            verify_hashes(open_bundle(spoiled))
        if spoil is not one_byte:
            with pytest.raises(BundleError, match=r"copy the bundle again"):
                load(spoiled)
        shutil.rmtree(spoiled)


@pytest.mark.parametrize("spoil", [cut, emptied, exchanged])
def test_the_manifest(golden_bundle: Path, tmp_path: Path, spoil: Spoil) -> None:
    spoiled = Path(shutil.copytree(golden_bundle, tmp_path / "bundle"))
    spoil(spoiled / MANIFEST, random.Random(1))
    with pytest.raises(BundleError):
        open_bundle(spoiled)
