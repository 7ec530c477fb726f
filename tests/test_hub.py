"""Hugging Face ids in the exporter's options: nothing is fetched unasked, and no more than is read."""

from __future__ import annotations

import fnmatch
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="export is not installed")

import huggingface_hub
from auricle.export.__main__ import main
from auricle.export.hub import local_path, model_name
from conftest import export_arguments
from huggingface_hub.errors import RepositoryNotFoundError

MODELS = {
    "openai/whisper-large-v2": (
        *("config.json", "model.safetensors", "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "vocab.json"),
        "model.fp32-00001-of-00002.safetensors",
    ),
    "lmsys/vicuna-7b-v1.5": (
        *("config.json", "tokenizer.model", "tokenizer_config.json", "pytorch_model.bin.index.json", "README.md"),
        *("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin", "generation_config.json"),
    ),
    "someone/vicuna-7b-v1.5-gptq": (
        *("config.json", "tokenizer.model", "quantize_config.json", "gptq_model-4bit-128g.safetensors", "README.md"),
        *("tokenizer.json", "pytorch_model.bin"),
    ),
    "someone/smollm2": (
        *("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors", "vocab.json", "merges.txt"),
    ),
    "someone/beats": ("BEATs_cpt2.pt", "README.md"),
    "tsinghua-ee/SALMONN-7B": ("salmonn_7b_v0.pth", "README.md"),
    "someone/many": ("a.pth", "b.pth"),
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub without a network: what is asked for appears in a cache laid out as the real one."""

    def snapshot_download(repo_id: str, *, allow_patterns: list[str]) -> str:
        if repo_id not in MODELS:
            raise RepositoryNotFoundError.__new__(RepositoryNotFoundError)  # it wants a response to be made of
        snapshot = tmp_path / "cache" / f"models--{repo_id.replace('/', '--')}" / "snapshots" / "0123abcd"
        snapshot.mkdir(parents=True, exist_ok=True)
        for name in MODELS[repo_id]:
            if any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns):
                (snapshot / name).touch()
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("role", "model", "files"),
    [
        ("whisper", "openai/whisper-large-v2", {"config.json", "model.safetensors"}),
        (
            "vicuna",
            "lmsys/vicuna-7b-v1.5",
            {"config.json", "tokenizer.model", "pytorch_model.bin.index.json"}
            | {f"pytorch_model-0000{n}-of-00002.bin" for n in (1, 2)},
        ),
        (
            "vicuna",
            "someone/vicuna-7b-v1.5-gptq",
            {"config.json", "tokenizer.model", "quantize_config.json", "gptq_model-4bit-128g.safetensors"},
        ),
        (
            "vicuna",
            "someone/smollm2",
            {"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"},
        ),
        ("beats", "someone/beats", {"BEATs_cpt2.pt"}),
        ("salmonn", "tsinghua-ee/SALMONN-7B", {"salmonn_7b_v0.pth"}),
    ],
)
def test_only_what_is_read_is_downloaded(cache: Path, role: str, model: str, files: set[str]) -> None:
    found = local_path(role, Path(model), download=True)
    assert {path.name for path in cache.rglob("*") if path.is_file()} == files
    assert found.is_dir() if role in ("whisper", "vicuna") else found.name in files
    if found.is_dir():
        assert model_name(found) == f"models--{model.replace('/', '--')}"


def test_local_path_is_never_looked_up(cache: Path) -> None:
    (cache.parent / "openai" / "whisper-large-v2").mkdir(parents=True)
    for given in (Path("openai/whisper-large-v2"), cache / "nowhere", Path("nowhere"), Path("a/b/c")):
        assert local_path("whisper", given, download=True) == given
    assert not cache.exists()


@pytest.mark.parametrize(
    ("option", "model", "download", "status", "said"),
    [
        ("whisper", "openai/whisper-large-v2", False, 2, "--download"),
        ("salmonn", "tsinghua-ee/SALMONN-7B", False, 2, "--download"),
        ("vicuna", "lmsys/vicuna-70b", True, 2, "no model lmsys/vicuna-70b"),
        ("salmonn", "someone/many", True, 2, "a.pth, b.pth"),
        ("beats", "lmsys/vicuna-7b-v1.5", True, 2, "none"),
    ],
)
def test_what_cannot_be_fetched_is_one_sentence(
    cache: Path, capfd: pytest.CaptureFixture[str], option: str, model: str, download: bool, status: int, said: str
) -> None:
    arguments = export_arguments(cache.parent / "out", **{option: model})
    assert main([*arguments, *(["--download"] if download else [])]) == status
    err = capfd.readouterr().err
    assert err.startswith("auricle-export: ") and err.count("\n") == 1
    assert said in err
    assert not (cache.parent / "out").exists()


@pytest.mark.parametrize(
    ("family", "files"),
    [("salmonn", ("whisper", "beats", "vicuna", "salmonn")), ("salm", ("checkpoint", "qwen"))],
)
def test_a_path_that_is_not_there_is_told_at_once(tmp_path: Path, family: str, files: tuple[str, ...]) -> None:
    """Before torch, which takes seconds."""
    for missing in files:
        given = [word for name in files for word in (f"--{name}", str(tmp_path / ("gone" if name == missing else "")))]
        command = [sys.executable, "-X", "importtime", "-m", "auricle.export", family, *given]
        run = subprocess.run([*command, "--out", str(tmp_path / "out")], capture_output=True, text=True)
        said = [line for line in run.stderr.splitlines() if line.startswith("auricle-export: ")]
        assert run.returncode == 2 and said == [
            f"auricle-export: {tmp_path / 'gone'} does not exist: give --{missing} a local path,"
            " or with --download a Hugging Face id"
        ]
        loaded = {line.rsplit("|", 1)[-1].strip() for line in run.stderr.splitlines()}
        assert not loaded & {"torch", "transformers", "onnx", "llama_cpp"}


def test_without_a_network_the_reason_is_told(
    cache: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ConnectionError("the network is unreachable\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    assert main([*export_arguments(cache.parent / "out", whisper="openai/whisper-large-v2"), "--download"]) == 1
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert "(the network is unreachable)" in err


def test_an_existing_output_is_refused_before_anything_is_fetched(
    cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (cache.parent / "out").mkdir()
    assert main([*export_arguments(cache.parent / "out", whisper="openai/whisper-large-v2"), "--download"]) == 2
    assert "exists already" in capfd.readouterr().err
    assert not cache.exists()
