"""`auricle doctor`: this machine -> what it has, in plain words, and the remedy for what it lacks.

Nothing here may fail because something is missing: that is what it is asked to find. Native packages are
imported in a child process first: a wheel built for another processor kills whoever imports it. No network.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ...models.errors import INSTALL_WHERE, install_command
from ..system.machine import cpu_quota, usable_cores
from ..system.stderr import silenced_stderr

Status = Literal["ok", "warning", "broken"]
IMPORT_SECONDS = 60.0  # a child that needs longer to import a package hangs
LOW_MEMORY_GB = 1.0  # the demo bundle and its working memory fit in this; a 7B model needs 5 and more

_NO_VERSION = "of unknown version"
_SERVER = ("starlette", "uvicorn", "websockets", "python-multipart", "prometheus-client")
_WYOMING = ("wyoming", "zeroconf")
_LLAMA_PIN = "llama-cpp-python==0.3.36"
_LLAMA_WHEELS = "https://abetlen.github.io/llama-cpp-python/whl/cpu"  # its maker's, for who cannot compile
_LLAMA_FLAGS = {"CUDA": "-DGGML_CUDA=on", "Vulkan": "-DGGML_VULKAN=on", "Metal": "-DGGML_METAL=on"}


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    subject: str
    status: Status
    """broken: captioning a file cannot work; warning: something else cannot, or not at full speed."""
    text: str
    remedy: str = ""
    """What to do, commands included; empty when nothing needs doing."""


def examine() -> list[Finding]:
    """Look at everything; needs a few seconds. Never raises."""
    gpu = _gpu()
    return [
        Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        _cores(),
        *_memory(),
        _package("av", "reads audio and video files"),
        _package("soxr", "converts sample rates"),
        *_onnxruntime(gpu),
        _llama(gpu),
        _microphone(),
        _system_sound(),
        _distributed("server", _SERVER, "auricle serve"),
        _distributed("wyoming", _WYOMING, "auricle serve --wyoming"),
        _demo_bundle(),
    ]


def run_doctor(as_json: bool = False) -> int:
    """Print what examine finds, as text or one JSON list; 1 when captioning a file cannot work, else 0."""
    findings = examine()
    broken = [finding.subject for finding in findings if finding.status == "broken"]
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
        return 1 if broken else 0
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        print(f"{finding.status:<8} {finding.subject:<{width}}  {finding.text}")
        if finding.remedy:
            print(textwrap.indent(finding.remedy, " " * (width + 11)))
    print(f"\nNot ready: mend {', '.join(broken)}." if broken else "\nReady: captioning a file works here.")
    return 1 if broken else 0


def _cores() -> Finding:
    n_cores = os.cpu_count() or 1
    text = f"{usable_cores()} of {n_cores} usable"
    if (quota := cpu_quota()) is not None:
        text += f", limited to the time of {quota:.1f}"
    return Finding("cores", "ok", text)


def _memory() -> list[Finding]:
    """Nothing where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        values = {name: int(rest.split()[0]) * 1024 for name, rest in (line.split(":") for line in lines)}
        free = values["MemAvailable"]
        total = values["MemTotal"]
        with contextlib.suppress(OSError, ValueError):
            limit = int(Path("/sys/fs/cgroup/memory.max").read_text("ascii"))
            used = int(Path("/sys/fs/cgroup/memory.current").read_text("ascii"))
            free = min(free, limit - used)
            total = min(total, limit)
    except (OSError, ValueError, KeyError, IndexError):
        return []
    text = f"{free / 1e9:.1f} GB free of {total / 1e9:.1f}"
    if free < LOW_MEMORY_GB * 1e9:
        return [Finding("memory", "warning", text, "Close other programs: the demo model alone needs most of this.")]
    return [Finding("memory", "ok", text)]


def _package(module: str, purpose: str) -> Finding:
    loaded = _load(module)
    if isinstance(loaded, str):
        return Finding(module, "broken", f"{loaded} ({purpose})", _reinstall(module))
    return Finding(module, "ok", f"{_version(module)}, {purpose}")


def _install(extras: str) -> str:
    return f"{install_command(extras)}  # {INSTALL_WHERE}"


def _reinstall(distribution: str) -> str:
    """With the bounds that Auricle's own metadata gives, so that no newer major comes."""
    with contextlib.suppress(Exception):  # a copied source tree has no metadata
        for line in importlib.metadata.requires("auricle") or []:
            if found := re.match(rf"{distribution}\s*([<>=][^;\s]*)", line):
                return f"pip install --force-reinstall '{distribution}{found[1]}'"
    return f"pip install --force-reinstall {distribution}"


def _onnxruntime(gpu: str) -> list[Finding]:
    """The installed distribution, then one finding for each provider worth a word."""
    extra = "cuda" if gpu == "nvidia" else "cpu"
    names = _distributions("onnxruntime")
    if len(names) > 1:
        remedy = f"pip uninstall -y {' '.join(names)}\n{_install(extra)}"
        text = f"{' and '.join(names)} are both installed and overwrite each other's files"
        return [Finding("onnxruntime", "broken", text, remedy)]
    loaded = _load("onnxruntime")
    if isinstance(loaded, str):
        removal = f"pip uninstall -y {names[0]}\n" if names else ""
        remedy = f"{removal}{_install(extra)}"
        return [Finding("onnxruntime", "broken", f"{loaded} (runs the encoders)", remedy)]
    name = names[0] if names else "onnxruntime"
    text = f"{name} {getattr(loaded, '__version__', '')}, runs the encoders"
    with contextlib.suppress(Exception):  # _providers says what is wrong with it
        compiled_in: list[str] = loaded.get_available_providers()
        text += f"; compiled in: {', '.join(p.removesuffix('ExecutionProvider') for p in compiled_in)}"
    return [Finding("onnxruntime", "ok", text), *_providers(gpu, name)]


def _providers(gpu: str, distribution: str) -> list[Finding]:
    try:
        from ..system.ort import PROVIDERS, probe

        compiled_in: list[str] = importlib.import_module("onnxruntime").get_available_providers()
        findings: list[Finding] = []
        for short, name in PROVIDERS.items():
            if short != "cpu" and name not in compiled_in:
                continue
            reason = probe(short)
            status: Status = "ok" if reason is None else "broken" if short == "cpu" else "warning"
            text = "starts" if reason is None else f"is in this onnxruntime but does not start: {reason}"
            findings.append(Finding(f"provider {short}", status, text, _provider_remedy(short) if reason else ""))
    except Exception as error:  # whatever a broken onnxruntime raises is the finding
        return [Finding("providers", "broken", _one_line(error), _reinstall("onnxruntime"))]
    if gpu == "nvidia" and "CUDAExecutionProvider" not in compiled_in:
        remedy = f"pip uninstall -y {distribution}\n{_install('cuda')}"
        findings.append(Finding("provider cuda", "warning", "this machine's NVIDIA GPU is not used", remedy))
    return findings


def _provider_remedy(name: str) -> str:
    remedies = {
        "cuda": f"{_install('cuda')}\nThis brings CUDA and cuDNN; the NVIDIA driver comes from your system.",
        "tensorrt": "for --provider tensorrt alone: install TensorRT 10, its lib folder on LD_LIBRARY_PATH",
        "cpu": _reinstall("onnxruntime"),
    }
    return remedies.get(name, "")


def _llama(gpu: str) -> Finding:
    with silenced_stderr():  # a backend without its card says so there
        loaded = _load("llama_cpp")
    if isinstance(loaded, str):
        remedy = (
            f"pip install {_LLAMA_PIN}  # compiles for minutes; needs a C++ compiler\n"
            f"Without a compiler, the wheels that its maker built:\n"
            f"pip install --only-binary llama-cpp-python --extra-index-url {_LLAMA_WHEELS} {_LLAMA_PIN}"
        )
        return Finding("llama.cpp", "broken", f"{loaded} (runs the language model)", remedy)
    version = f"llama-cpp-python {getattr(loaded, '__version__', '')}"
    try:
        with silenced_stderr():
            offloads = bool(loaded.llama_supports_gpu_offload())
    except Exception as error:  # an old or foreign build: it may still compute
        return Finding("llama.cpp", "warning", f"{version} does not say what it can do: {_one_line(error)}")
    if offloads:
        return Finding("llama.cpp", "ok", f"{version}, can compute on a GPU")
    libraries = Path(getattr(loaded, "__file__", None) or "").parent / "lib"
    idle = [name for name in _LLAMA_FLAGS if any(libraries.glob(f"*ggml-{name.lower()}.*"))]
    if idle:
        text = f"{version}, built with {' and '.join(idle)}, which finds no GPU that it can use; computes on the CPU"
        return Finding("llama.cpp", "warning", text, "Install or update the GPU's driver.")
    seen = {"nvidia": "an NVIDIA GPU", "apple": "an Apple GPU", "other": "a GPU"}.get(gpu)
    text = f"{version}, built for the CPU alone" + (f", though this machine has {seen}" if seen else "")
    return Finding("llama.cpp", "warning" if gpu in ("nvidia", "apple") else "ok", text, _rebuild(gpu))


def _rebuild(gpu: str) -> str:
    darwin = platform.system() == "Darwin"
    backends = ["CUDA"] if gpu == "nvidia" else ["Metal"] if darwin else ["CUDA", "Vulkan"]
    lines = [
        f'CMAKE_ARGS="{_LLAMA_FLAGS[backend]}" pip install --force-reinstall --no-deps --no-cache-dir '
        f"--no-binary llama-cpp-python {_LLAMA_PIN}  # {backend}"
        for backend in backends
    ]
    return "\n".join(["To compute on a GPU, build it anew:", *lines])


def _microphone() -> Finding:
    with silenced_stderr():  # ALSA and JACK report every absent device to stderr
        loaded = _load("sounddevice")
        if isinstance(loaded, str):
            remedy = _reinstall("sounddevice")
            if "PortAudio" in loaded:
                darwin = platform.system() == "Darwin"
                remedy = "brew install portaudio" if darwin else "apt-get install libportaudio2"
            return Finding("microphone", "warning", loaded, remedy)
        try:
            devices: list[dict[str, Any]] = [dict(device) for device in loaded.query_devices()]
        except Exception as error:  # PortAudio's own errors, and its host's
            return Finding("microphone", "warning", f"PortAudio cannot list devices: {_one_line(error)}")
    inputs = [str(device["name"]) for device in devices if device["max_input_channels"] > 0]
    if not inputs:
        return Finding("microphone", "warning", "no input device is there", "Plug one in; files work without it.")
    count = f"{len(inputs)} input device{'s' if len(inputs) > 1 else ''}"
    return Finding("microphone", "ok", f"{count}: {', '.join(inputs[:3])}")


def _system_sound() -> Finding:
    try:
        from ..sources.system_sound import system_host

        name = system_host().find(None).name
    except Exception as error:  # RunError in words; anything else is a damaged installation, told of elsewhere
        text, _, remedy = _one_line(error).rpartition(": ")
        return Finding("system sound", "warning", text or remedy, remedy if text else "")
    return Finding("system sound", "ok", f"what is played to {name} can be listened to (--source system)")


def _distributed(subject: str, distributions: tuple[str, ...], command: str) -> Finding:
    """The packages of the extra `serve` that a command needs. They are Python's own: to be there is enough."""
    found = {name: _version(name) for name in distributions}
    if missing := [name for name, version in found.items() if version == _NO_VERSION]:
        text = f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed, for {command}"
        return Finding(subject, "warning", text, _install("serve"))
    return Finding(subject, "ok", f"{', '.join(map(' '.join, found.items()))}, for {command}")


def _demo_bundle() -> Finding:
    try:
        from ...models.bundle import shipped_bundle
        from ..bundle import open_bundle

        directory = shipped_bundle()
        open_bundle(directory)
    except Exception as error:  # BundleError in words; anything else is a damaged installation
        return Finding("demo model", "warning", _one_line(error), "Install Auricle again, or give --bundle DIR.")
    return Finding("demo model", "ok", str(directory))


def _gpu() -> str:
    """The kind of GPU the system shows: nvidia, apple, other, or none."""
    if shutil.which("nvidia-smi") or Path("/proc/driver/nvidia/version").exists():
        return "nvidia"
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return "apple"
    return "other" if any(Path("/dev/dri").glob("renderD*")) else "none"


def _load(module: str) -> Any:
    """The imported module, or one line that says why it cannot be imported."""
    try:
        child = subprocess.run(
            [sys.executable, "-P", "-c", f"import {module}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=IMPORT_SECONDS,
            check=False,
        )
        if child.returncode < 0:
            name = signal.Signals(-child.returncode).name
            return f"importing it is killed by {name}: it was built for another processor"
        if child.returncode:
            lines = child.stderr.strip().splitlines() or ["it cannot be imported"]
            missing = lines[-1].startswith("ModuleNotFoundError") and f"'{module}'" in lines[-1]
            return "is not installed" if missing else lines[-1]
        return importlib.import_module(module)
    except subprocess.TimeoutExpired:
        return f"importing it takes more than {IMPORT_SECONDS:.0f} s"
    except Exception as error:  # a package may raise anything while it is imported
        return _one_line(error)


def _distributions(module: str) -> list[str]:
    """The installed distributions that bring a top-level module."""
    with contextlib.suppress(Exception):  # one unreadable dist-info of another package must not matter
        return sorted(set(importlib.metadata.packages_distributions().get(module, [])))
    return []


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return _NO_VERSION


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
