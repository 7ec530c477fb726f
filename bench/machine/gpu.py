"""GPU: whether a card does the work, and what NVIDIA's driver reports of it; None where there is none."""

from __future__ import annotations

import subprocess

from ...runtime.engine import EngineOptions
from ...runtime.llm.llama import can_offload
from ...runtime.system.ort import choose_provider


def uses_gpu(options: EngineOptions) -> bool:
    """Whether an engine opened so computes on a card: its encoders, its language model, or both."""
    encoders = choose_provider(options.ort.provider) in ("cuda", "tensorrt")
    return encoders or (options.llm.n_gpu_layers != 0 and can_offload())


def gpu_name() -> str | None:
    """The first card's name."""
    return _ask("name")


def gpu_memory_bytes() -> int | None:
    """Memory in use on the first card, by all processes."""
    used = _ask("memory.used")
    return int(used) * 1024 * 1024 if used and used.isdigit() else None


def _ask(field: str) -> str | None:
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.strip().splitlines()
    return lines[0].strip() if lines else None
