"""`auricle-export salmonn` as a user meets it: precisions, killed runs, files in the wrong option."""

from __future__ import annotations

import copy
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import export_arguments

pytest.importorskip("torch", reason="export is not installed")

from auricle.export.__main__ import main
from auricle.export.encoders.whisper import export_whisper
from auricle.export.parity import refuse_beyond_tolerance
from auricle.export.progress import Progress
from auricle.export.provenance import salmonn_sources
from auricle.models.bundle import ParityReport, read_manifest, sha256_of
from auricle.models.errors import InputError
from auricle.models.families.salmonn import SALMONN_7B
from auricle.runtime.__main__ import main as auricle


def test_manifest_tells_where_the_bundle_came_from(golden_bundle: Path) -> None:
    manifest = read_manifest(golden_bundle)
    assert manifest.spec.n_audio_tokens == 88
    assert manifest.prompt.prefix_ids == (1, 3148, 1001, 29901, 529, 10649, 5309, 29958)
    assert {source.role for source in manifest.provenance.sources} == {"whisper", "beats", "vicuna", "salmonn"}
    assert manifest.parity is not None
    assert all(stage.relative_rms < 1e-4 for stage in manifest.parity.stages)
    assert str(golden_bundle.parent) not in (golden_bundle / "manifest.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(("encoders", "llm", "lora"), [("int8", "q8_0", "adapter"), ("fp16", "f16", "merged")])
def test_other_precisions_answer_and_verify(
    tmp_path: Path, golden: Path, told: dict[str, list[float]], encoders: str, llm: str, lora: str
) -> None:
    out = tmp_path / "bundle"
    assert main(export_arguments(out, encoders=encoders, llm=llm, lora=lora)) == 0
    assert auricle(["verify", str(out), "--run"]) == 0
    moving = {"read sources", "check encoders", "check language model", "hash llm", "verify bundle"}
    if encoders == "int8":
        moving |= {f"layers of {graph}" for graph in SALMONN_7B.graphs} | {
            f"quantize {graph}" for graph in SALMONN_7B.graphs
        }
    for stage in moving:
        assert len(set(told[stage])) >= 2 and told[stage] == sorted(told[stage]), stage
        assert told[stage][-1] == 1 or stage.startswith("quantize"), stage
    assert (out / "lora.gguf").exists() == (lora == "adapter")
    assert auricle(["ask", str(golden / "jfk.wav"), "asr", "--bundle", str(out), "--max-new-tokens", "4"]) == 0


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[float]]:
    """The shares that the progress bar showed, by stage."""
    shares: dict[str, list[float]] = {}

    def report(_self: Progress, stage: str, done: int, total: int) -> None:
        shares.setdefault(stage, []).append(done / total)

    monkeypatch.setattr(Progress, "report", report)
    return shares


def test_killed_export_leaves_no_bundle_and_goes_on(tmp_path: Path) -> None:
    out, partial = tmp_path / "bundle", tmp_path / "bundle.partial"
    command = [sys.executable, "-m", "auricle.export", *export_arguments(out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as job:
        while job.poll() is None and "beats" not in recorded(partial):
            time.sleep(0.05)
        os.kill(job.pid, signal.SIGKILL)
    assert not out.exists()
    made = (partial / "whisper.onnx").stat().st_mtime_ns
    assert main(export_arguments(out)) == 0
    assert (out / "whisper.onnx").stat().st_mtime_ns == made
    assert not partial.exists()
    assert auricle(["verify", str(out)]) == 0


def recorded(partial: Path) -> dict[str, object]:
    try:
        return json.loads((partial / "parts.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


@pytest.mark.parametrize(
    ("option", "given", "said"),
    [
        ("salmonn", "beats.pt", "beats.pt"),
        ("beats", "salmonn.pth", "salmonn.pth"),
        ("whisper", "vicuna", "Whisper"),
        ("vicuna", "whisper", "whisper"),
        ("salmonn", "nowhere.pth", "nowhere.pth"),
        ("whisper", "nowhere", "nowhere"),
        ("vicuna", "nowhere", "nowhere"),
        ("beats", "args.json", "args.json"),
    ],
)
def test_wrong_file_in_an_option_is_one_sentence(
    tmp_path: Path, golden: Path, capfd: pytest.CaptureFixture[str], option: str, given: str, said: str
) -> None:
    wrong = golden / "salmonn-tiny" / "checkpoint" / given
    assert main(export_arguments(tmp_path / "out", **{option: str(wrong)})) == 2
    err = capfd.readouterr().err
    assert err.startswith("auricle-export: ")
    assert err.count("\n") == 1
    assert said in err
    assert list(tmp_path.iterdir()) == []


def test_truncated_shard_is_one_sentence(tmp_path: Path, golden: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cut = tmp_path / "salmonn.pth"
    content = (golden / "salmonn-tiny" / "checkpoint" / "salmonn.pth").read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    assert main(export_arguments(tmp_path / "out", salmonn=str(cut))) == 2
    assert "salmonn.pth" in capfd.readouterr().err


def test_unreadable_source_is_blamed_on_itself(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not on --out, where nothing is wrong: while it is opened, and while it is hashed."""

    def unless_beats(work: Callable[..., object]) -> Callable[..., object]:
        def tried(path: Path, *words: Any, **named: Any) -> object:
            if path.name == "beats.pt":
                raise OSError(5, "Input/output error")
            return work(path, *words, **named)

        return tried

    for place, work in (("auricle.export.provenance.sha256_of", sha256_of), ("pathlib.Path.open", Path.open)):
        with monkeypatch.context() as patched:
            patched.setattr(place, unless_beats(work))
            assert main(export_arguments(tmp_path / "out")) == 2
        err = capfd.readouterr().err
        assert err.count("\n") == 1
        assert "beats.pt cannot be read (Input/output error)" in err
        assert "--out" not in err
        assert list(tmp_path.iterdir()) == []


def test_only_files_that_are_read_are_sources(tmp_path: Path) -> None:
    for role, files in {
        "whisper": ("config.json", "model.safetensors", "pytorch_model.bin", "tf_model.h5", "tokenizer.json"),
        "vicuna": ("config.json", "tokenizer.model", "pytorch_model.bin.index.json", "1.bin", "2.bin", "optimizer.bin"),
    }.items():
        (tmp_path / role).mkdir()
        for name in files:
            (tmp_path / role / name).write_text('{"weight_map": {"a": "1.bin", "b": "2.bin"}}')
    sources = salmonn_sources(tmp_path / "whisper", tmp_path / "b.pt", tmp_path / "vicuna", tmp_path / "s.pth")
    assert [(source.role, source.path.name) for source in sources] == [
        ("whisper", "config.json"),
        ("whisper", "model.safetensors"),
        ("beats", "b.pt"),
        *[("vicuna", n) for n in ("config.json", "tokenizer.model", "pytorch_model.bin.index.json", "1.bin", "2.bin")],
        ("salmonn", "s.pth"),
    ]


def test_graph_beyond_the_tolerance_leaves_no_bundle(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(encoder: Any, *rest: Any) -> None:
        wrong = copy.deepcopy(encoder)
        wrong.layers[-1].fc2.weight *= 1.05
        export_whisper(wrong, *rest)

    monkeypatch.setattr("auricle.export.families.salmonn.export_whisper", spoilt)
    out = tmp_path / "out"
    for _ in range(2):  # going on with finished parts does not make them right
        assert main(export_arguments(out)) == 2
        err = capfd.readouterr().err
        assert err.count("\n") == 1
        assert re.search(r"speech differs from the torch reference by [\d.]+% on jfk, allowed is 0.10% at fp32", err)
        assert not out.exists()
    assert main([*export_arguments(out), "--force"]) == 0
    assert auricle(["verify", str(out), "--run"]) == 0  # the machine computes what the graph says, wrong as it is


@pytest.mark.parametrize(
    ("llm", "n_same", "n_tokens", "refused"),
    [
        ("q4_0", 8, 16, False),
        ("q4_0", 7, 16, True),
        ("f32", 15, 16, False),
        ("f32", 14, 16, True),
        ("f32", 4, 5, False),
    ],
)
def test_language_model_that_says_something_else_is_refused(
    golden_bundle: Path, llm: str, n_same: int, n_tokens: int, refused: bool
) -> None:
    """One token may differ, as a near tie; then the type's share counts."""
    manifest = read_manifest(golden_bundle)
    manifest = replace(manifest, quantization=replace(manifest.quantization, llm=llm))
    report = ParityReport((), n_same / n_tokens, n_tokens)
    if not refused:
        return refuse_beyond_tolerance(report, manifest)
    with pytest.raises(InputError, match="larger --llm type"):
        refuse_beyond_tolerance(report, manifest)


def test_existing_output_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(export_arguments(tmp_path)) == 2
    assert "exists already" in capfd.readouterr().err
