"""Numbers and names as people read them: three digits that matter, hardly a power of ten, no abbreviation."""

from __future__ import annotations

import math

COUNTED = ("B", "FLOP")
"""Units that come in millions."""
_NAMES = {
    "wall": "wall time",
    "cpu": "processor time",
    "encoders_size": "size of the encoders",
    "ttft": "time to first token",
    "tpot": "time per token",
    "rtf": "real-time factor",
    "wer": "word error rate",
    "ratio_wall": "ratio of wall times",
    "ratio_cpu": "ratio of processor times",
    "ratio_memory": "ratio of peak memory",
    "kl": "KL divergence",
    "llm": "language model",
    "lag_unstable": "lag of unstable words",
    "lag_stable": "lag of stable words",
}


def number(value: float) -> str:
    """1234567 -> "1,234,567", 4.90 -> "4.9", 0.01234 -> "0.0123", 0.0000123 -> "1.23e-05"; not finite -> "-"."""
    if not math.isfinite(value):
        return "-"
    size = abs(value)
    if size >= 1e9:
        return f"{value:.2e}"
    if value == int(value) or size >= 999.5:
        return f"{value:,.0f}"
    return f"{value:.2e}" if size < 0.0001 else f"{value:.3g}"


def quantity(value: float, unit: str) -> str:
    """A number with its unit, when it has one: 1.5e9, "B" -> "1.50 GB"."""
    if unit in COUNTED:
        for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
            if abs(value) >= size:
                return f"{number(value / size)} {prefix}{unit}"
    return f"{number(value)} {unit}".strip()


def spoken(name: str) -> str:
    """A measure's name in words: "ttft" -> "time to first token", "speech_end" -> "speech end"."""
    return _NAMES.get(name, name.replace("_", " "))
