"""GPTQ checkpoints in the place of a float Vicuna: every weight bit for bit, and one sentence for what does not fit.

What is expected comes from a packer made of Python's integers, and from GPTQModel itself (tests/golden/gptq).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="export is not installed")

import numpy as np
from auricle.export.__main__ import main
from auricle.export.formats.checkpoint import Weights, load_section, load_torch, open_weights, weight_files
from auricle.export.formats.gptq_checkpoint import open_base, read_gptq_config
from auricle.export.llm.export import read_llm
from auricle.export.llm.lora import read_lora
from auricle.models.bundle import LLM_FILE, read_manifest
from auricle.models.errors import CheckpointError
from conftest import export_arguments
from llm_export import export_llm
from safetensors.torch import load_file, save_file

CHECKPOINT = Path(__file__).parents[1] / "golden" / "salmonn-tiny" / "checkpoint"
GOLDEN = Path(__file__).parents[1] / "golden" / "gptq"
CONFIG = {"bits": 4, "group_size": 32, "desc_act": False, "sym": False, "checkpoint_format": "gptq_v2"}
Tensors = dict[str, Any]


def stream(fields: np.ndarray, bits: int) -> Any:
    """[n, m] -> [n * bits / 32, m] int32: each column is one long number, the first field its lowest bits."""
    columns = [sum(int(field) << (bits * i) for i, field in enumerate(column)) for column in fields.T]
    words = [np.frombuffer(number.to_bytes(len(fields) * bits // 8, "little"), "<i4") for number in columns]
    return torch.from_numpy(np.stack(words, axis=1).copy())


def module(
    rng: np.random.Generator, shape: tuple[int, int], config: dict[str, Any], act_order: bool = False
) -> tuple[Tensors, np.ndarray]:
    """A linear's tensors of random content, and its weight [n_out, n_in] float32."""
    n_out, n_in = shape
    bits, size = config["bits"], config["group_size"]
    size = n_in if size == -1 else size
    first = config.get("checkpoint_format", "gptq") == "gptq"
    groups = np.arange(n_in) // size
    if act_order:
        groups = rng.permutation(groups)
    q = rng.integers(0, 2**bits, (n_in, n_out))
    zeros = rng.integers(int(first), 2**bits, (groups.max() + 1, n_out))
    if config.get("sym"):
        zeros[:] = 2 ** (bits - 1)
    scales = rng.uniform(0.001, 0.02, zeros.shape).astype(np.float16)
    weight = scales.astype(np.float64)[groups] * (q - zeros[groups])
    tensors = {
        "qweight": stream(q, bits),
        "qzeros": stream((zeros - first).T, bits).T.contiguous(),
        "scales": torch.from_numpy(scales),
        "g_idx": torch.from_numpy(groups.astype(np.int32)),
    }
    return tensors, weight.T.astype(np.float32)


def written(
    folder: Path, tensors: Tensors, config: dict[str, Any] | None = CONFIG, name: str = "model.safetensors"
) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / name)
    if config is not None:
        (folder / "quantize_config.json").write_text(json.dumps(config))
    return folder


def one(folder: Path, config: dict[str, Any] = CONFIG, **changed: Any) -> Path:
    """A directory with one linear, `x`, of 64 x 96; a tensor is replaced, added, or left out when None."""
    tensors, _ = module(np.random.default_rng(0), (64, 96), config)
    made = {f"x.{part}": tensor for part, tensor in (tensors | changed).items() if tensor is not None}
    return written(folder, made, config)


def opened(folder: Path, config: dict[str, Any] | None = None) -> Weights:
    return open_base(folder, config or {})[0]


# --- exactly what it means


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("layout", ["gptq", "gptq_v2"])
@pytest.mark.parametrize(
    ("size", "act_order", "stored"), [(32, False, True), (16, True, True), (32, False, False), (-1, False, False)]
)
def test_every_weight_bit_for_bit(
    tmp_path: Path, bits: int, layout: str, size: int, act_order: bool, stored: bool
) -> None:
    config = CONFIG | {"bits": bits, "group_size": size, "checkpoint_format": layout}
    tensors, weight = module(np.random.default_rng(bits), (64, 96), config, act_order)
    kept = {f"a.b.{part}": tensor for part, tensor in tensors.items() if stored or part != "g_idx"}
    norm = torch.ones(3, dtype=torch.float16)
    weights = opened(written(tmp_path / "m", {"norm.weight": norm, **kept}, config))
    assert weights.names() == ["norm.weight", "a.b.weight"]
    assert weights.shape("a.b.weight") == (64, 96)
    found = weights.get("a.b.weight")
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), weight)
    assert weights.get("norm.weight").dtype == torch.float16


@pytest.mark.parametrize("case", sorted(path.name for path in GOLDEN.iterdir() if path.is_dir()))
def test_every_weight_is_the_librarys_own(case: str) -> None:
    weights = opened(GOLDEN / case)
    expected: dict[str, str] = json.loads((GOLDEN / case / "expected.json").read_text())
    assert set(expected) == set(weights.names())
    for name, digest in expected.items():
        assert hashlib.sha256(weights.get(name).numpy().tobytes()).hexdigest() == digest, name


def test_a_wide_linear_is_done_in_pieces(tmp_path: Path) -> None:
    config = CONFIG | {"bits": 3, "group_size": 128}
    tensors, weight = module(np.random.default_rng(0), (32, 2048 + 96), config, act_order=True)
    weights = opened(written(tmp_path / "m", {f"x.{part}": tensor for part, tensor in tensors.items()}, config))
    np.testing.assert_array_equal(weights.get("x.weight").numpy(), weight)


def test_a_renamed_view_is_dequantized_too(tmp_path: Path) -> None:
    weights = opened(one(tmp_path / "m"))
    view = weights.renamed({"y": "x.weight"})
    weights.close()
    assert view.names() == ["y"]
    assert torch.equal(view.get("y"), weights.get("x.weight"))


def test_a_bias_of_zeros_is_no_bias(tmp_path: Path) -> None:
    assert opened(one(tmp_path / "m", bias=torch.zeros(64))).names() == ["x.weight"]


def test_the_configuration_may_be_in_either_file(tmp_path: Path) -> None:
    inside = {"quant_method": "gptq", "bits": 3, "group_size": -1, "sym": True}
    assert read_gptq_config(tmp_path, {}) is None
    found = read_gptq_config(tmp_path, {"quantization_config": inside})
    assert found and (found.bits, found.added, found.symmetric) == (3, 1, True)
    assert str(found) == "3 bits in one group a row"
    (tmp_path / "quantize_config.json").write_text(json.dumps({"bits": 3, "checkpoint_format": "gptq_v2"}))
    found = read_gptq_config(tmp_path, {"quantization_config": inside})  # transformers says less than the packer
    assert found and (found.bits, found.group_size, found.added) == (3, -1, 0)
    (tmp_path / "quantize_config.json").write_text(json.dumps({"bits": 4, "dynamic": {"-:lm_head": {}}}))
    with pytest.raises(CheckpointError, match=r"bits is 4 in quantize_config.json and 3 in config.json"):
        read_gptq_config(tmp_path, {"quantization_config": inside})
    found = read_gptq_config(tmp_path, {"quantization_config": {"quant_method": "gptq", "group_size": 64}})
    assert found and (found.bits, found.group_size, found.added, found.symmetric) == (4, 64, 1, False)


# --- the files of a directory


def test_autogptq_names_its_files_by_bits_and_group(tmp_path: Path) -> None:
    tensors, weight = module(np.random.default_rng(0), (64, 96), CONFIG)
    stem = "gptq_model-4bit-32g"
    folder = written(tmp_path / "m", {f"x.{p}": t for p, t in tensors.items()}, name=f"{stem}.safetensors")
    np.testing.assert_array_equal(opened(folder).get("x.weight").numpy(), weight)
    assert weight_files(folder) == [folder / f"{stem}.safetensors"]
    (folder / f"{stem}.safetensors").unlink()
    parts = {f"{stem}-0000{n}-of-00002.safetensors": part for n, part in ((1, ("qweight",)), (2, tuple(tensors)[1:]))}
    for name, part in parts.items():
        written(folder, {f"x.{p}": tensors[p] for p in part}, name=name)
    index = folder / f"{stem}.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {f"x.{p}": name for name, part in parts.items() for p in part}}))
    np.testing.assert_array_equal(opened(folder).get("x.weight").numpy(), weight)
    assert weight_files(folder) == [index, *(folder / name for name in parts)]


def test_activation_order_needs_the_groups_it_left(tmp_path: Path) -> None:
    ordered = {**CONFIG, "desc_act": True}
    assert opened(one(tmp_path / "kept", ordered)).get("x.weight").shape == (64, 96)
    with pytest.raises(CheckpointError, match=r"says desc_act, but x\.qweight has no g_idx"):
        opened(one(tmp_path / "lost", ordered, g_idx=None))


def test_two_models_in_a_directory_are_refused(tmp_path: Path) -> None:
    for size in (32, 128):
        written(tmp_path / "m", {"x": torch.ones(1)}, name=f"gptq_model-4bit-{size}g.safetensors")
    with pytest.raises(CheckpointError, match=r"gptq_model-4bit-128g.safetensors, gptq_model-4bit-32g.safetensors"):
        open_weights(tmp_path / "m")


# --- what is refused


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"quant_method": "awq", "bits": 4}, "quantized by awq: only GPTQ is read, give the float model"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"load_in_8bit": True}, "does not say how"),
        ({"quant_method": "gptq", "bits": 5, "group_size": 32}, "bits 5"),
        ({"quant_method": "gptq", "bits": True, "group_size": 32}, "bits True"),
        ({"quant_method": "gptq", "bits": 4}, "group_size None"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 0}, "group_size 0"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 32, "checkpoint_format": "marlin"}, "marlin"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 32, "checkpoint_format": ["gptq"]}, "['gptq']"),
        ("gptq", "quantization_config is 'gptq'"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 32, "is_marlin_format": True}, "marlin"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 32, "pack_dtype": "int64"}, "int64"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 32, "dynamic": {"+:.*q_proj": {"bits": 8}}}, "dynamic"),
    ],
)
def test_another_quantization_is_refused_by_name(tmp_path: Path, config: Any, said: str) -> None:
    with pytest.raises(CheckpointError) as error:
        open_base(tmp_path, {"quantization_config": config})
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"scales": None}, r"1 tensors are missing: x\.scales"),
        ({"qzeros": None, "scales": None}, r"2 tensors are missing: x\.qzeros, x\.scales"),
        ({"qweight": None}, r"x\.g_idx without the qweight|x\.qzeros without|x\.scales without|no packed weights"),
        ({"weight": torch.zeros(64, 96)}, "x twice"),
        ({"bias": torch.full((64,), 0.5)}, r"x\.bias is not zero"),
        (
            {"qweight": torch.zeros(6, 64, dtype=torch.int32)},
            r"x\.qweight has 6 rows for 96 inputs, but 4 bits take 12",
        ),
        (
            {"scales": torch.ones(1, 64)},
            r"x\.scales is \[1, 64\], but 96 inputs at 4 bits in groups of 32 make \[3, 64\]",
        ),
        ({"qzeros": torch.zeros(3, 64, dtype=torch.int32)}, r"x\.qzeros is \[3, 64\].*make \[3, 8\]"),
        ({"qzeros": torch.zeros(3, 8, dtype=torch.int64)}, r"x\.qzeros is int64: only words of int32"),
        ({"scales": torch.ones(64)}, r"scales \[64\] is no such table"),
        ({"g_idx": torch.full((96,), 3, dtype=torch.int32)}, r"x\.g_idx names groups 3 to 3 of 3"),
        ({"g_idx": torch.full((96,), -1, dtype=torch.int32)}, r"x\.g_idx names groups -1 to -1 of 3"),
        ({"g_idx": torch.zeros(64, dtype=torch.int32)}, r"has 12 rows for 64 inputs, but 4 bits take 8"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path: Path, changed: Tensors, said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        opened(one(tmp_path / "m", **changed))


def test_words_of_another_width_are_named(tmp_path: Path) -> None:
    weights = opened(one(tmp_path / "m", qweight=torch.zeros(12, 64, dtype=torch.int16)))
    with pytest.raises(CheckpointError, match=r"x\.qweight is int16"):
        weights.get("x.weight")


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_a_zero_that_the_first_format_loses_is_refused(tmp_path: Path, bits: int) -> None:
    """Stored as 2^bits - 1, its neighbours spoilt or not: AutoGPTQ and GPTQModel read it in three ways."""
    config = CONFIG | {"bits": bits, "checkpoint_format": "gptq"}
    stored = np.full((64, 3), 1)
    stored[5, 1] = 2**bits - 1
    with pytest.raises(CheckpointError, match=f"stores {2**bits - 1}, a zero point of 0"):
        opened(one(tmp_path / "m", config, qzeros=stream(stored, bits).T.contiguous()))
    second = config | {"checkpoint_format": "gptq_v2"}
    weights = opened(one(tmp_path / "v2", second, qzeros=stream(stored, bits).T.contiguous()))
    q = opened(one(tmp_path / "plain", second, qzeros=stream(np.zeros((64, 3)), bits).T.contiguous()))
    scale = load_file(tmp_path / "v2" / "model.safetensors")["x.scales"][1, 5].float()
    difference = (q.get("x.weight").double() - weights.get("x.weight").double())[5, 32:64]
    assert torch.equal(difference, (scale.double() * (2**bits - 1)).expand(32))


@pytest.mark.parametrize(("layout", "stored", "seen"), [("gptq", 8, 9), ("gptq_v2", 7, 7), ("gptq", 0, 1)])
def test_a_symmetric_model_with_a_zero_off_the_middle_is_mislabelled(
    tmp_path: Path, layout: str, stored: int, seen: int
) -> None:
    config = CONFIG | {"sym": True, "checkpoint_format": layout}
    assert opened(one(tmp_path / "right", config)).get("x.weight").shape == (64, 96)
    zeros = stream(np.full((64, 3), stored), 4).T.contiguous()
    with pytest.raises(CheckpointError, match=f"zero point {seen}, where sym makes all of them 8"):
        opened(one(tmp_path / "wrong", config, qzeros=zeros))


def test_a_configuration_and_weights_that_contradict_each_other(tmp_path: Path) -> None:
    packed = written(tmp_path / "a", {"x.qweight": torch.zeros(1, 1)}, None)
    with pytest.raises(CheckpointError, match=r"holds x\.qweight, but no quantize_config\.json"):
        opened(packed)
    with pytest.raises(CheckpointError, match="holds no packed weights"):
        opened(written(tmp_path / "b", {"x.weight": torch.zeros(1, 1)}))
    with pytest.raises(CheckpointError, match=r"y\.qzeros without the qweight"):
        opened(_with(one(tmp_path / "c"), "y.qzeros"))


def _with(folder: Path, name: str) -> Path:
    """One tensor more."""
    tensors = load_file(folder / "model.safetensors")
    return written(folder, tensors | {name: torch.zeros(1)}, None)


# --- the whole chain


def vicuna(place: Path, pack: Callable[[str], bool], config: dict[str, Any]) -> tuple[Path, Path]:
    """The golden Vicuna with some linears as GPTQ, and the float model that means the same; of one name."""
    rng = np.random.default_rng(0)
    state = load_torch(CHECKPOINT / "vicuna" / "pytorch_model.bin")
    packed: Tensors = {}
    plain: Tensors = {}
    for name, tensor in state.items():
        packed[name] = plain[name] = tensor.clone()
        if pack(name):
            base = packed.pop(name).float().numpy()
            tensors, weight = rounded(base, config, rng)
            packed |= {f"{name.removesuffix('.weight')}.{part}": t for part, t in tensors.items()}
            plain[name] = torch.from_numpy(np.ascontiguousarray(weight))
    folders = place / "gptq" / "vicuna", place / "float" / "vicuna"
    for folder, tensors in zip(folders, (packed, plain), strict=True):
        folder.parent.mkdir(parents=True)
        shutil.copytree(CHECKPOINT / "vicuna", folder, ignore=shutil.ignore_patterns("*.bin"))
        written(folder, tensors, None)
    (folders[0] / "quantize_config.json").write_text(json.dumps(config))
    return folders


def rounded(base: np.ndarray, config: dict[str, Any], rng: np.random.Generator) -> tuple[Tensors, np.ndarray]:
    """A linear [n_out, n_in] rounded to the nearest, symmetric, its inputs in groups at random."""
    n_in, bits = base.shape[1], config["bits"]
    groups = rng.permutation(np.arange(n_in) // config["group_size"])
    largest = np.stack([np.abs(base[:, groups == g]).max(axis=1) for g in range(groups.max() + 1)])
    scales = (largest / 2 ** (bits - 1)).astype(np.float16)
    middle = 2 ** (bits - 1)
    spread = scales.astype(np.float32)[groups].T
    q = np.clip(np.round(base / spread) + middle, 0, 2**bits - 1).astype(int)
    tensors = {
        "qweight": stream(q.T, bits),
        "qzeros": stream(np.full(scales.T.shape, middle - 1), bits).T.contiguous(),
        "scales": torch.from_numpy(scales),
        "g_idx": torch.from_numpy(groups.astype(np.int32)),
        "bias": torch.zeros(len(base), dtype=torch.float16),
    }
    return tensors, spread * (q - middle).astype(np.float32)


FIRST = {"bits": 4, "group_size": 32, "desc_act": True, "sym": True, "true_sequential": True}
"""As AutoGPTQ's first releases wrote it."""


def is_linear(name: str) -> bool:
    return name.endswith("_proj.weight")


def test_an_export_is_that_of_the_same_weights_in_float(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed, plain = vicuna(tmp_path, is_linear, FIRST)
    out = tmp_path / "bundle"
    assert main([*export_arguments(out, vicuna=str(packed), llm="q8_0"), "--quiet"]) == 0
    lora = read_lora(load_section(CHECKPOINT / "salmonn.pth", "model", "a SALMONN checkpoint"), 32.0)
    (tmp_path / "twin").mkdir()
    export_llm(read_llm(plain), lora, tmp_path / "twin", quantization="q8_0", mode="both")
    for name in (LLM_FILE, "lora.gguf"):
        assert (out / name).read_bytes() == (tmp_path / "twin" / name).read_bytes()
    manifest = read_manifest(out)
    (note,) = manifest.provenance.notes
    assert note.startswith("vicuna was rounded by GPTQ to 4 bits in groups of 32")
    assert f"note: {note}" in capsys.readouterr().out
    assert "quantize_config.json" in {source.name for source in manifest.provenance.sources}
    assert manifest.provenance.base_fingerprint == read_llm(plain).fingerprint.as_text()
    assert read_llm(plain).notes == ()


def test_a_packed_head_is_read_too(tmp_path: Path) -> None:
    packed, plain = vicuna(tmp_path, lambda name: name == "lm_head.weight", FIRST | {"bits": 8})
    found, wanted = read_llm(packed).weights, read_llm(plain).weights
    assert torch.equal(found.get("lm_head.weight"), wanted.get("lm_head.weight"))


def test_what_a_vicuna_lacks_or_does_not_have_is_named(tmp_path: Path) -> None:
    packed, _ = vicuna(tmp_path, lambda name: name.endswith("layers.1.mlp.up_proj.weight"), FIRST)
    tensors = load_file(packed / "model.safetensors")
    up = "model.layers.1.mlp.up_proj"
    for changed, said in (
        ({n: t for n, t in tensors.items() if not n.startswith(up)} | _linear("y"), rf"missing: {up}\.weight"),
        (tensors | _linear("extra"), r"holds extra\.weight, which no Vicuna has"),
        (tensors | {"model.layers.0.mlp.up_proj.bias": torch.zeros(256)}, r"up_proj\.bias, which no Vicuna has"),
        (tensors | _linear(up), rf"{up}\.weight is \[64, 96\] but config\.json says \[256, 128\]"),
    ):
        written(packed, changed, None)
        with pytest.raises(CheckpointError, match=said):
            read_llm(packed)


def _linear(name: str) -> Tensors:
    tensors, _ = module(np.random.default_rng(0), (64, 96), FIRST)
    return {f"{name}.{part}": tensor for part, tensor in tensors.items()}
