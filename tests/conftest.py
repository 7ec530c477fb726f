"""What several tests share: the golden data and the bundle exported from it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from network_guard import sitecustomize as guard

GOLDEN = Path(__file__).parent / "golden"
CLIPS = ("jfk_11s", "noise_1s", "tone_30s")
BUILT = Path(__file__).parent.parent / "build" / "golden-bundle"
BUILT_SALM = BUILT.with_name("golden-salm-bundle")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--without-torch",
        action="store_true",
        help="the environment of a user: no torch, no exporter; the golden bundle must lie in build/ already",
    )


@pytest.fixture(scope="session")
def connects(tmp_path_factory: pytest.TempPathFactory) -> Generator[Path]:
    """Where this process and those it starts write a line for each connection that no test may make."""
    record = tmp_path_factory.mktemp("network") / "connects.txt"
    record.touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AURICLE_TEST_CONNECTS", str(record))
        patch.setenv(
            "PYTHONPATH", os.pathsep.join([str(Path(guard.__file__).parent), os.environ.get("PYTHONPATH", "")])
        )
        guard.watch(str(record))
        yield record


@pytest.fixture(autouse=True)
def no_network(connects: Path) -> Generator[None]:
    """Fails a test that connects to anything but a server of its own on this machine."""
    yield
    made = connects.read_text(encoding="utf-8")
    connects.write_text("", encoding="utf-8")
    assert not made, f"the network was asked: {made}"


@pytest.fixture(scope="session")
def golden() -> Path:
    """Golden checkpoints and expected outputs; see tests/golden/README.md."""
    return GOLDEN


@pytest.fixture(params=CLIPS)
def clip(request: pytest.FixtureRequest) -> dict[str, np.ndarray]:
    """One golden clip: name -> array, in turn each of the three."""
    with np.load(GOLDEN / "salmonn-tiny" / f"{request.param}.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


@pytest.fixture(scope="session")
def golden_bundle(request: pytest.FixtureRequest) -> Path:
    """The golden checkpoint exported at fp32, f32, with merged LoRA and adapter. Read-only: copy it to spoil it."""
    if request.config.getoption("--without-torch"):
        assert (BUILT / "manifest.json").is_file(), f"run the suite with torch first: it writes {BUILT}"
        return BUILT
    from auricle.export.__main__ import main

    shutil.rmtree(BUILT, ignore_errors=True)
    shutil.rmtree(BUILT.with_name(BUILT.name + ".partial"), ignore_errors=True)
    BUILT.parent.mkdir(exist_ok=True)
    status = main(export_arguments(BUILT))
    assert status == 0
    return BUILT


@pytest.fixture(scope="session")
def merged_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo bundle without its adapter: the LoRA is in its weights, and nothing can take it out. Read-only."""
    from auricle.models.bundle import shipped_bundle

    merged = tmp_path_factory.mktemp("merged") / "demo"
    shutil.copytree(shipped_bundle(), merged)
    manifest = json.loads((merged / "manifest.json").read_text(encoding="utf-8"))
    manifest["llm"]["adapter"] = None
    (merged / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return merged


@pytest.fixture(scope="session")
def salm_bundle(request: pytest.FixtureRequest) -> Path:
    """The golden SALM checkpoint exported at fp32, f32, merged LoRA and adapter. Read-only: copy it to spoil it."""
    if request.config.getoption("--without-torch"):
        assert (BUILT_SALM / "manifest.json").is_file(), f"run the suite with torch first: it writes {BUILT_SALM}"
        return BUILT_SALM
    from auricle.export.__main__ import main

    for leftover in (BUILT_SALM, BUILT_SALM.with_name(BUILT_SALM.name + ".partial")):
        shutil.rmtree(leftover, ignore_errors=True)
    BUILT_SALM.parent.mkdir(exist_ok=True)
    assert main(salm_arguments(BUILT_SALM)) == 0
    return BUILT_SALM


def salm_arguments(out: Path, **changed: str) -> list[str]:
    """The command line that exports the golden SALM; keyword arguments replace or add options."""
    checkpoint = GOLDEN / "salm-tiny" / "checkpoint"
    options = {"checkpoint": str(checkpoint), "qwen": str(checkpoint / "qwen3"), "out": str(out)}
    options |= {"encoders": "fp32", "llm": "f32", "lora": "both"} | changed
    return ["salm", *(word for name, value in options.items() for word in (f"--{name}", value))]


@pytest.fixture(params=("jfk_11s", "noise_1s", "tone_40s"))
def salm_clip(request: pytest.FixtureRequest) -> dict[str, np.ndarray]:
    """One golden clip of SALM: name -> array, in turn each of the three."""
    with np.load(GOLDEN / "salm-tiny" / f"{request.param}.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


def export_arguments(out: Path, **changed: str) -> list[str]:
    """The command line that exports the golden checkpoint; keyword arguments replace or add options."""
    checkpoint = GOLDEN / "salmonn-tiny" / "checkpoint"
    options = {
        "whisper": str(checkpoint / "whisper"),
        "beats": str(checkpoint / "beats.pt"),
        "vicuna": str(checkpoint / "vicuna"),
        "salmonn": str(checkpoint / "salmonn.pth"),
        "qformer-heads": "4",
        "encoders": "fp32",
        "llm": "f32",
        "lora": "both",
        "out": str(out),
    }
    options.update({name.replace("_", "-"): value for name, value in changed.items()})
    return ["salmonn", *(word for name, value in options.items() for word in (f"--{name}", value))]


@pytest.fixture(scope="session")
def parts(golden: Path) -> SimpleNamespace:
    """The golden checkpoint's encoders in torch: whisper, beats, qformer (LoadedQFormer) and their specs."""
    pytest.importorskip("torch")
    from auricle.export.encoders.beats import load_beats
    from auricle.export.encoders.qformer import QFormerOptions, load_qformer
    from auricle.export.encoders.whisper import load_whisper
    from auricle.export.formats.checkpoint import load_section

    checkpoint = golden / "salmonn-tiny" / "checkpoint"
    whisper_spec, whisper = load_whisper(checkpoint / "whisper")
    beats_spec, beats = load_beats(checkpoint / "beats.pt")
    state = load_section(checkpoint / "salmonn.pth", "model", "a SALMONN checkpoint")
    qformer = load_qformer(state, whisper_spec, beats_spec, QFormerOptions(n_heads=4))
    return SimpleNamespace(
        whisper=whisper, beats=beats, qformer=qformer, state=state, whisper_spec=whisper_spec, beats_spec=beats_spec
    )


@pytest.fixture(scope="session")
def graphs(parts: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The three encoder graphs in float32, exported from the golden checkpoint. Read-only."""
    from auricle.export.encoders.beats import export_beats
    from auricle.export.encoders.qformer import export_qformer
    from auricle.export.encoders.whisper import export_whisper

    folder = tmp_path_factory.mktemp("graphs")
    paths = {name: folder / f"{name}.onnx" for name in ("whisper", "beats", "qformer")}
    export_whisper(parts.whisper, parts.qformer.ln_speech, parts.whisper_spec, paths["whisper"])
    export_beats(parts.beats, parts.qformer.ln_audio, paths["beats"])
    export_qformer(parts.qformer.folded(), paths["qformer"])
    return paths


@pytest.fixture(scope="session")
def features(parts: SimpleNamespace, golden: Path) -> dict[str, dict[str, np.ndarray]]:
    """Real speech as each graph hears it: graph name -> its inputs."""
    import torch

    with np.load(golden / "salmonn-tiny" / "jfk_11s.npz") as arrays, torch.no_grad():
        speech = parts.qformer.ln_speech(torch.from_numpy(arrays["speech_encoder"][None])).numpy()
        audio = parts.qformer.ln_audio(torch.from_numpy(arrays["audio_encoder"][None])).numpy()
        return {
            "whisper": {"log_mel": arrays["log_mel"][None]},
            "beats": {"fbank": arrays["fbank"][None].astype(np.float32)},
            "qformer": {"speech": speech, "audio": audio},
        }


@pytest.fixture
def spoken(tmp_path: Path) -> Path:
    """Where `say` writes what it is given, a line each."""
    return tmp_path / "spoken.txt"


@pytest.fixture(scope="module")
def vicuna() -> Any:
    """The golden SALMONN's language model, opened, and its LoRA: Llm, Lora."""
    pytest.importorskip("torch")
    from auricle.export.formats.checkpoint import load_section
    from auricle.export.llm.export import read_llm
    from auricle.export.llm.lora import read_lora

    checkpoint = GOLDEN / "salmonn-tiny" / "checkpoint"
    state = load_section(checkpoint / "salmonn.pth", "model", "a SALMONN checkpoint")
    return read_llm(checkpoint / "vicuna"), read_lora(state, alpha=32.0)


@pytest.fixture(scope="module")
def qwen() -> Any:
    """The golden SALM's language model, opened, and its LoRA: Llm, Lora."""
    pytest.importorskip("torch")
    from auricle.export.formats.checkpoint import open_weights, read_json
    from auricle.export.llm.export import read_salm_llm
    from auricle.export.llm.lora import read_salm_lora, salm_lora_spec

    checkpoint = GOLDEN / "salm-tiny" / "checkpoint"
    weights, config = open_weights(checkpoint), read_json(checkpoint / "config.json")
    return read_salm_llm(weights, checkpoint / "qwen3"), read_salm_lora(weights, salm_lora_spec(config))
