"""Precisions of the encoders: one list, which options, documents, manifests and writers agree on."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from auricle.bench import options
from auricle.export.__main__ import parser
from auricle.models.precision import DEFAULT_PRECISION, PRECISIONS, PrecisionName

ROOT = Path(__file__).parent.parent


def test_names_are_those_of_manifests_options_and_documents() -> None:
    assert tuple(PRECISIONS) == get_args(PrecisionName) and DEFAULT_PRECISION in PRECISIONS
    document = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    assert f"[--encoders {'|'.join(PRECISIONS)}]" in document


@pytest.mark.parametrize("name", PRECISIONS)
def test_both_programs_take_every_one(name: str) -> None:
    made = parser().parse_args(["salm", "--checkpoint", "c", "--qwen", "q", "--out", "o", "--encoders", name])
    synthetic = options.parser().parse_args(["synth", "--model", "demo", "--out", "o", "--encoders", name])
    assert made.encoders == synthetic.encoders == name


def test_the_list_begins_with_the_most_precise() -> None:
    rows = list(PRECISIONS.values())
    assert rows == sorted(rows, key=lambda row: row.tolerance) == sorted(rows, key=lambda row: -row.weight_bytes)


def test_only_integer_graphs_have_a_budget_and_it_is_within_their_tolerance() -> None:
    for row in PRECISIONS.values():
        assert (row.budget > 0) == row.integer and row.budget < row.tolerance


def test_every_integer_graph_has_its_writers() -> None:
    pytest.importorskip("torch")
    from auricle.export import pipeline
    from auricle.export.synthetic import bundle

    integer = {name for name, row in PRECISIONS.items() if row.integer}
    assert pipeline._QUANTIZERS.keys() == bundle._QUANTIZERS.keys() == integer  # pyright: ignore[reportPrivateUsage]
