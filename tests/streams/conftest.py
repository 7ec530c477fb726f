"""One opened demo for each file of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from auricle.runtime.engine import Engine, load


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with load() as opened:
        yield opened
