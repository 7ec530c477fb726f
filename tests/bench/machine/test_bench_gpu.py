"""scripts/bench-gpu.sh: commands that auricle-bench understands, the order, what fails, what there is no time for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from auricle.bench.options import parser

SCRIPT = Path(__file__).parents[3] / "scripts" / "bench-gpu.sh"
STUB = """\
import json, os, sys
with open("calls", "a", encoding="utf-8") as file:
    print(json.dumps(sys.argv[1:]), file=file)
print("a table")
print('{"a": "record"}')
sys.exit(sys.argv[1] == os.environ.get("FAILS"))
"""


def run_script(folder: Path, **settings: str) -> tuple[subprocess.CompletedProcess[str], list[list[str]]]:
    """Where a program that only notes its arguments stands for auricle-bench: what came out, and what was called."""
    bench = folder / "bench"
    bench.write_text(f"#!{sys.executable}\n{STUB}", encoding="utf-8")
    bench.chmod(0o755)
    kept = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
    env = kept | {"BENCH": str(bench), "PYTHON_BIN": "true", "NVIDIA_SMI": "echo", "OUT": "records"} | settings
    bash = shutil.which("bash") or pytest.skip("there is no bash")
    done = subprocess.run([bash, str(SCRIPT)], cwd=folder, env=env, capture_output=True, encoding="utf-8")
    calls = folder / "calls"
    called = [json.loads(line) for line in calls.read_text(encoding="utf-8").splitlines()] if calls.exists() else []
    return done, called


@pytest.mark.parametrize("settings", [{}, {"DRY": "1", "PYTHON_BIN": sys.executable}], ids=["gpu", "dry"])
def test_every_line_is_one_that_auricle_bench_understands(tmp_path: Path, settings: dict[str, str]) -> None:
    done, calls = run_script(tmp_path, **settings)
    assert done.returncode == 0, done.stderr
    models = ["demo"] if settings else ["salmonn-7b", "canary-qwen-2.5b", "salmonn-13b"]
    assert [call[0] for call in calls] == ["synth", "stages", "live", "peers"] * len(models) + ["report"]
    parsed = [parser().parse_args(call) for call in calls]
    assert [each.model for each in parsed if each.command == "synth"] == models
    assert {each.provider for each in parsed if "provider" in each} == {"cpu" if settings else "cuda"}
    assert {each.n_gpu_layers for each in parsed if each.command == "peers"} == {0 if settings else -1}
    assert len(parsed[-1].files) == 3 * len(models)
    for file in parsed[-1].files:
        assert json.loads((tmp_path / file).read_text(encoding="utf-8")) == {"a": "record"}
        assert (tmp_path / file).with_suffix(".txt").read_text(encoding="utf-8").startswith("a table")


def test_a_step_that_fails_is_named_and_the_others_are_on_the_report(tmp_path: Path) -> None:
    done, calls = run_script(tmp_path, FAILS="live", MODELS="demo")
    assert done.returncode == 1 and done.stderr == "bench-gpu: failed: demo-live\n"
    assert calls[-1][:3] == ["report", "records/demo-stages.json", "records/demo-decode.json"]
    assert not (tmp_path / "records" / "demo-live.json").exists()
    assert (tmp_path / "records" / "demo-live.txt").exists(), "what it printed before it failed"


def test_a_model_that_cannot_be_made_takes_no_other_with_it(tmp_path: Path) -> None:
    (tmp_path / "build/bench/salmonn-7b-fp16-q4_k_m").mkdir(parents=True)
    done, calls = run_script(tmp_path, FAILS="synth", MODELS="salmonn-13b salmonn-7b")
    assert done.returncode == 1 and done.stderr == "bench-gpu: failed: salmonn-13b\n"
    assert [call[0] for call in calls] == ["synth", "stages", "live", "peers", "report"]


def test_what_there_is_no_time_for_is_named(tmp_path: Path) -> None:
    done, calls = run_script(tmp_path, LIMIT="0", MODELS="demo salmonn-7b")
    assert done.returncode == 0 and not calls
    assert "left out after 0 minutes: demo salmonn-7b" in done.stdout
