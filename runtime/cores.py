"""How many cores this process may really use."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def cpu_quota(file: Path = Path("/sys/fs/cgroup/cpu.max")) -> float | None:
    """Cores' worth of time that a container allows (`docker --cpus`), None where there is no limit or no such file."""
    with contextlib.suppress(OSError, ValueError):
        quota, period = file.read_text("ascii").split()
        return None if quota == "max" else int(quota) / int(period)
    return None


def usable_cores() -> int:
    """Cores by affinity and quota, at least 1. More threads than this wait for each other."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, round(quota)))
