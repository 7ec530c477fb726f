"""Optimized graphs: a large graph -> the same as onnxruntime optimized it for this machine, kept and mapped.

    graph.onnx ── first opening ──► FOLDER/graph.MACHINE.KEY/optimized.onnx, weights.bin in the order of its kernels
                  later ones    ──► the kept one: not optimized again, its weights mapped and no copy of them made

The numbers are those of the graph itself, for it is what onnxruntime would make of it: of this file, by this version,
on a processor like this one, which is what MACHINE and KEY say. Whatever goes wrong here, the graph itself is opened.
Source: ONNX Runtime's session options for optimized models and prepacked initializers.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime

ort: Any = onnxruntime  # it has no types of its own

_ABANDONED_SECONDS = 3600.0  # what is unfinished so long was left by a process that was killed
WORTH_KEEPING_BYTES = 64 << 20  # smaller graphs open in a fifth of a second
_GRAPH = "optimized.onnx"
_WEIGHTS = "weights.bin"
_PROVIDERS = ["CPUExecutionProvider"]
_PROCESSOR = ("model name", "CPU part", "flags", "Features")
"""Lines of /proc/cpuinfo that tell which kernels onnxruntime chooses."""


def open_optimized(graph: Path, folder: Path, settings: Callable[[], Any]) -> Any | None:
    """A session of the kept graph on the CPU, made and kept in `folder` where there is none yet.

    settings: makes the SessionOptions that the graph itself would be opened with. None for a graph that is small, or
    that cannot be kept: no room, no right to write, nothing that onnxruntime can open.
    """
    files = [file.stat() for file in (graph, graph.with_name(f"{graph.name}.data")) if file.is_file()]
    if sum(file.st_size for file in files) < WORTH_KEEPING_BYTES:
        return None
    here = f"{graph.stem}.{_key(_processor())}"
    kept = folder / f"{here}.{_key(ort.__version__, *((file.st_size, file.st_mtime_ns) for file in files))}"
    if not kept.is_dir() and not _keep(graph, kept, settings()):
        return None
    for other in folder.glob(f"{here}.*"):
        if other != kept:  # of another graph of this name, by another version
            shutil.rmtree(other, ignore_errors=True)
    as_it_is = settings()
    as_it_is.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(str(kept / _GRAPH), as_it_is, providers=_PROVIDERS)
    except Exception:  # onnxruntime's exceptions share no public base; a damaged copy is made anew next time
        shutil.rmtree(kept, ignore_errors=True)
        return None


def _key(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def _processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor and what it can, of its first core."""
    try:
        first = cpuinfo.read_text(encoding="utf-8", errors="replace").split("\n\n", 1)[0]
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(line for line in first.splitlines() if line.startswith(_PROCESSOR))


def _keep(graph: Path, kept: Path, settings: Any) -> bool:
    """Write the optimized graph, renamed when it is whole."""
    unfinished = kept.with_name(f".{kept.name}.{os.getpid()}")
    settings.optimized_model_filepath = str(unfinished / _GRAPH)
    settings.add_session_config_entry("session.optimized_model_external_initializers_file_name", _WEIGHTS)
    settings.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    settings.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")
    try:
        for other in kept.parent.glob(f".{graph.stem}.*"):
            if time.time() - other.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(other, ignore_errors=True)
        unfinished.mkdir(parents=True)
        ort.InferenceSession(str(graph), settings, providers=_PROVIDERS)
        unfinished.rename(kept)
    except Exception:  # onnxruntime's exceptions share no public base
        shutil.rmtree(unfinished, ignore_errors=True)
        return kept.is_dir()  # another process was first
    return True
