"""GPTQ: blocks bit for bit, layers rounded on what rounded ones say, the command; with GPTQModel where it is installed.

Where it is not, a solver that rounds to the nearest level stands in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import gguf
import torch
from auricle.export import pipeline
from auricle.export.__main__ import main
from auricle.export.formats.gguf_writer import rotary_rows
from auricle.export.formats.q4_blocks import GROUP, FourBit
from auricle.export.formats.tensor_names import gguf_name, rotary_heads
from auricle.export.llm import gptq, gptq_linear
from auricle.export.llm.export import Llm
from auricle.export.llm.gptq import Rounding, linears, require_groups
from auricle.export.llm.imatrix import Passage
from auricle.export.llm.lora import Lora
from auricle.export.llm.quantize import DEFAULT_TABLES, TableTypes
from auricle.export.llm.torch_reference import ReferenceLlm
from auricle.export.options import ExportOptions
from auricle.models.bundle import LLM_FILE, read_manifest
from auricle.models.errors import InputError, RunError
from conftest import export_arguments, salm_arguments
from gguf import GGMLQuantizationType as Kind
from hypothesis import given
from hypothesis import strategies as st
from llm_export import export_llm
from torch import Tensor

GOLDEN = Path(__file__).parents[2] / "golden"
SALMONN = GOLDEN / "salmonn-tiny" / "checkpoint"
SALM = GOLDEN / "salm-tiny" / "checkpoint"
NOTHING: Callable[..., None] = lambda *_: None  # noqa: E731
with_library = pytest.mark.skipif(find_spec("gptqmodel") is None, reason="GPTQModel is not installed: make gptq-test")


class Nearest:
    """Rounds to the nearest level, whatever is read; keeps that."""

    def __init__(self, linear: torch.nn.Linear, symmetric: bool) -> None:
        self.linear, self.symmetric, self.inputs = linear, symmetric, list[Tensor]()

    def add(self, inputs: Tensor) -> None:
        self.inputs.append(inputs.clone())

    def solve(self) -> FourBit:
        found = nearest(self.linear.weight.detach(), self.symmetric)
        self.linear.weight.data = torch.from_numpy(found.weights())
        return found


def nearest(weight: Tensor, symmetric: bool) -> FourBit:
    groups = weight.reshape(-1, GROUP)
    if symmetric:
        scales, zeros = gptq_linear.best_scales(groups), torch.tensor(8.0)
    else:
        low, high = groups.amin(1, keepdim=True).clamp(max=0), groups.amax(1, keepdim=True).clamp(min=0)
        scales = ((high - low) / 15).half().float()
        zeros = (-low / scales).round()
    levels = ((groups / scales).round() + zeros).clamp(0, 15).to(torch.uint8).reshape(weight.shape)
    rows = len(weight)
    return FourBit(
        levels.numpy(),
        scales.half().reshape(rows, -1).numpy(),
        None if symmetric else zeros.to(torch.uint8).reshape(rows, -1).numpy(),
    )


@pytest.fixture
def without_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gptq, "Solver", Nearest)
    monkeypatch.setattr("auricle.export.options.require_gptq", NOTHING)


def reference(opened: tuple[Llm, Lora]) -> ReferenceLlm:
    llm, lora = opened
    return ReferenceLlm(llm.weights, llm.spec, lora, lora.spec.scale)


def passages(hidden: int) -> list[Passage]:
    generator = torch.Generator().manual_seed(1)
    return [Passage(torch.randn(n, hidden, generator=generator), start=2) for n in (7, 31, 12)]


# --- blocks


def drawn(seed: int, symmetric: bool, rows: int = 6, groups: int = 3) -> FourBit:
    rng = np.random.default_rng(seed)
    scales = (rng.standard_normal((rows, groups)) * 0.01).astype(np.float16)
    zeros = None if symmetric else rng.integers(0, 16, (rows, groups)).astype(np.uint8)
    return FourBit(rng.integers(0, 16, (rows, groups * GROUP)).astype(np.uint8), scales, zeros)


@given(st.integers(0, 2**32 - 1))
def test_q4_0_blocks_are_read_back_bit_for_bit(seed: int) -> None:
    found = drawn(seed, symmetric=True)
    read = gguf.quants.dequantize(found.blocks(), Kind.Q4_0)
    np.testing.assert_array_equal(read, found.weights())
    assert found.kind == Kind.Q4_0 and found.minimum_error() == 0


@given(st.integers(0, 2**32 - 1))
def test_q4_1_blocks_differ_by_the_rounding_of_their_minimum_alone(seed: int) -> None:
    found = drawn(seed, symmetric=False)
    read = gguf.quants.dequantize(found.blocks(), found.kind)
    off = np.abs(read - found.weights()).reshape(6, -1, GROUP).max(-1) / np.abs(found.scales.astype(np.float32))
    assert found.kind == Kind.Q4_1
    assert off.max() == pytest.approx(found.minimum_error(), abs=1e-5)
    assert found.minimum_error() < 0.01


@pytest.mark.parametrize("symmetric", [True, False])
def test_rows_change_places_as_llama_cpp_wants_them(symmetric: bool) -> None:
    found = drawn(3, symmetric, rows=16)
    np.testing.assert_array_equal(found.rotary(2).weights(), rotary_rows(found.weights(), 2))


def test_scales_of_either_sign_reach_further_than_llama_cpps() -> None:
    groups = torch.randn(400, GROUP, generator=torch.Generator().manual_seed(2))
    scales = gptq_linear.best_scales(groups)
    levels = (groups / scales).round().clamp(-8, 7)
    plain = gguf.quants.dequantize(gguf.quants.quantize(groups.numpy(), Kind.Q4_0), Kind.Q4_0)
    ours, theirs = ((torch.as_tensor(w) - groups).square().sum(1) for w in (scales * levels, plain))
    assert (ours <= theirs + 1e-6).float().mean() > 0.9
    assert ours.mean() < 0.9 * theirs.mean()
    assert torch.equal(scales, scales.half().float()) and {-1.0, 1.0} == set(scales.sign().flatten().tolist())
    assert torch.equal(gptq_linear.best_scales(torch.zeros(1, GROUP)).sign(), torch.ones(1, 1))


# --- layers


@pytest.mark.parametrize("family", ["vicuna", "qwen"])
def test_each_linear_is_rounded_on_what_the_rounded_ones_before_it_give(
    family: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: tuple[Llm, Lora] = request.getfixturevalue(family)
    heard: dict[str, list[Tensor]] = {}
    names = iter(linears(opened[0].spec))

    class Kept(Nearest):
        def __init__(self, linear: torch.nn.Linear, symmetric: bool) -> None:
            super().__init__(linear, symmetric)
            heard[next(names)] = self.inputs

    monkeypatch.setattr(gptq, "Solver", Kept)
    llm, given = reference(opened), passages(opened[0].spec.hidden)
    found = Rounding(llm, given, True, NOTHING)
    rounded = {name: torch.from_numpy(found.take(name).weights()) for name in linears(llm.spec)}
    assert rounded.keys() == heard.keys() == found.names

    class Rounded(ReferenceLlm):
        def layer(self, n: int, names: Any) -> dict[str, Tensor]:
            state = super().layer(n, names)
            return {name: rounded.get(f"model.layers.{n}.{name}", value) for name, value in state.items()}

    wanted: dict[str, list[Tensor]] = {}
    after = Rounded(llm.weights, llm.spec, llm.lora, llm.lora_scale)
    after.run(
        [passage.states for passage in given], NOTHING, lambda name, _, x: wanted.setdefault(name, []).append(x[2:])
    )
    for name, inputs in heard.items():
        torch.testing.assert_close(torch.cat(inputs), torch.cat(wanted[name]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("family", "symmetric"), [("vicuna", True), ("vicuna", False), ("qwen", True)])
def test_the_file_holds_what_was_found(
    family: str, symmetric: bool, request: pytest.FixtureRequest, tmp_path: Path, without_library: None
) -> None:
    opened: tuple[Llm, Lora] = request.getfixturevalue(family)
    llm, lora = opened
    given = passages(llm.spec.hidden)
    tables = TableTypes(None if llm.spec.tied else "q8_0", "q6_k" if llm.spec.hidden % 256 == 0 else "q8_0")
    quantization = "q4_0" if symmetric else "q4_1"
    again, found = (Rounding(reference(opened), given, symmetric, NOTHING) for _ in range(2))
    export_llm(llm, lora, tmp_path, quantization=quantization, tables=tables, rounding=found)
    held = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / LLM_FILE).tensors}
    for name in linears(llm.spec):
        wanted, heads = again.take(name), rotary_heads(llm.spec, name.split(".")[-2])
        tensor = held[gguf_name(name)]
        assert tensor.tensor_type == (Kind.Q4_0 if symmetric else Kind.Q4_1)
        np.testing.assert_array_equal(tensor.data, (wanted.rotary(heads) if heads else wanted).blocks())
    head = held["token_embd.weight" if llm.spec.tied else "output.weight"]
    assert head.tensor_type == Kind.Q8_0 and held["token_embd.weight"].tensor_type == Kind.Q8_0


def test_too_little_memory_is_a_sentence(vicuna: tuple[Llm, Lora], monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(Nearest):
        def solve(self) -> FourBit:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(gptq, "Solver", Full)
    found = Rounding(reference(vicuna), passages(vicuna[0].spec.hidden), True, NOTHING)
    with pytest.raises(RunError, match="no memory for GPTQ of layer 0: close other programs"):
        found.take(linears(vicuna[0].spec)[0])


# --- the command


@pytest.mark.parametrize("arguments", [export_arguments, salm_arguments], ids=["salmonn", "salm"])
def test_a_bundle_rounded_by_gptq(
    arguments: Callable[..., list[str]], tmp_path: Path, without_library: None, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*arguments(tmp_path / "b", llm="gptq-q4_1"), "--quiet", "--force"]  # golden weights are noise
    assert main(command) == 0
    manifest = read_manifest(tmp_path / "b")
    assert manifest.quantization.llm == "q4_1" and manifest.provenance.options["llm"] == "gptq-q4_1"
    said = "GPTQ on Auricle's demo clips: "
    assert any(note.startswith(said) and "of a step" in note for note in manifest.provenance.notes)
    assert f"note: {said}" in capsys.readouterr().out


def test_other_clips_make_another_part(tmp_path: Path, without_library: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_export_graphs", lambda *_: {})
    monkeypatch.setattr(pipeline, "_parity", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    made = list[str]()
    whole = pipeline._rounding  # pyright: ignore[reportPrivateUsage]

    def counted(*given: Any) -> Rounding:
        made.append("made")
        return whole(*given)

    monkeypatch.setattr(pipeline, "_rounding", counted)
    (tmp_path / "lines.txt").write_text("one line\n" * 4)
    first = [*export_arguments(tmp_path / "b", llm="gptq-q4_0", lora="merged"), "--quiet"]
    assert [main(first), main(first), len(made)] == [130, 130, 1]
    assert [main([*first, "--calibrate", str(tmp_path / "lines.txt")]), len(made)] == [130, 2]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"llm": "gptq-q4_0", "lora": "adapter"}, "give --lora merged or both"),
        ({"llm": "gptq-q4_0", "imatrix": "auto"}, "--imatrix changes nothing at --llm gptq-q4_0"),
        ({"calibrate": Path("clips")}, "for --imatrix auto and --llm gptq-q4_0"),
    ],
)
def test_what_does_not_go_together(options: dict[str, Any], word: str, tmp_path: Path, without_library: None) -> None:
    with pytest.raises(InputError, match=word):
        ExportOptions(out=tmp_path, **options)


def test_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gptq_linear._library.cache_clear()  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setitem(__import__("sys").modules, "gptqmodel", None)
    assert main([*export_arguments(tmp_path / "b", llm="gptq-q4_0"), "--quiet"]) == 2
    gptq_linear._library.cache_clear()  # pyright: ignore[reportPrivateUsage]
    assert "pip install -c constraints.txt '.[export,gptq]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_linears_of_broken_groups_are_refused(vicuna: tuple[Llm, Lora]) -> None:
    require_groups(vicuna[0].spec)
    with pytest.raises(InputError, match=r"layers\.0\.mlp\.down_proj\.weight has 272 inputs"):
        require_groups(replace(vicuna[0].spec, d_ffn=272))


# --- types of the embedding and the head


def test_tables_of_the_users_own_choice(vicuna: tuple[Llm, Lora], tmp_path: Path) -> None:
    export_llm(*vicuna, tmp_path, quantization="q8_0", tables=TableTypes("f16", "q4_0"))
    held = {tensor.name: tensor.tensor_type for tensor in gguf.GGUFReader(tmp_path / LLM_FILE).tensors}
    assert held["token_embd.weight"] == Kind.F16 and held["output.weight"] == Kind.Q4_0
    assert held["blk.0.attn_q.weight"] == Kind.Q8_0


def test_tables_that_cannot_be(vicuna: tuple[Llm, Lora], qwen: tuple[Llm, Lora], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'q9' is not a type"):
        TableTypes("q9")
    with pytest.raises(InputError, match="keeps the embedding and the head as they are"):
        export_llm(*vicuna, tmp_path, quantization="f16", tables=TableTypes("q8_0"))
    with pytest.raises(InputError, match="give --output-tensor-type"):
        export_llm(*qwen, tmp_path, quantization="q8_0", tables=TableTypes("q8_0"))
    assert not DEFAULT_TABLES and not list(tmp_path.iterdir())


# --- GPTQModel itself


@with_library
@pytest.mark.parametrize("symmetric", [True, False])
def test_its_rounding_changes_what_comes_out_less_than_the_nearest_does(symmetric: bool) -> None:
    generator = torch.Generator().manual_seed(4)
    inputs = torch.randn(400, 64, generator=generator) @ torch.randn(64, 96, generator=generator)  # they hang together
    linear = torch.nn.Linear(96, 40, bias=False)
    linear.weight.data = torch.randn(40, 96, generator=generator)
    weight = linear.weight.detach().clone()
    solver = gptq_linear.Solver(linear, symmetric)
    for part in inputs.split(100):
        solver.add(part)
    found = solver.solve()
    rounded = torch.from_numpy(found.weights())
    torch.testing.assert_close(linear.weight.detach(), rounded, rtol=1e-6, atol=1e-7)
    plain = torch.from_numpy(nearest(weight, symmetric).weights())
    error, nearest_error = ((inputs @ (w - weight).T).square().sum() for w in (rounded, plain))
    assert error < 0.5 * nearest_error


@with_library
@pytest.mark.parametrize("inputs", [torch.full((8, 64), torch.nan), torch.full((8, 64), torch.inf)], ids=["nan", "inf"])
def test_what_cannot_be_solved_is_not_rounded_to_the_nearest(inputs: Tensor) -> None:
    solver = gptq_linear.Solver(torch.nn.Linear(64, 8, bias=False), symmetric=True)
    solver.add(inputs)
    with pytest.raises(RunError, match="give --calibrate more recordings"):
        solver.solve()


@with_library
def test_the_command_with_a_head_of_ones_own_choice(tmp_path: Path) -> None:
    command = [*export_arguments(tmp_path / "b", llm="gptq-q4_0", lora="merged"), "--quiet"]
    assert main([*command, "--output-tensor-type", "q8_0", "--force"]) == 0  # golden weights are noise
    kinds = {t.name: t.tensor_type for t in gguf.GGUFReader(tmp_path / "b" / LLM_FILE).tensors}
    assert (kinds["token_embd.weight"], kinds["output.weight"]) == (Kind.Q8_0, Kind.Q8_0)
