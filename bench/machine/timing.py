"""Timing: a function -> wall and processor seconds of each run, behind a warm-up, the device waited for.

What is timed must end with its result in host memory: a kernel that was only launched has not been measured.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Times:
    """A sample per run, seconds."""

    wall_s: tuple[float, ...]
    cpu_s: tuple[float, ...]
    """Processor time of the whole process, all its threads."""


def repeat(work: Callable[[], object], n: int, warmup: int = 1, tick: Callable[[], None] | None = None) -> Times:
    """Time `work` n times after `warmup` runs that are not counted; `tick` is called after each run.

    `work` must return only when its result is in host memory.
    """
    wall: list[float] = []
    cpu: list[float] = []
    for run in range(-warmup, n):
        wall_0 = time.perf_counter()
        cpu_0 = time.process_time()
        work()
        if run >= 0:
            wall.append(time.perf_counter() - wall_0)
            cpu.append(time.process_time() - cpu_0)
        if tick:
            tick()
    return Times(tuple(wall), tuple(cpu))


def resident_bytes(field: str = "VmHWM") -> int | None:
    """From the kernel's account of this process: VmHWM its peak, VmRSS now, RssAnon without mapped files.

    None where there is no such account.
    """
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith(field + ":")).split()[1]) * 1024
    return None


def reset_peak() -> None:
    """Let VmHWM begin anew from what is resident now; nothing happens where the kernel does not offer that."""
    with suppress(OSError):
        Path(f"/proc/{os.getpid()}/clear_refs").write_text("5", encoding="ascii")
