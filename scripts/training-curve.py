"""Logs of training -> a picture of their losses: `training-curve.py OUT.png bridge=FILE.log joint=FILE.log,FILE.log`.

Files behind one name follow each other: the second one's seconds begin where the first one's end.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

LINE = re.compile(r"\w+: step (\d+), (\d+) s, loss (\d+\.\d+)")
SMOOTHED = 25
"""Lines of which the mean is drawn over the points."""


def losses(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Minutes of a core and losses."""
    minutes: list[float] = []
    found: list[float] = []
    for path in paths:
        begin = minutes[-1] if minutes else 0.0
        for _, seconds, loss in LINE.findall(path.read_text(encoding="utf-8")):
            minutes.append(begin + int(seconds) / 60)
            found.append(float(loss))
    order = np.argsort(minutes, kind="stable")
    return np.array(minutes)[order], np.array(found)[order]


def main() -> int:
    """See above."""
    out, *curves = sys.argv[1:]
    figure = Figure(figsize=(4.2 * len(curves), 3.0), layout="constrained")
    axes: Any = figure.subplots(1, len(curves), squeeze=False)[0]
    for axis, curve in zip(axes, curves, strict=True):
        name, _, files = curve.partition("=")
        minutes, found = losses([Path(file) for file in files.split(",")])
        axis.plot(minutes, found, ".", color="#8c959f", markersize=2, alpha=0.4)
        width = min(SMOOTHED, len(found))
        mean = np.convolve(found, np.ones(width) / width, "valid")
        axis.plot(minutes[width // 2 :][: len(mean)], mean, color="#0072b2")
        axis.set(title=name, xlabel="minutes of a process", ylabel="loss", yscale="log")
        axis.grid(True, which="both", color="#d5dae0", linewidth=0.6)
    figure.savefig(out, dpi=110)
    return 0


if __name__ == "__main__":
    sys.exit(main())
