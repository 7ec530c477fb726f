"""The language model's export: what is in the GGUF files, that llama.cpp reads them, what is refused."""

from __future__ import annotations

import ctypes
import errno
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

pytest.importorskip("torch")

import gguf
import llama_cpp as llama
import torch
from auricle.export.formats import gguf_writer
from auricle.export.formats.checkpoint import load_section
from auricle.export.llm import export as llm_module
from auricle.export.llm import quantize as quantize_module
from auricle.export.llm.base_model import check_base
from auricle.export.llm.export import Llm, read_llm, write_gguf
from auricle.export.llm.lora import PREFIX, Lora, read_lora
from auricle.export.llm.quantize import quantize
from auricle.models.errors import CheckpointError, InputError, RunError
from auricle.models.families.salmonn import prompt_halves
from auricle.models.llm import LLM_TYPES, VICUNA_7B_V15, VICUNA_13B_V11
from llama_judge import Judge
from llm_export import export_llm
from safetensors import torch as safetensors_torch

CHECKPOINT = Path(__file__).parents[2] / "golden" / "salmonn-tiny" / "checkpoint"
VICUNA = CHECKPOINT / "vicuna"
N_AUDIO = 88
SCALE = 4.0


State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    return load_section(CHECKPOINT / "salmonn.pth", "model", "a SALMONN checkpoint")


@pytest.fixture(scope="module")
def lora(state: State) -> Lora:
    return read_lora(state, alpha=32.0)


@pytest.fixture(scope="module")
def vicuna() -> Llm:
    return read_llm(VICUNA)


@pytest.fixture(scope="module")
def exported(vicuna: Llm, lora: Lora, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """GGUF files by name: every type merged, the base alone, the adapter."""
    out = tmp_path_factory.mktemp("gguf")
    files: dict[str, Path] = {}
    for quantization in LLM_TYPES:
        written = export_llm(vicuna, lora, out, quantization=quantization, mode="both")
        files |= {quantization: written[0].rename(out / f"{quantization}.gguf"), "adapter": written[1]}
    files["base"] = out / "base.gguf"
    write_gguf(vicuna, files["base"], "f32")
    return files


def weights_of(directory: Path) -> dict[str, Any]:
    return torch.load(directory / "pytorch_model.bin", weights_only=True)


def copied(tmp_path: Path, config: dict[str, Any] | None = None, name: str = "vicuna") -> Path:
    """A copy of the golden Vicuna, its config changed."""
    place = tmp_path / name
    shutil.copytree(VICUNA, place)
    changed = json.loads((place / "config.json").read_text()) | (config or {})
    (place / "config.json").write_text(json.dumps(changed))
    return place


def tensors(path: Path) -> dict[str, np.ndarray]:
    reader = gguf.GGUFReader(path)
    return {t.name: np.array(t.data).reshape([int(n) for n in reversed(t.shape)]) for t in reader.tensors}


def interleaved(rows: np.ndarray, n_heads: int) -> np.ndarray:
    """Row 2j + half of a head in llama.cpp is row half * d/2 + j in Hugging Face: written out, one by one."""
    d = len(rows) // n_heads
    order = [h * d + half * d // 2 + j for h in range(n_heads) for j in range(d // 2) for half in range(2)]
    return rows[order]


# --- llama.cpp, the judge


@pytest.fixture
def judge() -> Iterator[Callable[..., Judge]]:
    opened: list[Judge] = []

    def open_judge(*args: Any, **kwargs: Any) -> Judge:
        opened.append(Judge(*args, **kwargs))
        return opened[-1]

    yield open_judge
    for one in opened:
        one.close()


PROMPT = [1, 3148, 1001, 29901, 529, 10649, 5309, 29958, 1533, 10649, 13, 22933, 9047, 13566, 29901]


def next_logits(judge: Judge, start: int = 0, end: int = len(PROMPT)) -> np.ndarray:
    judge.prefill(PROMPT[start:end], start)
    return judge.logits()


# --- what is in the files


def test_tensors_are_the_merged_and_interleaved_weights(exported: dict[str, Path], state: State) -> None:
    base, written = weights_of(VICUNA), tensors(exported["f32"])
    for n in range(2):
        for target, name, heads in (
            ("q_proj", "attn_q", 4),
            ("v_proj", "attn_v", None),
            ("k_proj", "attn_k", 4),
        ):
            expected = base[f"model.layers.{n}.self_attn.{target}.weight"].float()
            if target != "k_proj":
                a, b = (state[f"{PREFIX}{n}.self_attn.{target}.lora_{side}.default.weight"] for side in "AB")
                expected = expected + SCALE * (b @ a)
            rows = interleaved(expected.numpy(), heads) if heads else expected.numpy()
            np.testing.assert_allclose(written[f"blk.{n}.{name}.weight"], rows, rtol=0, atol=1e-6)
        parts = (("mlp.down_proj", "ffn_down"), ("post_attention_layernorm", "ffn_norm"))
        for theirs, ours in parts:
            whole = base[f"model.layers.{n}.{theirs}.weight"].float().numpy()
            np.testing.assert_array_equal(written[f"blk.{n}.{ours}.weight"], whole)
    np.testing.assert_array_equal(written["output.weight"], base["lm_head.weight"].float().numpy())
    assert len(written) == 2 * 9 + 3  # rotary tables are not among them


def test_the_files_say_what_is_merged(exported: dict[str, Path], judge: Callable[..., Judge]) -> None:
    for name, scale in (("f32", SCALE), ("q4_0", SCALE), ("base", 0.0)):
        text = ctypes.create_string_buffer(32)
        model = judge(exported[name], vocab_only=True).model
        cast(Any, llama).llama_model_meta_val_str(model, gguf_writer.LORA_SCALE.encode(), text, 32)
        assert float(text.value) == scale


def test_both_halves_of_every_prompt_become_the_reference_ids(
    exported: dict[str, Path], golden: Path, judge: Callable[..., Judge]
) -> None:
    prompts = json.loads((golden / "vicuna_prompt_ids.json").read_text(encoding="utf-8"))
    vocabulary = judge(exported["q4_0"], vocab_only=True)
    for task in prompts.values():
        before, after = prompt_halves(task["prompt"].removeprefix("<Speech><SpeechHere></Speech> "))
        assert (vocabulary.tokens(before), vocabulary.tokens(after)) == (
            task["before_ids"],
            task["after_ids"],
        )
    assert len(prompts) == 25


def test_logits_are_those_of_the_reference(
    exported: dict[str, Path], clip: dict[str, np.ndarray], judge: Callable[..., Judge]
) -> None:
    model = judge(exported["f32"])
    before, after = str(clip["prompt"]).split("<SpeechHere>")
    model.prefill([1, *model.tokens(before)])
    model.prefill_audio(clip["audio_tokens"], 8)
    model.prefill(model.tokens(after), 8 + N_AUDIO)
    assert len(model.logits()) == 32000  # trap 25
    np.testing.assert_allclose(model.logits(), clip["next_logits"][:32000], rtol=0, atol=1e-4)


def test_adapter_on_the_base_is_the_merged_model(
    exported: dict[str, Path], vicuna: Llm, lora: Lora, tmp_path: Path, judge: Callable[..., Judge]
) -> None:
    """Trap 18, and the factor of any other scale: s / 4 on the base, (s - 4) / 4 on merged weights."""
    base, merged, adapter = exported["base"], exported["f32"], exported["adapter"]
    half = tmp_path / "half.gguf"
    write_gguf(vicuna, half, "f32", (lora, 2.0))
    wanted = next_logits(judge(merged))
    alone = next_logits(judge(base))
    assert np.abs(wanted - alone).max() > 0.05
    np.testing.assert_allclose(next_logits(judge(base, adapter, 1.0)), wanted, rtol=0, atol=1e-3)
    np.testing.assert_allclose(next_logits(judge(merged, adapter, -1.0)), alone, rtol=0, atol=1e-3)
    for start, factor in ((base, 0.5), (merged, -0.5)):
        found = next_logits(judge(start, adapter, factor))
        np.testing.assert_allclose(found, next_logits(judge(half)), rtol=0, atol=1e-3)


@pytest.mark.parametrize("quantization", LLM_TYPES)
def test_every_type_runs(quantization: str, exported: dict[str, Path], judge: Callable[..., Judge]) -> None:
    """Rows of 128 are half a block of the k types: llama.cpp falls back tensor by tensor, and it runs.

    The golden weights are random: how far four bits carry them off hangs on the prompt, so five are tried.
    """
    whole, kept = judge(exported["f32"]), judge(exported[quantization])
    errors: list[float] = []
    for start in range(0, len(PROMPT), 3):
        wanted, found = (next_logits(each, start, start + 3) for each in (whole, kept))
        assert np.isfinite(found).all()
        errors.append(float(np.sqrt(np.mean((found - wanted) ** 2)) / wanted.std()))
    assert np.median(errors) < {"f32": 1e-6, "f16": 0.01, "q8_0": 0.1, "q6_k": 0.1}.get(quantization, 0.5), errors


def test_types_order_by_size(exported: dict[str, Path]) -> None:
    sizes = [exported[q].stat().st_size for q in ("f32", "f16", "q8_0", "q5_k_m", "q4_k_m", "q4_0")]
    assert sizes == sorted(sizes, reverse=True)


# --- the same weights in other wrappings


def _sharded(place: Path, suffix: str) -> None:
    whole = weights_of(place)
    (place / "pytorch_model.bin").unlink()
    names = list(whole)
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    weight_map: dict[str, str] = {}
    for i, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), 1):
        file = f"{stem}-0000{i}-of-00002.{suffix}"
        held = {name: whole[name] for name in part}
        if suffix == "safetensors":
            cast(Any, safetensors_torch).save_file(held, str(place / file))
        else:
            torch.save(held, place / file)
        weight_map |= dict.fromkeys(part, file)
    (place / f"{stem}.{suffix}.index.json").write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_shards_make_the_same_file(
    suffix: str,
    exported: dict[str, Path],
    lora: Lora,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(llm_module, "RELEASE_BYTES", 1)  # every shard is closed and opened again all the time
    place = copied(tmp_path)
    _sharded(place, suffix)
    (written,) = export_llm(read_llm(place), lora, tmp_path, quantization="f32")
    assert written.read_bytes() == exported["f32"].read_bytes()


def test_a_random_extra_row_is_cut(exported: dict[str, Path], lora: Lora, tmp_path: Path) -> None:
    place = copied(tmp_path, {"vocab_size": 32001})
    whole = weights_of(place)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        whole[name] = torch.cat([whole[name], torch.full((1, 128), 9.0, dtype=torch.float16)])
    torch.save(whole, place / "pytorch_model.bin")
    (written,) = export_llm(read_llm(place), lora, tmp_path, quantization="f32")
    assert written.read_bytes() == exported["f32"].read_bytes()


def test_bfloat16_weights_are_read(vicuna: Llm, tmp_path: Path) -> None:
    place = copied(tmp_path)
    torch.save({n: t.to(torch.bfloat16) for n, t in weights_of(place).items()}, place / "pytorch_model.bin")
    write_gguf(read_llm(place), tmp_path / "llm.gguf", "f16")
    found = tensors(tmp_path / "llm.gguf")["output.weight"]
    np.testing.assert_allclose(found, weights_of(VICUNA)["lm_head.weight"].numpy(), rtol=2**-8, atol=1e-4)


# --- what is refused


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"model_type": "qwen3"}, "model_type 'qwen3'"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"attention_bias": True}, "attention_bias"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings"),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, "-16k"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "yarn"),
        ({"hidden_size": "wide"}, "hidden_size 'wide'"),
        ({"num_hidden_layers": None}, "num_hidden_layers None"),
        ({"rms_norm_eps": -1}, "rms_norm_eps"),
        ({"num_attention_heads": 3}, "heads"),
        ({"head_dim": 64}, "head_dim 64"),
        ({"num_hidden_layers": 3}, "model.layers.2.input_layernorm.weight"),
        ({"num_hidden_layers": 1}, "model.layers.1"),
        ({"intermediate_size": 300}, "mlp.gate_proj"),
    ],
)
def test_another_config_is_refused(config: dict[str, Any], word: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=word):
        read_llm(copied(tmp_path, config))


def test_newer_transformers_write_rope_elsewhere(tmp_path: Path) -> None:
    config = {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}, "num_key_value_heads": 4}
    assert read_llm(copied(tmp_path, config)).spec.rope_theta == 5e5


@pytest.mark.parametrize("key", ["model.layers.1.mlp.up_proj.weight", "lm_head.weight", "model.norm.weight"])
def test_a_missing_weight_is_named(key: str, tmp_path: Path) -> None:
    place = copied(tmp_path)
    torch.save({n: t for n, t in weights_of(place).items() if n != key}, place / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=key):
        read_llm(place)


def test_an_unknown_weight_is_named(tmp_path: Path) -> None:
    place = copied(tmp_path)
    bias = {"model.layers.0.self_attn.q_proj.bias": torch.zeros(128)}
    torch.save(weights_of(place) | bias, place / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"q_proj\.bias"):
        read_llm(place)


def test_fewer_rows_than_pieces_are_refused(tmp_path: Path) -> None:
    place = copied(tmp_path)
    whole = weights_of(place)
    whole["lm_head.weight"] = whole["lm_head.weight"][:31999].clone()
    torch.save(whole, place / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="31999 rows for the 32000 pieces"):
        read_llm(place)


def test_values_beyond_the_type_are_refused(tmp_path: Path) -> None:
    place = copied(tmp_path)
    whole = {name: tensor.float() for name, tensor in weights_of(place).items()}
    whole["lm_head.weight"][5, 5] = 1e6
    torch.save(whole, place / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"output\.weight has values that float16 cannot hold"):
        write_gguf(read_llm(place), tmp_path / "llm.gguf", "f16")
    assert not list(tmp_path.glob("*.gguf*"))


@pytest.mark.parametrize(
    ("part", "field", "value", "word"),
    [
        ("trainer_spec", "model_type", 1, "byte-pair"),
        ("normalizer_spec", "name", "nmt_nfkc", "nmt_nfkc"),
        ("normalizer_spec", "remove_extra_whitespaces", True, "extra spaces"),
        ("trainer_spec", "bos_id", -1, "<s>"),
        ("pieces", "type", 1, "255 byte pieces"),
    ],
)
def test_a_tokenizer_that_llama_cpp_would_not_repeat_is_refused(
    part: str, field: str, value: object, word: str, tmp_path: Path
) -> None:
    from sentencepiece import sentencepiece_model_pb2 as proto

    place = copied(tmp_path)
    model = cast(Any, proto).ModelProto()
    model.ParseFromString((place / "tokenizer.model").read_bytes())
    setattr(model.pieces[7] if part == "pieces" else getattr(model, part), field, value)
    (place / "tokenizer.model").write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match=word):
        read_llm(place)


@pytest.mark.parametrize("content", [b"", b"not a model at all", None])
def test_a_damaged_tokenizer_is_refused(content: bytes | None, tmp_path: Path) -> None:
    place = copied(tmp_path)
    (place / "tokenizer.model").unlink()
    if content is not None:
        (place / "tokenizer.model").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"tokenizer\.model"):
        read_llm(place)


@pytest.mark.parametrize(
    ("spec", "changes", "word"),
    [
        (VICUNA_13B_V11, {"directory": "vicuna-13b-v1.3"}, "vicuna-13b-v1.3 calls itself v1.3"),
        (VICUNA_13B_V11, {"name_or_path": "lmsys/Vicuna-13B-1.5"}, "calls itself v1.5"),
        (VICUNA_13B_V11, {"directory": "vicuna_13b_v0"}, "calls itself v0"),
        (VICUNA_13B_V11, {"rms_norm_eps": 1e-5}, "rms_norm_eps 1e-05 instead of 1e-06"),
        (VICUNA_13B_V11, {"max_positions": 4096}, "4096 positions instead of 2048"),
        (VICUNA_13B_V11, {"norm_mean": 0.01}, "delta"),
        (VICUNA_7B_V15, {"directory": "vicuna-7b-v1.1"}, "lmsys/vicuna-7b-v1.5"),
        (VICUNA_7B_V15, {"rms_norm_eps": 1e-6}, "SALMONN-7B was trained on lmsys/vicuna-7b-v1.5"),
    ],
)
def test_the_wrong_vicuna_is_refused_by_name(spec: Any, changes: dict[str, Any], word: str, vicuna: Llm) -> None:
    """Trap 19: the same shapes load in silence and answer nothing."""
    right = replace(vicuna.fingerprint, rms_norm_eps=spec.rms_norm_eps, max_positions=spec.max_positions)
    check_base(spec, right)
    with pytest.raises(CheckpointError, match=word):
        check_base(spec, replace(right, **changes))


@pytest.mark.parametrize("name", ["vicuna-13b-v1.1", "vicuna-13b-delta-v1.1", "llama-13b", "Vicuna-13B-1.1-HF", "v1.5"])
def test_the_right_vicuna_passes(name: str, vicuna: Llm) -> None:
    found = replace(vicuna.fingerprint, directory=name, rms_norm_eps=1e-6, max_positions=2048)
    check_base(VICUNA_13B_V11, found)


def test_force_takes_the_wrong_base(vicuna: Llm, lora: Lora, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise CheckpointError("wrong")

    monkeypatch.setattr(llm_module, "check_base", refuse)
    with pytest.raises(CheckpointError, match="wrong"):
        export_llm(vicuna, lora, tmp_path, quantization="f16")
    assert export_llm(vicuna, lora, tmp_path, quantization="f16", force=True)


def test_a_fingerprint_knows_its_weights(vicuna: Llm, tmp_path: Path) -> None:
    place = copied(tmp_path)
    whole = weights_of(place)
    whole["model.norm.weight"][0] += 1
    torch.save(whole, place / "pytorch_model.bin")
    mine, theirs = vicuna.fingerprint.as_text(), read_llm(place).fingerprint.as_text()
    assert [key for key in mine if mine[key] != theirs[key]] == ["sha256 of model.norm.weight"]


@pytest.mark.parametrize(("layer", "target", "side"), [(0, "q_proj", "A"), (1, "v_proj", "B")])
def test_a_missing_lora_key_is_named(state: State, layer: int, target: str, side: str) -> None:
    """Trap 20."""
    key = f"{PREFIX}{layer}.self_attn.{target}.lora_{side}.default.weight"
    with pytest.raises(CheckpointError, match=key):
        read_lora({name: tensor for name, tensor in state.items() if name != key}, alpha=32.0)


@pytest.mark.parametrize(
    ("key", "shape", "word"),
    [
        (f"{PREFIX}1.self_attn.q_proj.lora_A.default.weight", (4, 128), "layer 1's q_proj LoRA"),
        (f"{PREFIX}0.self_attn.k_proj.lora_A.default.weight", (8, 128), "q_proj and v_proj only"),
    ],
)
def test_a_strange_lora_is_refused(state: State, key: str, shape: tuple[int, int], word: str) -> None:
    with pytest.raises(CheckpointError, match=word):
        read_lora({**state, key: torch.zeros(shape)}, alpha=32.0)


def test_a_file_without_lora_is_refused() -> None:
    with pytest.raises(CheckpointError, match="not a SALMONN checkpoint"):
        read_lora({"ln_speech.bias": torch.zeros(3)}, alpha=32.0)


def test_sizes_that_do_not_fit_are_both_named(vicuna: Llm, lora: Lora, tmp_path: Path) -> None:
    wide = replace(lora, hidden=5120, n_layers=40)
    with pytest.raises(CheckpointError, match=r"5120 wide with 40 layers.*128 wide with 2 layers"):
        export_llm(vicuna, wide, tmp_path, quantization="f16")
    with pytest.raises(CheckpointError, match="5120 wide"):
        export_llm(vicuna, wide, tmp_path, quantization="f16", mode="adapter")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_impossible_scales_are_refused(number: float, vicuna: Llm, lora: Lora, state: State, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="alpha"):
        read_lora(state, alpha=number)
    with pytest.raises(InputError, match="LoRA scale"):
        export_llm(vicuna, lora, tmp_path, quantization="f16", lora_scale=number)


def test_an_unknown_type_is_refused(vicuna: Llm, lora: Lora, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'q3'"):
        export_llm(vicuna, lora, tmp_path, quantization="q3")


# --- when the machine gives out


def test_too_little_disk_is_said_before_anything_is_written(
    vicuna: Llm, lora: Lora, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_writer.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 30_000_000))  # pyright: ignore
    with pytest.raises(InputError, match=r"as q4_0 needs [0-9.]+ [GM]B of disk: 30.0 MB are free"):
        export_llm(vicuna, lora, tmp_path, quantization="q4_0")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing(vicuna: Llm, lora: Lora, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def fail(*_: object) -> None:
        calls.append("write")
        if len(calls) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", fail)
    with pytest.raises(InputError, match="No space left on device"):
        export_llm(vicuna, lora, tmp_path, quantization="q8_0")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("part", [0, 5_000_000])
def test_a_quantizer_that_fails_leaves_nothing(part: int, exported: dict[str, Path], tmp_path: Path) -> None:
    source = tmp_path / "cut.gguf"
    source.write_bytes(exported["f16"].read_bytes()[:part] if part else b"GGUF and then nothing")
    with pytest.raises(RunError, match=r"quantize q8_0 failed in llama\.cpp"):
        quantize(source, tmp_path / "out.gguf", "q8_0")
    assert [path.name for path in tmp_path.iterdir()] == ["cut.gguf"]


def test_half_a_result_is_noticed(exported: dict[str, Path], tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(exported["q8_0"].read_bytes()[:-100_000])
    assert quantize_module.is_whole(exported["q8_0"])
    assert not quantize_module.is_whole(cut)


def test_ctrl_c_stops_the_quantizer(exported: dict[str, Path], tmp_path: Path) -> None:
    def interrupt(stage: str, _done: int, _total: int) -> None:
        raise KeyboardInterrupt(stage)

    with pytest.raises(KeyboardInterrupt):
        quantize(exported["f16"], tmp_path / "out.gguf", "q4_0", progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_progress_reaches_its_total(vicuna: Llm, lora: Lora, tmp_path: Path) -> None:
    last: dict[str, tuple[int, int]] = {}

    def tell(stage: str, done: int, total: int) -> None:
        assert done > last.get(stage, (0, 0))[0]
        last[stage] = (done, total)

    export_llm(vicuna, lora, tmp_path, quantization="q8_0", mode="both", progress=tell)
    assert last == {"write f16": (21, 21), "quantize q8_0": (21, 21), "write LoRA": (8, 8)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["llm.gguf", "lora.gguf"]
