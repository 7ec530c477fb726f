"""What pyproject.toml asks for, what constraints.txt pins, and what is installed here: all three must agree."""

from __future__ import annotations

import importlib.metadata
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
GROUPS: dict[str, list[str]] = {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
REQUIREMENTS = [Requirement(line) for lines in GROUPS.values() for line in lines]
PINS = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if "==" in line
)


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_every_requirement_is_bounded_on_both_sides(requirement: Requirement) -> None:
    operators = sorted(specifier.operator for specifier in requirement.specifier)
    assert operators in (["<", ">="], ["=="])


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_what_is_pinned_and_what_is_installed_lies_within(requirement: Requirement) -> None:
    name = requirement.name
    if name in PINS:
        assert requirement.specifier.contains(PINS[name])
    try:
        installed = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{name} is not installed")
    assert requirement.specifier.contains(Version(installed).public)


@pytest.mark.parametrize("name", ["onnxruntime", "onnxruntime-gpu", "llama-cpp-python", "torch"])
def test_what_decides_an_answer_is_pinned(name: str) -> None:
    assert name in PINS


@pytest.mark.parametrize("script", ["Makefile", "scripts/install.sh"])
def test_every_install_is_constrained(script: str) -> None:
    for line in (ROOT / script).read_text(encoding="utf-8").splitlines():
        if " pip install" in line and "--no-deps" not in line:
            assert "--constraint constraints.txt" in line, line
