"""The house rules that no tool checks: who may import whom, what is too long, how fast --help is, the schema file."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib import resources
from pathlib import Path

import pytest
from auricle.models.encoders import beats, qformer, whisper
from auricle.models.llm import GPTQ_TYPES, KEEP, LLM_TYPES

FOLDERS = ("models", "export", "runtime", "bench")
LAYERS = {
    "models": (
        "errors audio llm dataclass_json git_lfs graph_io precision interruption program locations",
        "prompt encoders",
        "aligner families manifest_versions",
        "bundle corpus",
    ),
    "export": (
        "progress hub packages",
        "bundle formats graphs",
        "provenance encoders llm vad",
        "aligner family options parity",
        "pipeline",
        "families synthetic training",
        "small",
        "__main__",
    ),
    "runtime": (
        "events bundle tts",
        "system audio",
        "sources encoders llm output",
        "aligner families",
        "graphs",
        "engine",
        "stream_load scheduler",
        "keywords batch chat self_check",
        "live",
        "assistant assistant_options",
        "cli server cluster",
        "__main__",
    ),
    "bench": (
        "options result flops datasets word_errors",
        "machine report",
        "families",
        "speed live quality peers",
        "__main__",
    ),
}
"""The floors and root files of each folder, from the ground up: each may import its own line and those above it here.

Nothing imports runtime's cluster, and its server never imports cli.
"""
MAY_IMPORT = {
    "models": set[str](),
    "export": {"models"},
    "runtime": {"models"},
    "bench": {"models", "runtime"},
}
EXCEPTIONS = (
    ("export/parity.py", "runtime"),  # compares with the runtime's own answers
    ("export/llm/calibration.py", "runtime"),  # decodes recordings
    ("export/graphs/onnx_graph.py", "runtime"),  # the session settings that the graph will be run with
    ("export/synthetic/bundle.py", "runtime"),  # free memory
    ("bench/peers/", "export"),  # other people's runtimes, on graphs that the exporter writes
)
"""Who may import another folder all the same."""
THIRD_PARTY = {
    "models": {"numpy", "platformdirs"},
    "export": {
        *("numpy", "torch", "transformers", "onnx", "onnxscript", "onnxruntime", "gguf", "llama_cpp", "soxr"),
        *("gptqmodel", "safetensors", "sentencepiece", "tokenizers", "tensorrt", "peft", "onnx_ir", "huggingface_hub"),
        "av",
    },
    "runtime": {"numpy", "onnxruntime", "llama_cpp", "sounddevice", "av", "soxr", "rich", "wcwidth"},
    "bench": {"numpy", "rich", "jiwer", "onnx", "onnxruntime", "matplotlib", "llama_cpp"},
}
OF_SERVER = {"starlette", "uvicorn", "h11", "prometheus_client", "wyoming", "zeroconf"}
OF_CLUSTER = {"ray"}
OF_SERVING = {"websockets"}
OF_PEERS = {"torch", "transformers", "ctranslate2", "faster_whisper", "transcribe_cpp", "_pywhispercpp", "gguf"}
MAX_FILES, MAX_LINES, MAX_FUNCTION = 15, 400, 60
MAX_TUPLE_ASSIGNMENTS = 5.0  # of one tuple to another, per 1,000 lines
ROOT = Path(__file__).parent.parent


def place(folder: str) -> Path:
    return Path(str(resources.files(f"auricle.{folder}")))


def sources() -> list[tuple[str, str]]:
    """(folder, path below it) of every file of the package."""
    return [(top, str(path.relative_to(place(top)))) for top in FOLDERS for path in sorted(place(top).rglob("*.py"))]


def module_of(folder: str, path: str) -> tuple[str, ...]:
    parts = (folder, *Path(path).with_suffix("").parts)
    return parts[:-1] if parts[-1] == "__init__" else parts


MODULES = {module_of(folder, path): (folder, path) for folder, path in sources()}


@cache
def tree_of(folder: str, path: str) -> ast.Module:
    return ast.parse((place(folder) / path).read_text(encoding="utf-8"))


@cache
def imports(folder: str, path: str) -> tuple[tuple[bool, tuple[str, ...]], ...]:
    """(ours, dotted parts) of every import in a file, wherever it stands; ours begin with the folder."""
    found: list[tuple[bool, tuple[str, ...]]] = []
    package = (folder, *Path(path).parts[:-1])
    for node in ast.walk(tree_of(folder, path)):
        if isinstance(node, ast.Import):
            found += [(False, tuple(alias.name.split("."))) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.append((False, tuple((node.module or "").split("."))))
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] + tuple(
                (node.module or "").split(".") if node.module else ()
            )
            found += [(True, (*base, alias.name)) for alias in node.names]
    return tuple(found)


def imported_modules(folder: str, path: str) -> set[tuple[str, ...]]:
    """The files of ours that a file imports."""
    named = [parts for ours, parts in imports(folder, path) if ours]
    return {parts if parts in MODULES else parts[:-1] for parts in named} & MODULES.keys()


def test_the_rules_see_every_file() -> None:
    assert len(MODULES) > 200 and {"encoders", "families"} <= {path.split("/")[0] for _, path in sources()}
    assert ("runtime", "system", "ort") in imported_modules("export", "graphs/onnx_graph.py")
    assert ("runtime", "llm", "session") in imported_modules("runtime", "engine.py")


@pytest.mark.parametrize(("folder", "path"), sources())
def test_imports_follow_the_arrows(folder: str, path: str) -> None:
    name = f"{folder}/{path}"
    level = {word: number for number, line in enumerate(LAYERS[folder]) for word in line.split()}
    floor = Path(path).parts[0].removesuffix(".py")
    assert floor in level or floor == "__init__", f"{name} stands on no floor: give it one in LAYERS"
    for ours, parts in imports(folder, path):
        if not ours:
            allowed = THIRD_PARTY[folder] | set(sys.stdlib_module_names) | {"__future__"}
            allowed |= OF_SERVER if name.startswith("runtime/server/") else set()
            allowed |= OF_CLUSTER if name.startswith("runtime/cluster/") else set()
            allowed |= OF_SERVING if name == "bench/live/serve.py" else set()
            allowed |= OF_PEERS if name.startswith("bench/peers/") else set()
            assert parts[0] in allowed, f"{name} imports {'.'.join(parts)}"
        elif parts[0] != folder:
            excused = any(name.startswith(place) and parts[0] == other for place, other in EXCEPTIONS)
            assert parts[0] in MAY_IMPORT[folder] or excused, f"{name} imports {'.'.join(parts)}"
        elif floor in level and parts[1] != floor and len(parts) > 1:
            assert level[parts[1]] <= level[floor], f"{name} imports {'.'.join(parts)}, which stands above it"
            assert (floor, parts[1]) != ("server", "cli") and parts[1] != "cluster", name


def test_no_file_imports_itself_by_a_detour() -> None:
    """Kahn's algorithm: what is left when files without imports are taken away, again and again, is a circle."""
    left = {module: imported_modules(*MODULES[module]) - {module} for module in MODULES}
    left = {
        module: {other for other in others if MODULES[other][1].split("/")[-1] != "__init__.py"}
        for module, others in left.items()
    }
    while free := {module for module, others in left.items() if not others & left.keys()}:
        left = {module: others for module, others in left.items() if module not in free}
    assert not left, f"these import each other: {sorted('.'.join(module) for module in left)}"


@pytest.mark.parametrize(("folder", "path"), sources())
def test_files_and_functions_stay_readable(folder: str, path: str) -> None:
    text = (place(folder) / path).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES, f"{folder}/{path} is two things: find the second one's name"
    for node in ast.walk(tree_of(folder, path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= MAX_FUNCTION, f"{folder}/{path}: {node.name} has {length} lines"


@pytest.mark.parametrize("top", [*FOLDERS, "tests"])
def test_folders_stay_small(top: str) -> None:
    start = ROOT / "tests" if top == "tests" else place(top)
    for folder in [start, *(path for path in start.rglob("*") if path.is_dir())]:
        names = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(names) <= MAX_FILES, f"{folder}: {len(names)} files; find the floor that is missing"


@pytest.mark.parametrize("folder", FOLDERS)
def test_one_assignment_a_line(folder: str) -> None:
    """Of a tuple to a tuple: fine for values that belong together, a habit that hides them elsewhere."""
    lines = assigned = 0
    for top, path in sources():
        if top != folder:
            continue
        lines += sum(bool(line.strip()) for line in (place(top) / path).read_text(encoding="utf-8").splitlines())
        assigned += sum(
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Tuple)
            and isinstance(node.value, ast.Tuple)
            for node in ast.walk(tree_of(top, path))
        )
    assert assigned <= MAX_TUPLE_ASSIGNMENTS * lines / 1000, f"{folder}: {assigned} in {lines} lines"


def test_public_classes_have_names_of_their_own() -> None:
    seen: dict[str, str] = {}
    for folder, path in sources():
        if folder != "runtime":
            continue
        for node in tree_of(folder, path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                assert node.name not in seen, f"{path} and {seen[node.name]} both have a class {node.name}"
                seen[node.name] = path


@pytest.mark.parametrize(("folder", "path"), sources())
def test_tools_of_tests_stay_in_tests(folder: str, path: str) -> None:
    assert not any(parts[0] in ("unittest", "pytest") for ours, parts in imports(folder, path) if not ours)


def test_pyproject_lists_the_whole_tree() -> None:
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    packages = {".".join(("auricle", *module_of(*item))) for item in sources() if item[1].endswith("__init__.py")}
    assert set(setup["packages"]) == packages | {"auricle"}  # which holds `python -m auricle` alone
    assert [path.name for path in (ROOT / "auricle").glob("*.py")] == ["__main__.py"]
    data = {path for top in FOLDERS for path in (ROOT / top).rglob("*") if path.is_file() and not _made(path)}
    listed = {
        path
        for package, patterns in setup["package-data"].items()
        for pattern in patterns
        for path in (ROOT / Path(*package.split(".")[1:])).glob(pattern)
        if path.is_file()
    }
    left_out = {str(path.relative_to(ROOT)) for path in data - listed}
    assert all(path.startswith("bench/results/") for path in left_out), f"not in the wheel: {sorted(left_out)}"


def _made(path: Path) -> bool:
    return path.suffix in (".py", ".pyc") or "__pycache__" in path.parts


def constants(folder: str, path: str) -> list[list[object]]:
    """The string constants of each expression in a file, those of one tuple, list, set or dict together."""
    kinds = (ast.Tuple, ast.List, ast.Set, ast.Dict, ast.Constant)
    nodes = [node for node in ast.walk(tree_of(folder, path)) if isinstance(node, kinds)]
    return [[c.value for c in ast.walk(node) if isinstance(c, ast.Constant)] for node in nodes]


@pytest.mark.parametrize(("folder", "path"), sources())
def test_contracts_names_are_written_once(folder: str, path: str) -> None:
    """Inputs and outputs of the graphs, the list of GGUF types. The demo's own caches may be called as they like, a
    bench's stages too, and OpenAI's fields as its API calls them."""
    if folder == "models" or path.startswith(("training/", "server/openai/")):
        return
    names: set[str] = set() if folder == "bench" else {whisper.INPUT, beats.INPUT, qformer.OUTPUT}
    for together in constants(folder, path):
        assert not names & set(together), f"{folder}/{path}: models/ has constants for these names"
        assert len(LLM_TYPES.keys() & set(together)) < 3, f"{folder}/{path}: models/llm.py has LLM_TYPES"


def test_types_of_the_language_model_are_the_same_everywhere() -> None:
    from auricle.export.__main__ import parser

    document = (Path(__file__).parent.parent / "docs" / "export.md").read_text(encoding="utf-8")
    assert f"--llm {'|'.join((*LLM_TYPES, *GPTQ_TYPES, KEEP))}]" in document
    shares = " ".join(document.split())
    for name, kind in LLM_TYPES.items():
        assert f"{name} {kind.agreement:.0%}".replace("%", " %") in shares.replace("f32 and f16", "f32 90 % f16"), name
    for name in (*LLM_TYPES, *GPTQ_TYPES, KEEP):
        words = ["salmonn", "--whisper", "w", "--beats", "b", "--vicuna", "v", "--salmonn", "s", "--out", "o", "--llm"]
        assert parser().parse_args([*words, name]).llm == name


def test_the_bench_offers_every_model_and_part() -> None:
    from auricle.bench import options
    from auricle.models.families import salm, salmonn

    assert (*salmonn.RELEASED, *salm.RELEASED, "demo") == options.MODELS
    keys = _keys_of(tree_of("bench", "peers/worker.py"), "PARTS")
    assert set(options.PARTS) == {node.value for node in keys}


def _keys_of(module: ast.Module, name: str) -> list[ast.Constant]:
    """The keys of a dict that a module assigns to a name."""
    for node in module.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict) and ast.unparse(node.targets[0]) == name:
            return [key for key in node.value.keys if isinstance(key, ast.Constant)]
    return []


def documents() -> list[Path]:
    root = Path(__file__).parent.parent
    return [
        root / "README.md",
        root / "CHANGELOG.md",
        root / "CONTRIBUTING.md",
        root / "SECURITY.md",
        *sorted(root.glob("models/*/README.md")),
        *sorted(root.glob("docs/*.md")),
    ]


def prose(path: Path) -> str:
    """A document without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """A document's headings, as GitHub makes anchors of them."""
    headings = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_of_documents_resolve(path: Path) -> None:
    """Files and headings; addresses in the web are not asked."""
    for link in re.findall(r"\]\(\s*([^)\s]+)\s*\)", prose(path)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), f"{path.name}: {link} is not there"
        assert not anchor or anchor in anchors(target), f"{path.name}: {link} names no heading"


def test_every_page_is_on_the_map() -> None:
    docs = ROOT / "docs"
    listed = set(re.findall(r"\]\(([\w.-]+\.md)\)", (docs / "README.md").read_text(encoding="utf-8")))
    assert {path.name for path in docs.glob("*.md")} - {"README.md"} <= listed


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_paths_that_documents_name_are_there(path: Path) -> None:
    """But for what a changelog remembers, what the reference says of other people's trees, and an example's files."""
    if path.name in ("CHANGELOG.md", "reference.md"):
        return
    for name in re.findall(
        r"`((?:models|export|runtime|bench|tests|scripts)/[\w./-]+)`", path.read_text(encoding="utf-8")
    ):
        assert (ROOT / name).exists() or "naturelm" in name, f"{path.name} names {name}, which is not there"


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_have_no_placeholders(path: Path) -> None:
    found = re.findall("@[A-Z]+@", path.read_text(encoding="utf-8"))
    assert not found, f"{path.name} still lacks {found}"


def test_the_page_on_adding_a_model_is_true() -> None:
    """Every file that it names is there, and what it names in it, but for the files of the example."""
    root = Path(__file__).parent.parent
    text = (root / "docs/adding-a-model.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:models|export|runtime|bench|tests)/[\w./]+\.(?:py|json))`(?: `([A-Za-z_]+)`)?", text)
    known = [(name, word) for name, word in named if "naturelm" not in name]
    assert len(known) > 15
    for name, word in known:
        assert (root / name).is_file(), name
        assert word in (root / name).read_text(encoding="utf-8"), f"{name} has no {word}"


@pytest.mark.parametrize("module", ["runtime", "runtime.cluster", "export", "bench"])
def test_help_does_not_wait_for_heavy_imports(module: str) -> None:
    command = [sys.executable, "-X", "importtime", "-m", f"auricle.{module}", "--help"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = {line.rsplit("|", 1)[-1].strip() for line in run.stderr.splitlines()}
    heavy = {"torch", "transformers", "onnx", "onnxruntime", "llama_cpp", "av", "soxr", "numpy", "rich", "gguf"}
    heavy |= OF_SERVER | OF_CLUSTER
    assert not loaded & heavy
    assert "usage" in run.stdout


def test_schema_file_says_what_the_dataclasses_say() -> None:
    from auricle.models.bundle import Manifest
    from auricle.models.dataclass_json import json_schema

    written = json.loads((resources.files("auricle.models") / "manifest.schema.json").read_text(encoding="utf-8"))
    assert written == json_schema(Manifest, "Auricle bundle manifest, schema version 3")
