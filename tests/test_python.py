"""The public face of the runtime: its names, what importing it costs, and the page that describes it."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import auricle.runtime
import pytest
from auricle.models.bundle import shipped_bundle

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/python.md"
HEAVY = {"numpy", "onnxruntime", "llama_cpp", "av", "soxr", "rich", "sounddevice"}
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_importing_it_loads_nothing_heavy() -> None:
    command = [sys.executable, "-X", "importtime", "-c", "import auricle.runtime"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()
    assert not {line.rsplit("|", 1)[-1].strip() for line in lines} & HEAVY


def test_importing_it_is_fast() -> None:
    """Beside a bare interpreter, the best of several: a busy machine does not fail it."""

    def seconds(code: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - start

    pairs = [(seconds("pass"), seconds("import auricle.runtime")) for _ in range(5)]
    assert min(face for _, face in pairs) - min(bare for bare, _ in pairs) < 0.1


def test_every_name_is_there() -> None:
    for name in auricle.runtime.__all__:
        assert getattr(auricle.runtime, name).__module__ or name.endswith("Event"), name
    assert set(auricle.runtime.__all__) <= set(dir(auricle.runtime))
    with pytest.raises(AttributeError, match="no attribute 'Microphones'"):
        _ = auricle.runtime.Microphones  # pyright: ignore


def test_type_checkers_see_the_same_names() -> None:
    """Those that are imported for type checkers are those that are found at run time, each in the same module."""
    tree = ast.parse(Path(str(auricle.runtime.__file__)).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.name: f"{'.' * node.level}{node.module}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == auricle.runtime._MODULE_OF and set(seen) == set(auricle.runtime.__all__)  # pyright: ignore


def test_the_page_has_a_line_about_every_name() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(auricle.runtime.__all__)


@pytest.mark.parametrize("code", EXAMPLES, ids=["file", "live"])
def test_the_examples_of_the_page_run(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(shipped_bundle() / "clips" / "shopping.wav", tmp_path / "clip.wav")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(PAGE), "exec"), {})
    assert "add ten potatoes to my shopping list" in capsys.readouterr().out
