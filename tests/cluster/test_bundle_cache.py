"""A node's copy of a bundle: made once, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from auricle.models.errors import RunError
from auricle.runtime.bundle import open_bundle, verify_hashes
from auricle.runtime.cluster import bundle_cache
from auricle.runtime.cluster.bundle_cache import CachedBundle, digest_of, pieces_of


@pytest.fixture
def cached(tmp_path: Path) -> CachedBundle:
    return CachedBundle(digest_of(open_bundle()), tmp_path / "cache")


def test_it_is_copied_once_and_whole(cached: CachedBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_cache, "PIECE_BYTES", 1 << 20)
    pieces = pieces_of(open_bundle(), bytes)
    assert max(map(len, pieces.values())) > 1
    fetched: list[int] = []

    def fetch(piece: bytes) -> bytes:
        fetched.append(len(piece))
        return piece

    cached.copy(pieces, fetch)
    verify_hashes(open_bundle(cached.directory))
    once = len(fetched)
    cached.copy(pieces, fetch)
    assert len(fetched) == once == sum(map(len, pieces.values()))


def test_one_that_was_broken_off_is_begun_again(cached: CachedBundle) -> None:
    part = cached.directory.with_name(f"{cached.directory.name}.partial")
    part.mkdir(parents=True)
    (part / "left.over").write_bytes(b"x")
    cached.copy(pieces_of(open_bundle(), bytes), bytes)
    assert not part.exists() and not (cached.directory / "left.over").exists()


def test_one_that_arrives_altered_takes_no_place(cached: CachedBundle) -> None:
    pieces = pieces_of(open_bundle(), bytes)
    whole = pieces["llm.gguf"][0]
    pieces["llm.gguf"] = [whole[:-1] + bytes([whole[-1] ^ 1])]
    with pytest.raises(RunError, match=r"did not arrive whole \(llm.gguf"):
        cached.copy(pieces, bytes)
    assert not cached.directory.exists()


def test_a_cache_that_cannot_be_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="--cache"):
        CachedBundle("0", tmp_path / "file").copy({}, bytes)
