"""Research files are read without running anything in them, and what is wrong with one is said in a sentence."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from auricle.models.errors import CheckpointError

torch = pytest.importorskip("torch")
from auricle.export.formats.checkpoint import Weights, load_section, load_torch, open_weights, require, require_shape
from safetensors.torch import save_file

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.float16), "c": torch.zeros(0)}


class Bomb:
    """What a malicious checkpoint holds: unpickling it runs a command."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.path}",)  # pyright: ignore[reportDeprecated]


def sharded(folder: Path, form: str) -> Path:
    """A model directory in one of the forms found in the wild."""
    folder.mkdir()
    names = list(STATE)
    parts = {"1": {n: STATE[n] for n in names[:2]}, "2": {n: STATE[n] for n in names[2:]}}
    if form == "bin":
        torch.save(STATE, folder / "pytorch_model.bin")
    elif form == "legacy bin":
        torch.save(STATE, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    elif form == "safetensors":
        save_file(STATE, folder / "model.safetensors")
    else:
        suffix = "safetensors" if form == "safetensors shards" else "bin"
        stem = "model" if suffix == "safetensors" else "pytorch_model"
        for part, tensors in parts.items():
            path = folder / f"{stem}-{part}.{suffix}"
            save_file(tensors, path) if suffix == "safetensors" else torch.save(tensors, path)
        weight_map = {n: f"{stem}-{part}.{suffix}" for part, tensors in parts.items() for n in tensors}
        (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_named(value: float) -> None:
    weight = torch.ones(2, 3, dtype=torch.float16)
    assert require_shape(weight, (2, 3), "encoder.a", "a.pt").dtype == torch.float32
    weight[1, 2] = value
    with pytest.raises(CheckpointError, match=r"a\.pt: encoder\.a holds values that are no finite numbers"):
        require_shape(weight, (2, 3), "encoder.a", "a.pt")


FORMS = ("bin", "legacy bin", "safetensors", "safetensors shards", "bin shards")


@pytest.mark.parametrize("form", FORMS)
def test_tensors_come_back_one_by_one(tmp_path: Path, form: str) -> None:
    weights = open_weights(sharded(tmp_path / "model", form))
    assert sorted(weights.names()) == sorted(STATE)
    assert len(weights.files) == (2 if "shards" in form else 1)
    for name, tensor in STATE.items():
        assert name in weights
        assert weights.shape(name) == tuple(tensor.shape)
        assert weights.get(name).equal(tensor) and weights.get(name).dtype == tensor.dtype
    weights.close()
    assert weights.get("b").equal(STATE["b"])


def test_a_file_is_opened_like_a_directory(tmp_path: Path) -> None:
    assert Weights(sharded(tmp_path / "model", "bin") / "pytorch_model.bin").get("b").equal(STATE["b"])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("keep", [0, 3, 60, 0.5, 0.97])
def test_a_truncated_shard_is_said_to_be_one(tmp_path: Path, form: str, keep: float) -> None:
    folder = sharded(tmp_path / "model", form)
    shard = sorted(p for p in folder.iterdir() if p.suffix != ".json")[-1]
    data = shard.read_bytes()
    shard.write_bytes(data[: int(keep * len(data)) if 0 < keep < 1 else int(keep)])
    with pytest.raises(CheckpointError) as refused:
        weights = open_weights(folder)
        for name in weights.names():
            weights.get(name)
    assert shard.name in str(refused.value) and "\n" not in str(refused.value)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "model", "bin shards")
    (folder / "pytorch_model-2.bin").unlink()
    with pytest.raises(CheckpointError, match=r"lacks pytorch_model-2\.bin"):
        open_weights(folder)


def test_an_index_cannot_leave_its_directory(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../x.safetensors"}}))
    with pytest.raises(CheckpointError, match="not a file beside it"):
        open_weights(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": []}', "\xff"])
def test_a_spoilt_index_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError):
        open_weights(tmp_path)


@pytest.mark.parametrize("place", ["nowhere", "empty"])
def test_no_weights_at_all(tmp_path: Path, place: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"does not exist|holds no weights"):
        open_weights(tmp_path / place)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_never_run(tmp_path: Path, zipped: bool) -> None:
    mark, path = tmp_path / "executed", tmp_path / "bomb.pth"
    torch.save({"model": STATE, "config": Bomb(mark)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="nothing inside a checkpoint is executed"):
        load_torch(path)
    path.write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(CheckpointError):
        load_torch(path)
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"{}", b"\x80", b"PK\x03\x04", b"RIFF" + bytes(100)])
def test_another_file_is_refused_in_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "salmonn.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"salmonn\.pth") as refused:
        load_torch(path)
    assert "\n" not in str(refused.value)


def test_a_tensor_alone_is_not_a_checkpoint(tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="holds a Tensor"):
        load_torch(tmp_path / "x.pt")


def test_a_section_is_read_without_the_others(tmp_path: Path) -> None:
    torch.save({"model": {**STATE, "epoch": 3}, "optimizer": {"state": {}}}, tmp_path / "x.pth")
    assert sorted(load_section(tmp_path / "x.pth", "model", "a SALMONN checkpoint")) == sorted(STATE)
    with pytest.raises(CheckpointError, match=r"is not a SALMONN checkpoint: it has no 'weights'"):
        load_section(tmp_path / "x.pth", "weights", "a SALMONN checkpoint")


def test_missing_names_are_listed_but_not_by_the_thousand() -> None:
    with pytest.raises(CheckpointError, match=r"2 tensors are missing: d, e"):
        require(STATE, ["b", "d", "e"], "model", "x")
    with pytest.raises(CheckpointError, match=r"and 988 more"):
        require(STATE, [str(n) for n in range(1000)], "model", "x")
    require(STATE, STATE, "model", "x")
