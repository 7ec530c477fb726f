"""The doctor names what is wrong and its remedy, and never falls ill itself."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from auricle.models.errors import INSTALL_WHERE
from auricle.runtime.cli import doctor
from auricle.runtime.cli.doctor import Finding, run_doctor

RUN = "import sys; from auricle.runtime.cli.doctor import run_doctor; sys.exit(run_doctor(as_json={}))"
ILL = {
    "is not installed": "raise ModuleNotFoundError(\"No module named '{name}'\")",
    "libgomp.so.1": "raise OSError('libgomp.so.1: cannot open shared object file')",
    "SIGILL": "import os, signal; os.kill(os.getpid(), signal.SIGILL)",
    "two lines": "raise RuntimeError('first\\ntwo lines')",
    "cannot be imported": "import os; os._exit(3)",
}


def consult(stubs: Path, as_json: bool = True) -> tuple[int, dict[str, dict[str, Any]], str]:
    """Run the doctor in a process of its own where the modules in `stubs` hide the real ones."""
    done = subprocess.run(
        [sys.executable, "-c", RUN.format(as_json)],
        env=os.environ | {"PYTHONPATH": str(stubs)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    found = {row["subject"]: row for row in json.loads(done.stdout)} if as_json else {}
    return done.returncode, found, done.stdout


def test_this_machine_can_caption(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_doctor(as_json=True) == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    findings = {row["subject"]: Finding(**row) for row in rows}
    for subject in ("python", "cores", "av", "soxr", "onnxruntime", "provider cpu", "llama.cpp"):
        assert findings[subject].status in ("ok", "warning"), findings[subject]
        assert "\n" not in findings[subject].text
    assert "onnxruntime 1." in findings["onnxruntime"].text and "CPU" in findings["onnxruntime"].text
    assert findings["provider cpu"].text == "starts"


@pytest.mark.parametrize("words", ILL)
def test_every_way_a_package_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    (tmp_path / "llama_cpp.py").write_text(ILL[words].format(name="llama_cpp"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    finding = doctor._llama("none")
    assert finding.status == "broken" and finding.remedy.startswith("pip install llama-cpp-python==")
    assert words in finding.text and "\n" not in finding.text
    assert "--extra-index-url https://abetlen.github.io/llama-cpp-python/whl/cpu" in finding.remedy


def test_nothing_is_there_at_all(tmp_path: Path) -> None:
    for module in ("av", "soxr", "onnxruntime", "llama_cpp", "sounddevice", "numpy", "rich"):
        (tmp_path / f"{module}.py").write_text(ILL["is not installed"].format(name=module))
    status, found, _ = consult(tmp_path)
    assert status == 1
    broken = {subject for subject, row in found.items() if row["status"] == "broken"}
    assert broken == {"av", "soxr", "onnxruntime", "llama.cpp"}
    assert "pip install '.[c" in found["onnxruntime"]["remedy"] and INSTALL_WHERE in found["onnxruntime"]["remedy"]
    bounded = next(line for line in importlib.metadata.requires("auricle") or [] if line.startswith("av"))
    assert found["av"]["remedy"] == f"pip install --force-reinstall '{bounded}'"
    text = consult(tmp_path, as_json=False)[2]
    assert text.splitlines()[-1] == "Not ready: mend av, soxr, onnxruntime, llama.cpp."


def test_the_servers_packages_are_named_with_what_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    version = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: "1.0")  # pyright: ignore[reportUnknownLambdaType]
    whole = {row.subject: row for row in doctor.examine()}
    assert whole["server"].status == whole["wyoming"].status == "ok"
    assert "uvicorn 1.0" in whole["server"].text and whole["wyoming"].text.endswith("for auricle serve --wyoming")
    monkeypatch.setattr(doctor, "_version", lambda name: version("no-such-package"))  # pyright: ignore[reportUnknownLambdaType]
    bare = {row.subject: row for row in doctor.examine()}
    for subject, missing in (("server", "starlette, uvicorn, websockets"), ("wyoming", "wyoming, zeroconf")):
        assert bare[subject].status == "warning" and bare[subject].text.startswith(missing)
        assert bare[subject].remedy.startswith("pip install '.[serve]'")


def test_two_onnxruntimes_are_a_broken_install(tmp_path: Path) -> None:
    info = tmp_path / "onnxruntime_gpu-1.31.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.31.1\n")
    (info / "top_level.txt").write_text("onnxruntime\n")
    status, found, _ = consult(tmp_path)
    assert status == 1 and found["onnxruntime"]["status"] == "broken"
    assert found["onnxruntime"]["text"].startswith("onnxruntime and onnxruntime-gpu are both installed")
    assert found["onnxruntime"]["remedy"].startswith("pip uninstall -y onnxruntime onnxruntime-gpu\npip install")


def microphone(monkeypatch: pytest.MonkeyPatch, loaded: object) -> Finding:
    def load(_module: str) -> object:
        return loaded

    monkeypatch.setattr(doctor, "_load", load)
    return doctor._microphone()


def test_portaudio_and_microphones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    missing = doctor._microphone()
    assert missing.status == "warning" and "PortAudio library not found" in missing.text
    assert missing.remedy in ("apt-get install libportaudio2", "brew install portaudio")
    speaker, mic = {"name": "out", "max_input_channels": 0}, {"name": "USB mic", "max_input_channels": 1}
    none = microphone(monkeypatch, SimpleNamespace(query_devices=lambda: [speaker]))
    assert none.status == "warning" and "no input device" in none.text
    one = microphone(monkeypatch, SimpleNamespace(query_devices=lambda: [speaker, mic]))
    assert one == Finding("microphone", "ok", "1 input device: USB mic")

    def no_host() -> None:
        os.write(2, b"ALSA lib confmisc.c: cannot find card\n")
        raise OSError("no\nhost")

    assert "no host" in microphone(monkeypatch, SimpleNamespace(query_devices=no_host)).text
    assert capfd.readouterr() == ("", "")


def llama(monkeypatch: pytest.MonkeyPatch, offloads: bool, gpu: str, system: str) -> Finding:
    def load(_module: str) -> object:
        return SimpleNamespace(__version__="0.3.36", llama_supports_gpu_offload=lambda: offloads)

    monkeypatch.setattr(doctor, "_load", load)
    monkeypatch.setattr(doctor.platform, "system", lambda: system)
    return doctor._llama(gpu)


def test_an_unused_gpu_is_shown_how_to_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia = llama(monkeypatch, False, "nvidia", "Linux")
    assert nvidia.status == "warning" and "NVIDIA" in nvidia.text
    assert 'CMAKE_ARGS="-DGGML_CUDA=on" pip install' in nvidia.remedy and "VULKAN" not in nvidia.remedy
    apple = llama(monkeypatch, False, "apple", "Darwin")
    assert apple.status == "warning" and "-DGGML_METAL=on" in apple.remedy
    none = llama(monkeypatch, False, "none", "Linux")
    assert none.status == "ok" and "-DGGML_VULKAN=on" in none.remedy and "METAL" not in none.remedy
    assert llama(monkeypatch, True, "nvidia", "Linux").remedy == ""


def test_a_backend_without_its_card_is_told_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libggml-cuda.so").touch()
    module = SimpleNamespace(
        __version__="0.3.36", __file__=str(tmp_path / "__init__.py"), llama_supports_gpu_offload=lambda: False
    )
    monkeypatch.setattr(doctor, "_load", lambda _module: module)
    found = doctor._llama("none")
    assert found.status == "warning" and "built with CUDA, which finds no GPU" in found.text
    assert found.remedy == "Install or update the GPU's driver."


def test_an_nvidia_gpu_with_a_cpu_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    findings = doctor._providers("nvidia", "onnxruntime")
    last = findings[-1]
    if last.subject == "provider cuda" and last.status == "warning":
        assert last.remedy == f"pip uninstall -y onnxruntime\npip install '.[cuda]'  # {INSTALL_WHERE}"


def test_text_goes_with_its_remedy(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [Finding("a", "ok", "fine"), Finding("long name", "warning", "hm", "do this\nand that")]
    monkeypatch.setattr(doctor, "examine", lambda: rows)
    assert run_doctor() == 0
    out = capsys.readouterr().out
    assert out == (
        "ok       a          fine\n"
        "warning  long name  hm\n"
        "                    do this\n"
        "                    and that\n"
        "\nReady: captioning a file works here.\n"
    )
