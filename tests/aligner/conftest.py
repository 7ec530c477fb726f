"""The demo with an aligner, for the tests of every way to a transcript."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from auricle.models.aligner import VOCABULARY_FILE
from auricle.models.bundle import file_entry, read_manifest, shipped_bundle, write_manifest


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo with an aligner of random weights: its times mean nothing, its words are those of the answer."""
    pytest.importorskip("torch")
    from auricle.export.aligner.part import AlignerPart

    from .whisper_checkpoint import write_whisper

    folder = tmp_path_factory.mktemp("words")
    part = AlignerPart(write_whisper(folder / "whisper"))
    bundle = Path(shutil.copytree(shipped_bundle(), folder / "bundle"))
    for name in part.spec.graphs:
        part.write(name, bundle / f"{name}.onnx")
    part.write_vocabulary(bundle / VOCABULARY_FILE)
    manifest = read_manifest(bundle)
    added = [file_entry(bundle, path.name) for path in bundle.iterdir() if path.name in part.spec.files]
    write_manifest(bundle, replace(manifest, aligner=part.spec, files=(*manifest.files, *added)))
    return bundle
