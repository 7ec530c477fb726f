"""`earshot-export salmonn` as a user meets it: precisions, killed runs, files in the wrong option."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import export_arguments

pytest.importorskip("torch", reason="export is not installed")

from earshot.export.__main__ import main
from earshot.models.bundle import read_manifest
from earshot.runtime.__main__ import main as earshot


def test_manifest_tells_where_the_bundle_came_from(golden_bundle: Path) -> None:
    manifest = read_manifest(golden_bundle)
    assert manifest.spec.n_audio_tokens == 88
    assert manifest.prompt.prefix_ids == (1, 3148, 1001, 29901, 529, 10649, 5309, 29958)
    assert {source.role for source in manifest.provenance.sources} == {"whisper", "beats", "vicuna", "salmonn"}
    assert manifest.parity is not None
    assert all(stage.relative_rms < 1e-4 for stage in manifest.parity.stages)
    assert str(golden_bundle.parent) not in (golden_bundle / "manifest.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(("encoders", "llm", "lora"), [("int8", "q8_0", "adapter"), ("fp16", "f16", "merged")])
def test_other_precisions_answer_and_verify(tmp_path: Path, golden: Path, encoders: str, llm: str, lora: str) -> None:
    out = tmp_path / "bundle"
    assert main(export_arguments(out, encoders=encoders, llm=llm, lora=lora)) == 0
    assert earshot(["verify", str(out), "--run"]) == 0
    assert (out / "lora.gguf").exists() == (lora == "adapter")
    assert earshot(["ask", str(golden / "jfk.wav"), "asr", "--bundle", str(out), "--max-new-tokens", "4"]) == 0


def test_killed_export_leaves_no_bundle_and_goes_on(tmp_path: Path) -> None:
    out, partial = tmp_path / "bundle", tmp_path / "bundle.partial"
    command = [sys.executable, "-m", "earshot.export", *export_arguments(out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as job:
        while job.poll() is None and "beats" not in recorded(partial):
            time.sleep(0.05)
        os.kill(job.pid, signal.SIGKILL)
    assert not out.exists()
    made = (partial / "whisper.onnx").stat().st_mtime_ns
    assert main(export_arguments(out)) == 0
    assert (out / "whisper.onnx").stat().st_mtime_ns == made
    assert not partial.exists()
    assert earshot(["verify", str(out)]) == 0


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
    assert err.startswith("earshot-export: ")
    assert err.count("\n") == 1
    assert said in err
    assert list(tmp_path.iterdir()) == []


def test_truncated_shard_is_one_sentence(tmp_path: Path, golden: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cut = tmp_path / "salmonn.pth"
    content = (golden / "salmonn-tiny" / "checkpoint" / "salmonn.pth").read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    assert main(export_arguments(tmp_path / "out", salmonn=str(cut))) == 2
    assert "salmonn.pth" in capfd.readouterr().err


def test_existing_output_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(export_arguments(tmp_path)) == 2
    assert "exists already" in capfd.readouterr().err
