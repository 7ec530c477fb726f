"""Kernels: a graph -> those of onnxruntime that it really ran, by its profiler: int8 that computes in float is slow."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ...models.errors import RunError
from ...runtime.system.ort import PROVIDERS, session_settings

ort: Any = onnxruntime  # it has no types of its own

INTEGER = frozenset(
    (
        *("MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul", "QGemm", "QAttention"),
        *("QOrderedMatMul", "QOrderedAttention", "MatMulNBits", "QMoE", "ConvInteger", "QLinearConv"),
    )
)
"""Operators that multiply integers."""


@dataclass(frozen=True)
class Kernels:
    """One run of one graph."""

    calls: dict[str, int]
    """Operator, as optimized and fused -> how often it ran."""
    share: dict[str, float]
    """Operator -> share of the time of all kernels, the longest first."""

    @property
    def integer(self) -> float:
        """Share of the time spent in operators that multiply integers."""
        return sum(share for name, share in self.share.items() if name in INTEGER)

    def sentence(self, most: int = 5) -> str:
        """The longest ones: "MatMulInteger 61 %, Softmax 12 %"."""
        return ", ".join(f"{name} {share:.0%}" for name, share in list(self.share.items())[:most])


def profile(path: Path, feeds: Mapping[str, NDArray[np.float32]], provider: str, threads: int) -> Kernels:
    """Opens the graph once more, warms it up, and profiles one run. Raises RunError."""
    with tempfile.TemporaryDirectory(prefix="auricle-profile-") as folder:
        settings = session_settings(threads)
        settings.enable_profiling = True
        settings.profile_file_prefix = str(Path(folder) / "run")
        names = list(PROVIDERS.values())
        try:
            session = ort.InferenceSession(str(path), settings, providers=names[names.index(PROVIDERS[provider]) :])
            for _ in range(2):
                session.run(None, dict(feeds))
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"onnxruntime's profile of {path.name} cannot be read: {error}") from None
        except Exception as error:  # onnxruntime's exceptions share no public base
            raise RunError(f"{path.name} could not be profiled on {provider}: {error}") from None
    return count(events)


def count(events: list[dict[str, Any]]) -> Kernels:
    """From the events of onnxruntime's profile of several runs; the last run counts."""
    starts = [event["ts"] for event in events if event.get("name") == "model_run"]
    kernels = [
        (event["args"]["op_name"], event["dur"])
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time") and event["ts"] >= max(starts)
    ]
    times: Counter[str] = Counter()
    for name, duration in kernels:
        times[name] += duration
    total = max(1, sum(times.values()))
    calls = Counter(name for name, _ in kernels)
    return Kernels(dict(sorted(calls.items())), {name: time / total for name, time in times.most_common()})
