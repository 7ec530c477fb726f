"""Where bundles and weights that are made on this machine lie: below build/ in a checkout, else in the user's own."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from platformdirs import user_cache_path, user_data_path

MADE = ("small",)
"""Bundles that `auricle-export NAME` makes, and `--bundle NAME` opens."""
_APP = "auricle"


def made_bundle(name: str) -> Path:
    """Where one of MADE lies once it is made."""
    build = _build()
    return build / name if build is not None else user_data_path(_APP, appauthor=False) / name


def weights_folder() -> Path:
    """Where trained weights of other people lie once they are fetched, a directory for each model."""
    build = _build()
    return (build if build is not None else user_cache_path(_APP, appauthor=False)) / "real-weights"


def node_bundles() -> Path:
    """Where a node of a cluster keeps the bundles that it was sent."""
    return user_cache_path(_APP, appauthor=False) / "bundles"


def trained_parts(name: str) -> Path:
    """What Auricle trained for one of MADE, as it is installed."""
    return Path(str(resources.files("auricle.models") / name))


def _build() -> Path | None:
    """The build folder of the checkout that this is installed from; None where it is no checkout."""
    root = Path(str(resources.files("auricle.models"))).resolve().parent
    return root / "build" if (root / "pyproject.toml").is_file() else None
