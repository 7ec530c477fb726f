"""git-LFS pointers, what a clone without `git lfs pull` holds: named as such wherever a large file is expected."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from auricle.models.bundle import shipped_bundle
from auricle.models.errors import AudioError, BundleError, CheckpointError, InputError
from auricle.runtime.__main__ import main
from auricle.runtime.audio.decode import read_audio
from auricle.runtime.bundle import open_bundle

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
SENTENCE = r"is a git-LFS pointer, not the file it stands for: run `git lfs pull`"


def pointer(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(POINTER, encoding="ascii")
    return path


@pytest.mark.parametrize("name", ["manifest.json", "llm.gguf", "whisper.onnx"])
def test_a_bundle(tmp_path: Path, name: str) -> None:
    bundle = Path(shutil.copytree(shipped_bundle(), tmp_path / "bundle"))
    pointer(bundle / name)
    with pytest.raises(BundleError, match=rf"{name} {SENTENCE}"):
        open_bundle(bundle)


def test_a_clip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = pointer(tmp_path / "clip.wav")
    with pytest.raises(AudioError, match=rf"clip\.wav {SENTENCE}"):
        read_audio(clip)
    assert main(["ask", str(clip), "asr"]) == 2
    assert "clip.wav is a git-LFS pointer" in capsys.readouterr().err


def readers() -> dict[str, Callable[[Path], object]]:
    """What reads a file of this name when a bundle is made."""
    pytest.importorskip("torch")
    from auricle.export.formats.checkpoint import load_torch, open_weights, read_json
    from auricle.export.formats.ctranslate2 import CTranslate2Whisper
    from auricle.export.formats.imatrix_file import read_imatrix
    from auricle.export.formats.sentencepiece import read_vocabulary

    return {
        "salmonn.pth": load_torch,
        "model.safetensors": lambda path: open_weights(path.parent),
        "pytorch_model.bin": lambda path: open_weights(path.parent),
        "llm.gguf": open_weights,
        "config.json": read_json,
        "model.bin": lambda path: CTranslate2Whisper(path.parent),
        "tokenizer.model": read_vocabulary,
        "my.imatrix": read_imatrix,
    }


@pytest.mark.parametrize("number", range(8))
def test_what_is_exported(tmp_path: Path, number: int) -> None:
    name, read = list(readers().items())[number]
    expected = InputError if name.endswith("imatrix") else CheckpointError
    with pytest.raises(expected, match=rf"{name} {SENTENCE}"):
        read(pointer(tmp_path / "model" / name))
