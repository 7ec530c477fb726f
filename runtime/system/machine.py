"""Machine: this process -> the cores it may use, the threads each part takes of them, the memory there is.

In one session onnxruntime and llama.cpp work in turn, never at once, so each takes every core; what keeps them out of
each other's way is that neither spins for long once it waits. Sessions that are at work side by side share the graphs'
threads, and have one each for the language model. onnxruntime is told not to spin. llama.cpp's threads meet at barriers
of GCC's OpenMP, which by default spin for milliseconds: when another process wants the core, all wait for the one that
was put aside. `patient_openmp` makes them sleep after some microseconds, and compute_thread.py keeps them from sleeping
at once where several threads of this process have computed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from pathlib import Path

from ...models.errors import InputError

SMALL_LLM_BYTES = 32 << 20
SHARED_LLM_BYTES = 512 << 20
USUAL_LANES = 4
MAX_LANES = 64
MAX_THREADS = 512  # llama.cpp's own limit
SPINS = "2000"  # as fast as the default on idle cores, 1.7 x faster beside one busy process; see docs/performance.md


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


def default_threads(topology: Path = Path("/sys/devices/system/cpu")) -> int:
    """One per usable core; hardware threads of one core share its arithmetic and its way to memory: they count once.

    Where the system does not tell which those are, every one counts.
    """
    usable = usable_cores()
    if not hasattr(os, "sched_getaffinity"):
        return usable
    siblings: set[str] = set()
    for cpu in os.sched_getaffinity(0):
        try:
            siblings.add((topology / f"cpu{cpu}/topology/thread_siblings_list").read_text("ascii").strip())
        except (OSError, ValueError):
            return usable
    return max(1, min(usable, len(siblings)))


def llm_threads(weight_bytes: int, wanted: int | None = None, n_sessions: int = 1) -> int:
    """For a language model of so large a file: one thread for a small one, whose passes are shorter than a barrier.

    The demo's answers (a pass of 0.3 ms) take 33 ms with one thread, 40 and sometimes 107 with two; a pass of
    SmolLM2-135M (98 MB) takes 20 ms with one and 13 with two, of a 7B model 200 and 113. wanted: another number,
    whatever its size. n_sessions: that compute at once. Beside another one thread each is the most work for the time,
    up to SHARED_LLM_BYTES; a larger one waits for the other's pass and has every core.
    """
    if n_sessions > 1 and weight_bytes < SHARED_LLM_BYTES:
        return 1
    return wanted or (1 if weight_bytes < SMALL_LLM_BYTES else default_threads())


def usual_lanes(weight_bytes: int, threads: int | None = None) -> int:
    """How many sessions share a language model of so large a file where nobody says: one for each core or thread.

    At most USUAL_LANES. A larger model's passes fill the cores, or the way to memory, by themselves: it has one.
    threads: that the graphs have; None: as many as default_threads.
    """
    return min(threads or default_threads(), USUAL_LANES) if weight_bytes < SHARED_LLM_BYTES else 1


def require_lanes(n: int | None) -> None:
    """Raises InputError for a number of sessions that cannot be; None: usual_lanes."""
    if n is not None and not 1 <= n <= MAX_LANES:
        raise InputError(f"lanes={n} is not possible: it must be from 1 to {MAX_LANES}")


@contextlib.contextmanager
def patient_openmp() -> Generator[None]:
    """Around the first import of a library that uses GCC's OpenMP: its threads spin only a little before they sleep.

    OpenMP reads its settings once, when it is loaded; who has set them already keeps them.
    """
    ours = not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys()
    if ours:
        os.environ["GOMP_SPINCOUNT"] = SPINS
    try:
        yield
    finally:
        if ours:
            del os.environ["GOMP_SPINCOUNT"]


def memory_bytes() -> int:
    """Physical memory of this machine; 0 where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
