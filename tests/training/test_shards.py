"""Shards of training data: what is written is read back, and a shard counts once its JSON is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from auricle.export.training.shards import View, read_shard, remove_shard, shard_names, write_shard
from auricle.models.corpus.sentences import Utterance

pytest.importorskip("torch")

from auricle.export.training.salmonn.views import read_views


def view(rng: np.random.Generator, n: int, utterance: Utterance | None) -> View:
    sizes = (n, 4), (n - 2, 3)
    speech, audio = (rng.standard_normal(size).astype(np.float16) for size in sizes)
    return View(speech, audio, utterance, None if utterance else "rain", cut=utterance is not None)


def test_views_are_read_as_they_were_written_shard_by_shard(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    views = [view(rng, 5, None), view(rng, 9, Utterance("stop", "", {"a": "b"})), view(rng, 3, None)]
    write_shard(tmp_path, "000", views[:2])
    write_shard(tmp_path, "001", views[2:])
    found = read_views(tmp_path)
    for got, wanted in zip(found, views, strict=True):
        assert np.array_equal(got.speech, wanted.speech) and np.array_equal(got.audio, wanted.audio)
        assert (got.utterance, got.sound, got.cut) == (wanted.utterance, wanted.sound, wanted.cut)


def test_a_shard_without_its_json_does_not_count(tmp_path: Path) -> None:
    write_shard(tmp_path, "000", [view(np.random.default_rng(0), 4, None)])
    assert len(read_shard(tmp_path, "000")) == 1
    (tmp_path / "views-000.json").unlink()
    assert shard_names(tmp_path) == []
    remove_shard(tmp_path, "000")
    assert not list(tmp_path.iterdir())
