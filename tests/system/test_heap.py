"""Memory that was freed goes back to the system, where the C library can be told so."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
from auricle.runtime.system.heap import heap_trimmed, share_heap, trim_heap

HOLES = """
import sys
from auricle.runtime.system.heap import trim_heap

def resident_kb():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))

blocks = [bytearray(60_000) for _ in range(2000)]
last = bytearray(60_000)  # above them, so that the heap cannot shrink by itself
del blocks
before = resident_kb()
trim_heap()
print(before - resident_kb())
"""

HEAPS = """
import ctypes, os, sys, threading
from auricle.runtime.system.heap import share_heap

if sys.argv[1] == "shared":
    share_heap()
blocks = []
threads = [threading.Thread(target=lambda: blocks.append(bytearray(60_000))) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(libc.fdopen(os.dup(1), b"w"))
libc.malloc_info(0, out)
libc.fflush(out)
"""


def test_it_may_be_called_anywhere() -> None:
    trim_heap()
    share_heap()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone has a heap for each thread")
def test_threads_share_one_heap() -> None:
    heaps = {
        how: subprocess.run(
            [sys.executable, "-c", HEAPS, how], capture_output=True, text=True, check=True
        ).stdout.count("<heap nr=")
        for how in ("shared", "apart")
    }
    assert heaps["shared"] == 1 < heaps["apart"]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone keeps such holes")
def test_holes_below_what_is_used_are_given_back() -> None:
    run = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True)
    assert int(run.stdout) > 50_000


@pytest.mark.parametrize(("seconds", "n"), [(0.0, 3), (60.0, 0)])
def test_it_is_given_back_between_items_now_and_then(monkeypatch: pytest.MonkeyPatch, seconds: float, n: int) -> None:
    trimmed: list[None] = []
    monkeypatch.setattr("auricle.runtime.system.heap.TRIM_SECONDS", seconds)
    monkeypatch.setattr("auricle.runtime.system.heap.trim_heap", lambda: trimmed.append(None))
    assert list(heap_trimmed(iter("abc"))) == ["a", "b", "c"] and len(trimmed) == n
