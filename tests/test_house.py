"""The house rules that no tool checks: who may import whom, what is too long, how fast --help is, the schema file."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path

import pytest
from earshot.models.encoders import beats, qformer, whisper
from earshot.models.llm import GPTQ_TYPES, LLM_TYPES

FOLDERS = ("models", "export", "runtime", "bench")
PEERS = ("peer_graphs", "peer_whisper", "peer_encoders", "peer_answer", "peer_ggml", "peer_salm", "peer_canary")
"""They run other people's runtimes, each in a process of its own."""
MAY_IMPORT = {
    "models": set[str](),
    "export": {"models"},
    "runtime": {"models"},
    "bench": {"models", "runtime"},
}
EXCEPTIONS = {
    *((f"export/{name}.py", "runtime") for name in ("parity", "graph", "salmonn", "salm", "calibration")),
    *((f"bench/{name}.py", "export") for name in ("synthetic", "recipes", *PEERS)),
}
THIRD_PARTY = {
    "models": {"numpy"},
    "export": {
        *("numpy", "torch", "transformers", "onnx", "onnxscript", "onnxruntime", "gguf", "llama_cpp", "soxr"),
        *("gptqmodel", "safetensors", "sentencepiece", "tokenizers", "tensorrt", "peft", "onnx_ir", "huggingface_hub"),
    },
    "runtime": {"numpy", "onnxruntime", "llama_cpp", "sounddevice", "av", "soxr", "rich"},
    "bench": {"numpy", "rich", "jiwer", "onnx", "onnxruntime", "matplotlib", "llama_cpp"},
}
PARTS = {"audio", "whisper", "beats", "qformer", "fastconformer", "llm"}
"""Rows of the grid: parts of the network, one file in each folder."""
HUBS = {
    "export": {"__main__", "assemble", "families", "salmonn", "salm", "parity"},
    "runtime": {
        *("__main__", "engine", "commands", "selfcheck", "opening", "listening", "live", "reading", "sources"),
        *("assistant", "assisting", "conversation", "parallel", "salmonn", "salm"),
        *("chat", "chatting", "keywords", "saying"),
    },
}
"""Who puts the parts together."""


def sources() -> list[tuple[str, Path]]:
    found = {folder: Path(str(resources.files(f"earshot.{folder}"))) for folder in FOLDERS}
    return [(folder, path) for folder, place in found.items() for path in sorted(place.glob("*.py"))]


def imports(path: Path) -> list[tuple[int, str]]:
    """(level, module) of every import statement in a file, wherever it stands."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(node.level, f"{node.module or ''}.{a.name}".strip(".")) for a in node.names]
    return found


@pytest.mark.parametrize(("folder", "path"), sources(), ids=lambda value: getattr(value, "name", value))
def test_imports_follow_the_arrows(folder: str, path: Path) -> None:
    for level, module in imports(path):
        first = module.split(".")[0]
        if level == 0:
            allowed = THIRD_PARTY[folder] | sys.stdlib_module_names
            if path.stem in PEERS:
                allowed |= {"torch", "transformers", "ctranslate2", "transcribe_cpp", "_pywhispercpp", "gguf"}
            assert first in allowed, f"{folder}/{path.name} imports {module}"
        elif level == 2:
            name = f"{folder}/{path.name}"
            assert first in MAY_IMPORT[folder] or (name, first) in EXCEPTIONS, f"{name} imports {first}"


@pytest.mark.parametrize(("folder", "path"), sources(), ids=lambda value: getattr(value, "name", value))
def test_parts_of_a_folder_do_not_import_each_other(folder: str, path: Path) -> None:
    """Only the hubs know the parts. The demo's training is its own family and may use them too."""
    if folder not in HUBS or path.stem in HUBS[folder] or path.stem.startswith("demo"):
        return
    known = {module.split(".")[0] for level, module in imports(path) if level == 1}
    assert not known & (PARTS | HUBS[folder]), f"{folder}/{path.name} knows {known & (PARTS | HUBS[folder])}"


@pytest.mark.parametrize(("folder", "path"), sources(), ids=lambda value: getattr(value, "name", value))
def test_files_and_functions_stay_readable(folder: str, path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400, f"{folder}/{path.name} is two things: find the second one's name"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 60, f"{folder}/{path.name}: {node.name} has {length} lines"


def constants(path: Path) -> list[list[object]]:
    """The string constants of each expression in a file, those of one tuple, list, set or dict together."""
    kinds = (ast.Tuple, ast.List, ast.Set, ast.Dict, ast.Constant)
    nodes = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, kinds)]
    return [[c.value for c in ast.walk(node) if isinstance(c, ast.Constant)] for node in nodes]


@pytest.mark.parametrize(("folder", "path"), sources(), ids=lambda value: getattr(value, "name", value))
def test_contracts_names_are_written_once(folder: str, path: Path) -> None:
    """Inputs and outputs of the graphs, the list of GGUF types. The demo's own caches may be called as they like, and a
    bench's stages too."""
    if folder == "models" or path.stem.startswith("demo"):
        return
    names: set[str] = set() if folder == "bench" else {whisper.INPUT, beats.INPUT, qformer.OUTPUT}
    for together in constants(path):
        assert not names & set(together), f"{folder}/{path.name}: models/ has constants for these names"
        assert len(LLM_TYPES.keys() & set(together)) < 3, f"{folder}/{path.name}: models/llm.py has LLM_TYPES"


def test_types_of_the_language_model_are_the_same_everywhere() -> None:
    from earshot.export.__main__ import parser

    document = (Path(__file__).parent.parent / "docs" / "export.md").read_text(encoding="utf-8")
    assert f"--llm {'|'.join((*LLM_TYPES, *GPTQ_TYPES))}]" in document
    shares = " ".join(document.split())
    for name, kind in LLM_TYPES.items():
        assert f"{name} {kind.agreement:.0%}".replace("%", " %") in shares.replace("f32 and f16", "f32 90 % f16"), name
    for name in (*LLM_TYPES, *GPTQ_TYPES):
        words = ["salmonn", "--whisper", "w", "--beats", "b", "--vicuna", "v", "--salmonn", "s", "--out", "o", "--llm"]
        assert parser().parse_args([*words, name]).llm == name


def test_the_bench_offers_every_model_and_part() -> None:
    from earshot.bench import options
    from earshot.models.families import salm, salmonn

    assert (*salmonn.RELEASED, *salm.RELEASED, "demo") == options.MODELS
    peer = Path(str(resources.files("earshot.bench"))) / "peer.py"
    assert set(options.PARTS) == {node.value for node in _keys_of(peer, "PARTS")}


def _keys_of(path: Path, name: str) -> list[ast.Constant]:
    """The keys of a dict that a module assigns to a name."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict) and ast.unparse(node.targets[0]) == name:
            return [key for key in node.value.keys if isinstance(key, ast.Constant)]
    return []


def documents() -> list[Path]:
    root = Path(__file__).parent.parent
    return [
        root / "README.md",
        root / "CHANGELOG.md",
        root / "models/demo/README.md",
        root / "models/demo-salm/README.md",
        *sorted(root.glob("docs/*.md")),
    ]


@pytest.mark.parametrize("path", [path for path in documents() if path.exists()], ids=lambda path: path.stem)
def test_documents_have_no_placeholders(path: Path) -> None:
    found = re.findall("@[A-Z]+@", path.read_text(encoding="utf-8"))
    assert not found, f"{path.name} still lacks {found}"


def test_the_page_on_adding_a_model_is_true() -> None:
    """Every file that it names is there, and what it names in it, but for the files of the example."""
    root = Path(__file__).parent.parent
    text = (root / "docs/adding-a-model.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:models|export|runtime|bench|tests)/[\w.]+\.(?:py|json))`(?: `([A-Za-z_]+)`)?", text)
    known = [(name, word) for name, word in named if "naturelm" not in name]
    assert len(known) > 15
    for name, word in known:
        assert (root / name).is_file(), name
        assert word in (root / name).read_text(encoding="utf-8"), f"{name} has no {word}"


def test_folders_are_flat() -> None:
    for folder in FOLDERS:
        place = Path(str(resources.files(f"earshot.{folder}")))
        below = [p.parent.relative_to(place) for p in place.rglob("*.py") if p.parent != place]
        assert not below, f"{folder} has code below it: {below}"


@pytest.mark.parametrize("module", ["runtime", "export", "bench"])
def test_help_does_not_wait_for_heavy_imports(module: str) -> None:
    """Measured against a bare interpreter in the same moment, so that a busy machine does not fail it."""
    command = [sys.executable, "-X", "importtime", "-m", f"earshot.{module}", "--help"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = {line.rsplit("|", 1)[-1].strip() for line in run.stderr.splitlines()}
    heavy = {"torch", "transformers", "onnx", "onnxruntime", "llama_cpp", "av", "soxr", "numpy", "rich", "gguf"}
    assert not loaded & heavy
    assert "usage" in run.stdout


def test_help_is_fast() -> None:
    best = 9.0
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "earshot.runtime", "--help"], capture_output=True, check=True)
        best = min(best, time.perf_counter() - start)
    assert best < 0.3


def test_schema_file_says_what_the_dataclasses_say() -> None:
    from earshot.models.bundle import Manifest
    from earshot.models.dataclass_json import json_schema

    written = json.loads((resources.files("earshot.models") / "manifest.schema.json").read_text(encoding="utf-8"))
    assert written == json_schema(Manifest, "Earshot bundle manifest, schema version 2")
